//! What a request asks for, read from its method, path and query alone.

use http::Method;

/// Where a request is aimed; attributes for authorization and routing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// `/healthz`, `/apis`, `/openapi/v3`…
    Path,
    Resource(ResourceTarget),
}

#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ResourceTarget {
    pub group: String,
    pub version: String,
    /// Empty: cluster scope, or all namespaces.
    pub namespace: String,
    pub resource: String,
    pub subresource: String,
    /// Empty: a collection.
    pub name: String,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RequestInfo {
    pub path: String,
    /// `get`, `list`, `watch`, `create`, `update`, `patch`, `delete`, `deletecollection`; of a path: the method.
    pub verb: &'static str,
    pub target: Target,
}

impl RequestInfo {
    pub fn parse(method: &Method, path: &str, watch: bool) -> Self {
        let segments: Vec<&str> = path.split('/').filter(|s| !s.is_empty()).collect();
        let target = match segments.as_slice() {
            ["api", version, rest @ ..] if !rest.is_empty() => parse_resource("", version, rest),
            ["apis", group, version, rest @ ..] if !rest.is_empty() => parse_resource(group, version, rest),
            _ => None,
        };
        let path = path.to_owned();
        match target {
            Some(target) => {
                let verb = resource_verb(method, target.name.is_empty(), watch);
                Self {
                    path,
                    verb,
                    target: Target::Resource(target),
                }
            }
            None => Self {
                path,
                verb: path_verb(method),
                target: Target::Path,
            },
        }
    }

    /// Watches outlive the limits that other requests are under.
    pub fn is_watch(&self) -> bool {
        self.verb == "watch"
    }

    pub fn is_mutating(&self) -> bool {
        !matches!(self.verb, "get" | "list" | "watch")
    }
}

fn parse_resource(group: &str, version: &str, rest: &[&str]) -> Option<ResourceTarget> {
    let mut target = ResourceTarget {
        group: group.into(),
        version: version.into(),
        ..Default::default()
    };
    let rest = match rest {
        ["namespaces", namespace, rest @ ..] => {
            target.namespace = (*namespace).into();
            match rest {
                // Of the namespace itself, which is its own namespace for authorization.
                [] | ["status"] | ["finalize"] => {
                    target.resource = "namespaces".into();
                    target.name = (*namespace).into();
                    target.subresource = rest.first().map(|s| (*s).into()).unwrap_or_default();
                    return Some(target);
                }
                rest => rest,
            }
        }
        rest => rest,
    };
    let (resource, name, subresource) = match rest {
        [resource] => (resource, "", ""),
        [resource, name] => (resource, *name, ""),
        [resource, name, subresource] => (resource, *name, *subresource),
        _ => return None,
    };
    target.resource = (*resource).into();
    target.name = name.into();
    target.subresource = subresource.into();
    Some(target)
}

fn resource_verb(method: &Method, is_collection: bool, watch: bool) -> &'static str {
    match (method.as_str(), is_collection) {
        ("GET" | "HEAD", true) if watch => "watch",
        ("GET" | "HEAD", true) => "list",
        ("GET" | "HEAD", false) => "get",
        ("POST", _) => "create",
        ("PUT", _) => "update",
        ("PATCH", _) => "patch",
        ("DELETE", true) => "deletecollection",
        ("DELETE", false) => "delete",
        _ => "",
    }
}

fn path_verb(method: &Method) -> &'static str {
    match method.as_str() {
        "GET" | "HEAD" => "get",
        "POST" => "post",
        "PUT" => "put",
        "PATCH" => "patch",
        "DELETE" => "delete",
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parses_paths() {
        let check = |method: Method, path: &str, watch: bool, expect: &str| {
            let info = RequestInfo::parse(&method, path, watch);
            let found = match info.target {
                Target::Path => format!("{} path", info.verb),
                Target::Resource(t) => format!(
                    "{} {}/{} ns={} {}/{} name={}",
                    info.verb, t.group, t.version, t.namespace, t.resource, t.subresource, t.name
                ),
            };
            assert_eq!(found, expect, "{path}");
        };
        check(Method::GET, "/api", false, "get path");
        check(Method::GET, "/api/v1", false, "get path");
        check(Method::GET, "/apis/apps/v1/", false, "get path");
        check(Method::GET, "/api/v1/pods", false, "list /v1 ns= pods/ name=");
        check(
            Method::GET,
            "/api/v1/namespaces/a/pods",
            true,
            "watch /v1 ns=a pods/ name=",
        );
        check(
            Method::GET,
            "/api/v1/namespaces/a",
            false,
            "get /v1 ns=a namespaces/ name=a",
        );
        check(
            Method::PUT,
            "/api/v1/namespaces/a/finalize",
            false,
            "update /v1 ns=a namespaces/finalize name=a",
        );
        check(
            Method::PATCH,
            "/apis/apps/v1/namespaces/a/deployments/b/scale",
            false,
            "patch apps/v1 ns=a deployments/scale name=b",
        );
        check(
            Method::DELETE,
            "/api/v1/nodes",
            false,
            "deletecollection /v1 ns= nodes/ name=",
        );
        check(
            Method::POST,
            "/api/v1/namespaces",
            false,
            "create /v1 ns= namespaces/ name=",
        );
        check(
            Method::GET,
            "/api/v1/namespaces/a/pods/b/proxy/x",
            false,
            "get path",
        );
    }
}
