//! Which groups, versions and resources there are: the aggregated form that kubectl asks for, and the older
//! documents one by one.

use axum::body::Body;
use barque_machinery::{gvk::GroupVersion, status::Status};
use http::{HeaderMap, Response, StatusCode};
use serde_json::{Value, json};

use crate::{
    negotiate::{self, MediaType},
    resource::{Resource, Subresource},
    resources::RESOURCES,
    respond,
};

/// A resource that is answered and never stored.
struct Review {
    group_version: GroupVersion,
    plural: &'static str,
    kind: &'static str,
}

const REVIEWS: [Review; 3] = [
    Review {
        group_version: GroupVersion::new("authentication.k8s.io", "v1"),
        plural: "selfsubjectreviews",
        kind: "SelfSubjectReview",
    },
    Review {
        group_version: GroupVersion::new("authorization.k8s.io", "v1"),
        plural: "selfsubjectaccessreviews",
        kind: "SelfSubjectAccessReview",
    },
    Review {
        group_version: GroupVersion::new("authorization.k8s.io", "v1"),
        plural: "selfsubjectrulesreviews",
        kind: "SelfSubjectRulesReview",
    },
];

pub fn is_review(group: &str, version: &str, plural: &str) -> bool {
    let same = |r: &Review| {
        r.group_version.group == group && r.group_version.version == version && r.plural == plural
    };
    REVIEWS.iter().any(same)
}

/// Every group version served, the core's first.
pub fn group_versions() -> Vec<GroupVersion> {
    let mut all: Vec<GroupVersion> = RESOURCES.iter().map(|r| r.group_version).collect();
    all.extend(REVIEWS.iter().map(|r| r.group_version));
    all.sort();
    all.dedup();
    all
}

/// Answers a discovery path; `None` when it is none.
pub fn answer(path: &str, headers: &HeaderMap) -> Option<Result<Response<Body>, Status>> {
    let segments: Vec<&str> = path.split('/').filter(|s| !s.is_empty()).collect();
    let document = match segments.as_slice() {
        ["api"] => root(headers, true),
        ["apis"] => root(headers, false),
        ["api", version] => resource_list("", version),
        ["apis", group] => api_group(group),
        ["apis", group, version] => resource_list(group, version),
        _ => return None,
    };
    Some(document)
}

fn root(headers: &HeaderMap, core: bool) -> Result<Response<Body>, Status> {
    for media in negotiate::accepted(headers).iter().filter(|m| m.takes_json()) {
        if is_aggregated(media) {
            let content_type = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList";
            let body = respond::to_line(&aggregated(core));
            return Ok(respond::with_type(StatusCode::OK, content_type, body));
        }
        if media.parameter("as").is_empty() {
            let document = if core { api_versions() } else { api_group_list() };
            return Ok(respond::json(StatusCode::OK, &document));
        }
    }
    Err(Status::not_acceptable("application/json"))
}

fn is_aggregated(media: &MediaType<'_>) -> bool {
    media.parameter("as") == "APIGroupDiscoveryList"
        && media.parameter("g") == "apidiscovery.k8s.io"
        && media.parameter("v") == "v2"
}

fn aggregated(core: bool) -> Value {
    let of_root = |v: &GroupVersion| v.group.is_empty() == core;
    let items: Vec<Value> = group_versions()
        .into_iter()
        .filter(of_root)
        .map(aggregated_group)
        .collect();
    json!({
        "kind": "APIGroupDiscoveryList", "apiVersion": "apidiscovery.k8s.io/v2", "metadata": {}, "items": items,
    })
}

/// Every group has one version for now.
fn aggregated_group(version: GroupVersion) -> Value {
    let stored = RESOURCES
        .iter()
        .filter(|r| r.group_version == version)
        .map(|r| aggregated_resource(r));
    let reviews = REVIEWS.iter().filter(|r| r.group_version == version).map(|r| {
        json!({
            "resource": r.plural, "responseKind": response_kind("", "", r.kind), "scope": "Cluster",
            "singularResource": r.kind.to_lowercase(), "verbs": ["create"],
        })
    });
    let resources: Vec<Value> = stored.chain(reviews).collect();
    let metadata = if version.group.is_empty() {
        json!({})
    } else {
        json!({ "name": version.group })
    };
    json!({
        "metadata": metadata,
        "versions": [{ "version": version.version, "resources": resources, "freshness": "Current" }],
    })
}

fn aggregated_resource(resource: &Resource) -> Value {
    let version = resource.group_version;
    let subresources: Vec<Value> = resource
        .subresources
        .iter()
        .map(|s| {
            let (group, version, kind) = subresource_kind(resource, *s);
            json!({
                "subresource": s.name(), "responseKind": response_kind(group, version, kind), "verbs": s.verbs(),
            })
        })
        .collect();
    let mut value = json!({
        "resource": resource.plural,
        "responseKind": response_kind(version.group, version.version, resource.kind),
        "scope": if resource.namespaced { "Namespaced" } else { "Cluster" },
        "singularResource": resource.singular,
        "verbs": resource.verbs(),
    });
    for (field, list) in [
        ("shortNames", resource.short_names),
        ("categories", resource.categories),
    ] {
        if !list.is_empty() {
            value[field] = json!(list);
        }
    }
    if !subresources.is_empty() {
        value["subresources"] = subresources.into();
    }
    value
}

fn response_kind(group: &str, version: &str, kind: &str) -> Value {
    json!({ "group": group, "version": version, "kind": kind })
}

fn subresource_kind(
    resource: &Resource,
    subresource: Subresource,
) -> (&'static str, &'static str, &'static str) {
    match subresource {
        Subresource::Scale => ("autoscaling", "v1", "Scale"),
        Subresource::Binding => ("", "v1", "Binding"),
        Subresource::Status | Subresource::Finalize => (
            resource.group_version.group,
            resource.group_version.version,
            resource.kind,
        ),
    }
}

fn api_versions() -> Value {
    json!({ "kind": "APIVersions", "versions": ["v1"], "serverAddressByClientCIDRs": [] })
}

fn api_group_list() -> Value {
    let named = group_versions().into_iter().filter(|v| !v.group.is_empty());
    let groups: Vec<Value> = named.map(group_value).collect();
    json!({ "kind": "APIGroupList", "apiVersion": "v1", "groups": groups })
}

fn group_value(version: GroupVersion) -> Value {
    let entry = json!({ "groupVersion": version.to_string(), "version": version.version });
    json!({ "name": version.group, "versions": [entry], "preferredVersion": entry })
}

fn api_group(group: &str) -> Result<Response<Body>, Status> {
    let version = group_versions()
        .into_iter()
        .find(|v| v.group == group && !group.is_empty());
    let mut value = group_value(version.ok_or_else(Status::unknown_path)?);
    value["kind"] = "APIGroup".into();
    value["apiVersion"] = "v1".into();
    Ok(respond::json(StatusCode::OK, &value))
}

fn resource_list(group: &str, version: &str) -> Result<Response<Body>, Status> {
    let served = group_versions()
        .into_iter()
        .find(|v| v.group == group && v.version == version);
    let served = served.ok_or_else(Status::unknown_path)?;
    let mut resources = Vec::new();
    for resource in RESOURCES.iter().filter(|r| r.group_version == served) {
        resources.push(json!({
            "name": resource.plural, "singularName": resource.singular, "namespaced": resource.namespaced,
            "kind": resource.kind, "verbs": resource.verbs(), "shortNames": resource.short_names,
            "categories": resource.categories,
        }));
        for subresource in resource.subresources {
            let (group, version, kind) = subresource_kind(resource, *subresource);
            resources.push(json!({
                "name": format!("{}/{}", resource.plural, subresource.name()), "singularName": "",
                "namespaced": resource.namespaced, "group": group, "version": version, "kind": kind,
                "verbs": subresource.verbs(),
            }));
        }
    }
    for review in REVIEWS.iter().filter(|r| r.group_version == served) {
        resources.push(json!({
            "name": review.plural, "singularName": review.kind.to_lowercase(), "namespaced": false,
            "kind": review.kind, "verbs": ["create"],
        }));
    }
    let list = json!({
        "kind": "APIResourceList", "apiVersion": "v1", "groupVersion": served.to_string(), "resources": resources,
    });
    Ok(respond::json(StatusCode::OK, &list))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups() {
        let names: Vec<String> = group_versions().iter().map(|v| v.to_string()).collect();
        assert_eq!(
            names,
            [
                "v1",
                "apps/v1",
                "authentication.k8s.io/v1",
                "authorization.k8s.io/v1",
                "coordination.k8s.io/v1"
            ]
        );
        assert_eq!(
            aggregated(true)["items"][0]["versions"][0]["resources"]
                .as_array()
                .map(Vec::len),
            Some(7)
        );
    }
}
