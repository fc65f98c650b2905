//! Who may do what. Deny by default: `system:masters` may all, everybody who is known may look around and ask
//! about himself, anybody may ask for health and version.

use barque_machinery::{gvk::GroupResource, status::Status};

use crate::{
    authn::{AUTHENTICATED, MASTERS, User},
    request_info::{RequestInfo, ResourceTarget, Target},
};

/// Refuses what `user` may not do, in kube-apiserver's words.
pub fn authorize(user: &User, info: &RequestInfo) -> Result<(), Status> {
    let allowed = match &info.target {
        Target::Path => may_path(user, info.verb, &info.path),
        Target::Resource(target) => may_resource(user, info.verb, target),
    };
    if allowed {
        return Ok(());
    }
    Err(match &info.target {
        Target::Path => {
            let why = format!("User {:?} cannot {} path {:?}", user.name, info.verb, info.path);
            Status::forbidden(&GroupResource::new("", ""), "", &why)
        }
        Target::Resource(target) => forbidden(user, info.verb, target),
    })
}

pub fn may_path(user: &User, verb: &str, path: &str) -> bool {
    const OPEN: [&str; 4] = ["/healthz", "/livez", "/readyz", "/version"];
    const DISCOVERY: [&str; 3] = ["/api", "/apis", "/openapi"];
    let below = |root: &&str| {
        path.strip_prefix(*root)
            .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    };
    user.is_in(MASTERS)
        || (verb == "get" && OPEN.iter().any(below))
        || (verb == "get" && user.is_in(AUTHENTICATED) && DISCOVERY.iter().any(below))
}

pub fn may_resource(user: &User, verb: &str, target: &ResourceTarget) -> bool {
    user.is_in(MASTERS) || (user.is_in(AUTHENTICATED) && verb == "create" && is_self_review(target))
}

/// Questions about oneself.
fn is_self_review(target: &ResourceTarget) -> bool {
    matches!(
        (target.group.as_str(), target.resource.as_str()),
        (
            "authorization.k8s.io",
            "selfsubjectaccessreviews" | "selfsubjectrulesreviews"
        ) | ("authentication.k8s.io", "selfsubjectreviews")
    )
}

fn forbidden(user: &User, verb: &str, target: &ResourceTarget) -> Status {
    let resource = match target.subresource.as_str() {
        "" => target.resource.clone(),
        subresource => format!("{}/{subresource}", target.resource),
    };
    let scope = match target.namespace.as_str() {
        "" => "at the cluster scope".to_owned(),
        namespace => format!("in the namespace {namespace:?}"),
    };
    let why = format!(
        "User {:?} cannot {verb} resource {resource:?} in API group {:?} {scope}",
        user.name, target.group
    );
    Status::forbidden(
        &GroupResource::new(&target.group, &target.resource),
        &target.name,
        &why,
    )
}

#[cfg(test)]
mod tests {
    use http::Method;

    use super::*;

    fn user(name: &str, groups: &[&str]) -> User {
        User {
            name: name.into(),
            groups: groups.iter().map(|g| g.to_string()).collect(),
        }
    }

    #[test]
    fn deny_by_default() {
        let anonymous = user("system:anonymous", &["system:unauthenticated"]);
        let jane = user("jane", &[AUTHENTICATED]);
        let root = user("root", &[MASTERS, AUTHENTICATED]);
        let check = |user: &User, method: Method, path: &str, expect: Option<&str>| {
            let found = authorize(user, &RequestInfo::parse(&method, path, false));
            assert_eq!(found.err().map(|s| s.message).as_deref(), expect, "{path}");
        };
        check(&root, Method::DELETE, "/api/v1/namespaces/a/pods/b", None);
        check(&anonymous, Method::GET, "/readyz/etcd", None);
        check(&anonymous, Method::GET, "/version", None);
        check(
            &anonymous,
            Method::GET,
            "/api",
            Some("forbidden: User \"system:anonymous\" cannot get path \"/api\""),
        );
        check(
            &anonymous,
            Method::GET,
            "/versions",
            Some("forbidden: User \"system:anonymous\" cannot get path \"/versions\""),
        );
        check(&jane, Method::GET, "/apis/apps/v1", None);
        check(
            &jane,
            Method::POST,
            "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews",
            None,
        );
        check(
            &jane,
            Method::GET,
            "/api/v1/namespaces/default/pods",
            Some(
                "pods is forbidden: User \"jane\" cannot list resource \"pods\" in API group \"\" in the namespace \
                 \"default\"",
            ),
        );
        check(
            &jane,
            Method::PUT,
            "/api/v1/nodes/n/status",
            Some(
                "nodes \"n\" is forbidden: User \"jane\" cannot update resource \"nodes/status\" in API group \"\" \
                 at the cluster scope",
            ),
        );
    }
}
