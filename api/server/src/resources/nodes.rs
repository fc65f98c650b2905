//! Nodes, as their agents register them.

use barque_machinery::{
    field_error::{FieldError, IMMUTABLE},
    gvk::GroupVersion,
    name,
};
use serde_json::Value;

use super::object_at;
use crate::resource::{Resource, Strategy, Subresource};

pub static NODES: Resource = Resource {
    group_version: GroupVersion::new("", "v1"),
    plural: "nodes",
    singular: "node",
    kind: "Node",
    short_names: &["no"],
    categories: &[],
    namespaced: false,
    subresources: &[Subresource::Status],
    selectable: &["spec.unschedulable"],
    indexed: &[],
    name_check: name::dns1123_subdomain,
    has_generation: false,
    create_on_update: false,
    expires: false,
    strategy: &Nodes,
};

struct Nodes;

impl Strategy for Nodes {
    fn set_defaults(&self, object: &mut Value) {
        object_at(object, "spec");
        object_at(object, "status");
    }

    fn validate_update(&self, new: &Value, old: &Value, errors: &mut Vec<FieldError>) {
        for field in ["podCIDR", "providerID"] {
            let (now, was) = (&new["spec"][field], &old["spec"][field]);
            if !was.is_null() && now != was {
                errors.push(FieldError::invalid(
                    format!("spec.{field}"),
                    now.clone(),
                    IMMUTABLE,
                ));
            }
        }
    }

    fn keeps_status_on_create(&self) -> bool {
        true
    }
}
