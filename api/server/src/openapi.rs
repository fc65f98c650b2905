//! OpenAPI v3: an index and a document per group version, enough for `kubectl explain` and for kubectl to leave
//! validation to the server. The documents are made once.

use std::{collections::BTreeMap, sync::LazyLock};

use axum::body::Body;
use barque_machinery::{gvk::GroupVersion, status::Status};
use bytes::Bytes;
use http::{HeaderMap, Response, StatusCode};
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};

use crate::{
    discovery, negotiate,
    resource::Resource,
    resources::RESOURCES,
    respond,
    schema::{self, definitions},
    version,
};

/// A document and the hash under which clients may keep it.
struct Document {
    body: Bytes,
    hash: String,
}

/// Answers a path below `/openapi`; `None` when there is nothing.
pub fn answer(path: &str, headers: &HeaderMap) -> Option<Result<Response<Body>, Status>> {
    if path == "/openapi/v2" {
        return Some(swagger(headers));
    }
    let rest = path.strip_prefix("/openapi/v3")?.trim_matches('/');
    let json = |body: Bytes| respond::bytes(StatusCode::OK, body);
    if !negotiate::accepted(headers).iter().any(|m| m.takes_json()) {
        return Some(Err(Status::not_acceptable("application/json")));
    }
    if rest.is_empty() {
        return Some(Ok(json(index())));
    }
    documents()
        .get(rest)
        .map(|document| Ok(json(document.body.clone())))
}

/// The older document, for those who read it as JSON; kubectl wants protobuf and does without.
fn swagger(headers: &HeaderMap) -> Result<Response<Body>, Status> {
    static BODY: LazyLock<Bytes> = LazyLock::new(|| {
        let definitions = serde_json::to_string(definitions()).unwrap_or_default();
        let definitions = definitions.replace("#/components/schemas/", "#/definitions/");
        let definitions: Value = serde_json::from_str(&definitions).unwrap_or_default();
        respond::to_line(&json!({
            "swagger": "2.0",
            "info": { "title": "Kubernetes", "version": version::git_version() },
            "paths": {},
            "definitions": definitions,
        }))
    });
    match negotiate::accepted(headers).iter().any(|m| m.takes_json()) {
        true => Ok(respond::bytes(StatusCode::OK, BODY.clone())),
        false => Err(Status::not_acceptable("application/json")),
    }
}

fn index() -> Bytes {
    let mut paths = Map::new();
    for (path, document) in documents() {
        let url = format!("/openapi/v3/{path}?hash={}", document.hash);
        paths.insert(path.clone(), json!({ "serverRelativeURL": url }));
    }
    respond::to_line(&json!({ "paths": paths }))
}

fn documents() -> &'static BTreeMap<String, Document> {
    static DOCUMENTS: LazyLock<BTreeMap<String, Document>> = LazyLock::new(|| {
        discovery::group_versions()
            .into_iter()
            .map(|version| (root_of(version), document(version)))
            .collect()
    });
    &DOCUMENTS
}

/// `api/v1`, `apis/apps/v1`
fn root_of(version: GroupVersion) -> String {
    match version.group {
        "" => format!("api/{}", version.version),
        group => format!("apis/{group}/{}", version.version),
    }
}

fn document(version: GroupVersion) -> Document {
    let mut paths = Map::new();
    let mut wanted = vec!["io.k8s.apimachinery.pkg.apis.meta.v1.DeleteOptions".to_owned()];
    for resource in RESOURCES.iter().filter(|r| r.group_version == version) {
        let (collection, item) = resource_paths(resource);
        paths.insert(collection, collection_operations(resource));
        paths.insert(item.clone(), item_operations(resource));
        for subresource in resource
            .subresources
            .iter()
            .filter(|s| s.verbs().contains(&"patch"))
        {
            paths.insert(
                format!("{item}/{}", subresource.name()),
                item_operations(resource),
            );
        }
        for kind in [resource.kind.to_owned(), resource.list_kind()] {
            wanted.push(schema::definition_name(version.group, version.version, &kind));
        }
    }
    let schemas = reachable(wanted, version);
    let value = json!({
        "openapi": "3.0.0",
        "info": { "title": "Kubernetes", "version": version::git_version() },
        "paths": paths,
        "components": { "schemas": schemas },
    });
    let body = respond::to_line(&value);
    let hash = Sha256::digest(&body).iter().map(|b| format!("{b:02X}")).collect();
    Document { body, hash }
}

fn resource_paths(resource: &Resource) -> (String, String) {
    let root = root_of(resource.group_version);
    let scope = if resource.namespaced {
        "namespaces/{namespace}/"
    } else {
        ""
    };
    let collection = format!("/{root}/{scope}{}", resource.plural);
    let item = format!("{collection}/{{name}}");
    (collection, item)
}

fn collection_operations(resource: &Resource) -> Value {
    json!({
        "get": operation(resource, "list", &resource.list_kind(), None),
        "post": operation(resource, "post", resource.kind, Some(&["application/json", "application/yaml"])),
    })
}

fn item_operations(resource: &Resource) -> Value {
    // Strategic merge patch is accepted and not named here: a client that finds it named builds such patches from
    // these schemas, which do not say by which key lists merge; otherwise it goes by what it knows itself.
    let patches = ["application/json-patch+json", "application/merge-patch+json"];
    json!({
        "get": operation(resource, "get", resource.kind, None),
        "put": operation(resource, "put", resource.kind, Some(&["application/json", "application/yaml"])),
        "patch": operation(resource, "patch", resource.kind, Some(&patches)),
        "delete": operation(resource, "delete", resource.kind, None),
    })
}

fn operation(resource: &Resource, action: &str, kind: &str, bodies: Option<&[&str]>) -> Value {
    let version = resource.group_version;
    let name = schema::definition_name(version.group, version.version, kind);
    let content = |types: &[&str]| -> Value {
        let schema = json!({ "schema": { "$ref": format!("#/components/schemas/{name}") } });
        types
            .iter()
            .map(|t| ((*t).to_owned(), schema.clone()))
            .collect::<Map<_, _>>()
            .into()
    };
    let mut operation = json!({
        "operationId": format!("{action}{}", resource.kind),
        "responses": { "200": { "description": "OK", "content": content(&["application/json"]) } },
        "x-kubernetes-action": action,
        "x-kubernetes-group-version-kind":
            { "group": version.group, "version": version.version, "kind": resource.kind },
    });
    if let Some(types) = bodies {
        operation["parameters"] = json!([
            parameter("dryRun"),
            parameter("fieldManager"),
            parameter("fieldValidation")
        ]);
        operation["requestBody"] = json!({ "content": content(types), "required": true });
    }
    operation
}

fn parameter(name: &str) -> Value {
    json!({ "name": name, "in": "query", "schema": { "type": "string" } })
}

/// The definitions that are reached from `wanted`; kinds are marked as such.
fn reachable(mut wanted: Vec<String>, version: GroupVersion) -> Map<String, Value> {
    let mut schemas = Map::new();
    while let Some(name) = wanted.pop() {
        let Some(definition) = definitions().get(&name).filter(|_| !schemas.contains_key(&name)) else {
            continue;
        };
        collect_references(definition, &mut wanted);
        let mut definition = definition.clone();
        if let Some(kind) = kind_of(&name, version) {
            let gvk = json!({ "group": version.group, "version": version.version, "kind": kind });
            definition["x-kubernetes-group-version-kind"] = json!([gvk]);
        }
        schemas.insert(name, definition);
    }
    schemas
}

fn kind_of(name: &str, version: GroupVersion) -> Option<String> {
    let served = RESOURCES.iter().filter(|r| r.group_version == version);
    let mut kinds = served.flat_map(|r| [r.kind.to_owned(), r.list_kind()]);
    kinds.find(|kind| schema::definition_name(version.group, version.version, kind) == name)
}

fn collect_references(value: &Value, into: &mut Vec<String>) {
    match value {
        Value::Object(fields) => {
            if let Some(reference) = fields.get("$ref").and_then(Value::as_str) {
                into.extend(reference.strip_prefix("#/components/schemas/").map(str::to_owned));
            }
            fields.values().for_each(|v| collect_references(v, into));
        }
        Value::Array(items) => items.iter().for_each(|v| collect_references(v, into)),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patches_say_that_the_server_validates() {
        let document = &documents()["apis/apps/v1"];
        let value: Value = serde_json::from_slice(&document.body).unwrap();
        let patch = &value["paths"]["/apis/apps/v1/namespaces/{namespace}/deployments/{name}"]["patch"];
        assert!(
            patch["parameters"]
                .as_array()
                .unwrap()
                .iter()
                .any(|p| p["name"] == "fieldValidation")
        );
        let schemas = &value["components"]["schemas"];
        assert_eq!(
            schemas["io.k8s.api.apps.v1.Deployment"]["x-kubernetes-group-version-kind"][0]["kind"],
            "Deployment"
        );
        assert!(schemas["io.k8s.api.core.v1.PodSpec"].is_object());
    }
}
