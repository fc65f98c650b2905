//! Namespaces: deleted in two steps, emptied in between by the leader.

use barque_machinery::{field_error::FieldError, gvk::GroupVersion, metadata::Meta, name};
use serde_json::{Value, json};

use super::object_at;
use crate::resource::{Resource, Strategy, Subresource};

pub static NAMESPACES: Resource = Resource {
    group_version: GroupVersion::new("", "v1"),
    plural: "namespaces",
    singular: "namespace",
    kind: "Namespace",
    short_names: &["ns"],
    categories: &[],
    namespaced: false,
    subresources: &[Subresource::Status, Subresource::Finalize],
    selectable: &["status.phase"],
    indexed: &["status.phase"],
    name_check: name::dns1123_label,
    has_generation: false,
    create_on_update: false,
    expires: false,
    strategy: &Namespaces,
};

struct Namespaces;

/// Held until everything in the namespace is gone.
pub const FINALIZER: &str = "kubernetes";

impl Strategy for Namespaces {
    fn set_defaults(&self, object: &mut Value) {
        let name = Meta::of(object).name().to_owned();
        if let Some(labels) = object.get_mut("metadata").and_then(|m| object_at(m, "labels"))
            && !name.is_empty()
        {
            labels.insert("kubernetes.io/metadata.name".into(), name.into());
        }
    }

    fn prepare_create(&self, object: &mut Value) {
        object["status"] = json!({ "phase": "Active" });
        if let Some(spec) = object_at(object, "spec") {
            spec.insert("finalizers".into(), json!([FINALIZER]));
        }
    }

    fn prepare_update(&self, new: &mut Value, old: &Value) {
        // Only the finalize subresource changes these.
        new["spec"] = old["spec"].clone();
    }

    fn validate_update(&self, new: &Value, old: &Value, errors: &mut Vec<FieldError>) {
        if new["status"]["phase"] != old["status"]["phase"] {
            errors.push(FieldError::invalid(
                "status.phase",
                new["status"]["phase"].clone(),
                "may not be changed",
            ));
        }
    }

    fn holds_deletion(&self, object: &Value) -> bool {
        object["spec"]["finalizers"]
            .as_array()
            .is_some_and(|f| !f.is_empty())
    }

    fn prepare_deletion(&self, object: &mut Value) {
        object["status"]["phase"] = "Terminating".into();
    }
}
