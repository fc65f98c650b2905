//! POST of questions about oneself: may I do this, what may I do, who am I. Answered, never stored.

use axum::body::Body;
use barque_machinery::status::Status;
use http::{HeaderMap, Response, StatusCode};
use serde_json::{Value, json};

use crate::{
    authn::{MASTERS, User},
    authz, body,
    request_info::ResourceTarget,
    respond,
};

pub async fn review(
    target: &ResourceTarget,
    user: &User,
    headers: &HeaderMap,
    body: Body,
) -> Result<Response<Body>, Status> {
    let bytes = body::read(body).await?;
    let mut object = body::decode(body::content_type(headers), &bytes)?.value;
    if !object.is_object() {
        return Err(Status::bad_request(
            "the object provided is unrecognized (must be a JSON object)",
        ));
    }
    let (kind, status) = match target.resource.as_str() {
        "selfsubjectaccessreviews" => ("SelfSubjectAccessReview", access(user, &object["spec"])),
        "selfsubjectrulesreviews" => ("SelfSubjectRulesReview", rules(user)),
        "selfsubjectreviews" => ("SelfSubjectReview", json!({ "userInfo": user.to_value() })),
        _ => return Err(Status::unknown_path()),
    };
    object["kind"] = kind.into();
    object["apiVersion"] = format!("{}/{}", target.group, target.version).into();
    object["status"] = status;
    Ok(respond::json(StatusCode::CREATED, &object))
}

fn access(user: &User, spec: &Value) -> Value {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let allowed = if let Some(path) = spec["nonResourceAttributes"]["path"].as_str() {
        authz::may_path(user, &text(&spec["nonResourceAttributes"]["verb"]), path)
    } else {
        let asked = &spec["resourceAttributes"];
        let target = ResourceTarget {
            group: text(&asked["group"]),
            version: text(&asked["version"]),
            namespace: text(&asked["namespace"]),
            resource: text(&asked["resource"]),
            subresource: text(&asked["subresource"]),
            name: text(&asked["name"]),
        };
        authz::may_resource(user, &text(&asked["verb"]), &target)
    };
    json!({ "allowed": allowed })
}

fn rules(user: &User) -> Value {
    let everything = user.is_in(MASTERS);
    let resources = match everything {
        true => json!([{ "verbs": ["*"], "apiGroups": ["*"], "resources": ["*"] }]),
        false => json!([
            {
                "verbs": ["create"], "apiGroups": ["authorization.k8s.io"],
                "resources": ["selfsubjectaccessreviews", "selfsubjectrulesreviews"],
            },
            { "verbs": ["create"], "apiGroups": ["authentication.k8s.io"], "resources": ["selfsubjectreviews"] },
        ]),
    };
    let paths = match everything {
        true => json!([{ "verbs": ["*"], "nonResourceURLs": ["*"] }]),
        false => json!([{
            "verbs": ["get"],
            "nonResourceURLs": [
                "/api", "/api/*", "/apis", "/apis/*", "/healthz", "/livez", "/openapi", "/openapi/*", "/readyz",
                "/version",
            ],
        }]),
    };
    json!({ "resourceRules": resources, "nonResourceRules": paths, "incomplete": false })
}
