//! Replica sets of apps/v1.

use barque_machinery::{field_error::FieldError, gvk::GroupVersion, name};
use serde_json::Value;

use super::deployments::{check_selector_fixed, validate_workload, workload_defaults};
use crate::resource::{Resource, Strategy, Subresource};

pub static REPLICASETS: Resource = Resource {
    group_version: GroupVersion::new("apps", "v1"),
    plural: "replicasets",
    singular: "replicaset",
    kind: "ReplicaSet",
    short_names: &["rs"],
    categories: &["all"],
    namespaced: true,
    subresources: &[Subresource::Status, Subresource::Scale],
    selectable: &["status.replicas"],
    indexed: &[],
    name_check: name::dns1123_subdomain,
    has_generation: true,
    create_on_update: false,
    expires: false,
    strategy: &ReplicaSets,
};

struct ReplicaSets;

impl Strategy for ReplicaSets {
    fn set_defaults(&self, object: &mut Value) {
        workload_defaults(object);
    }

    fn prepare_create(&self, object: &mut Value) {
        object["status"] = serde_json::json!({ "replicas": 0 });
    }

    fn validate(&self, object: &Value, errors: &mut Vec<FieldError>) {
        validate_workload(object, errors);
    }

    fn validate_update(&self, new: &Value, old: &Value, errors: &mut Vec<FieldError>) {
        check_selector_fixed(new, old, errors);
    }
}
