//! JSON schemas of k8s-openapi's types, by their Kubernetes definition names.

use std::sync::LazyLock;

use k8s_openapi::{
    api::{
        apps::v1::{Deployment, ReplicaSet},
        authentication::v1::SelfSubjectReview,
        authorization::v1::{SelfSubjectAccessReview, SelfSubjectRulesReview},
        autoscaling::v1::Scale,
        coordination::v1::Lease,
        core::v1::{Binding, ConfigMap, Event, Namespace, Node, Pod, Secret, Service},
    },
    apimachinery::pkg::apis::meta::v1::{DeleteOptions, ListMeta, Status},
};
use schemars::generate::{SchemaGenerator, SchemaSettings};
use serde_json::{Map, Value, json};

use super::definition_name;
use crate::resources::RESOURCES;

/// Where OpenAPI keeps schemas; references are spelled so.
pub const SCHEMA_PATH: &str = "#/components/schemas/";

/// Every definition that a served kind reaches.
pub fn definitions() -> &'static Map<String, Value> {
    static DEFINITIONS: LazyLock<Map<String, Value>> = LazyLock::new(generate);
    &DEFINITIONS
}

macro_rules! add_all {
    ($generator:expr; $($kind:ty),* $(,)?) => { $( $generator.subschema_for::<$kind>(); )* };
}

fn generate() -> Map<String, Value> {
    let settings = SchemaSettings::default().with(|s| {
        s.definitions_path = "/components/schemas".into();
        s.meta_schema = None;
        s.transforms.clear();
    });
    let mut generator = SchemaGenerator::new(settings);
    add_all!(generator; ConfigMap, Event, Namespace, Node, Pod, Secret, Service, Deployment, ReplicaSet, Lease);
    add_all!(generator; Binding, Scale, DeleteOptions, ListMeta, Status);
    add_all!(generator; SelfSubjectAccessReview, SelfSubjectRulesReview, SelfSubjectReview);
    let mut definitions = generator.take_definitions(true);
    definitions.values_mut().for_each(wrap_references);
    for resource in RESOURCES {
        let version = resource.group_version;
        let name = |kind: &str| definition_name(version.group, version.version, kind);
        definitions.insert(
            name(&resource.list_kind()),
            list_of(resource.kind, &name(resource.kind)),
        );
    }
    definitions
}

/// The list of a kind; k8s-openapi has no schema for those.
fn list_of(kind: &str, item: &str) -> Value {
    let text = json!({ "type": "string" });
    let meta = format!("{SCHEMA_PATH}io.k8s.apimachinery.pkg.apis.meta.v1.ListMeta");
    json!({
        "description": format!("{kind}List is a list of {kind} objects."),
        "type": "object",
        "properties": {
            "apiVersion": text,
            "kind": text,
            "metadata": { "allOf": [{ "$ref": meta }] },
            "items": { "type": "array", "items": { "$ref": format!("{SCHEMA_PATH}{item}") } },
        },
        "required": ["items"],
    })
}

/// OpenAPI 3.0 ignores what stands beside a `$ref`: what does goes beside an `allOf` instead.
fn wrap_references(schema: &mut Value) {
    match schema {
        Value::Object(fields) => {
            if fields.len() > 1
                && fields.get("$ref").is_some_and(Value::is_string)
                && let Some(reference) = fields.remove("$ref")
            {
                fields.insert("allOf".into(), json!([{ "$ref": reference }]));
            }
            fields.values_mut().for_each(wrap_references);
        }
        Value::Array(items) => items.iter_mut().for_each(wrap_references),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_served_kind_is_defined_and_no_reference_dangles() {
        for resource in RESOURCES {
            let version = resource.group_version;
            for kind in [resource.kind.to_owned(), resource.list_kind()] {
                let name = definition_name(version.group, version.version, &kind);
                assert!(definitions().contains_key(&name), "{name}");
            }
        }
        let text = serde_json::to_string(definitions()).unwrap();
        for piece in text.split("\"$ref\":\"").skip(1) {
            let reference = piece.split('"').next().unwrap();
            let name = reference
                .strip_prefix(SCHEMA_PATH)
                .unwrap_or_else(|| panic!("{reference}"));
            assert!(definitions().contains_key(name), "{name}");
        }
    }
}
