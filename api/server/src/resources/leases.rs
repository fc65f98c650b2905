//! Leases of coordination.k8s.io: heartbeats of nodes, locks of elected clients.

use barque_machinery::{field_error::FieldError, gvk::GroupVersion, name};
use serde_json::Value;

use crate::resource::{Resource, Strategy};

pub static LEASES: Resource = Resource {
    group_version: GroupVersion::new("coordination.k8s.io", "v1"),
    plural: "leases",
    singular: "lease",
    kind: "Lease",
    short_names: &[],
    categories: &[],
    namespaced: true,
    subresources: &[],
    selectable: &[],
    indexed: &[],
    name_check: name::dns1123_subdomain,
    has_generation: false,
    create_on_update: true,
    expires: false,
    strategy: &Leases,
};

struct Leases;

impl Strategy for Leases {
    /// A lock that is taken without looking is none.
    fn allows_unconditional_update(&self) -> bool {
        false
    }

    fn validate(&self, object: &Value, errors: &mut Vec<FieldError>) {
        let spec = &object["spec"];
        if let Some(seconds) = spec["leaseDurationSeconds"].as_i64().filter(|s| *s <= 0) {
            errors.push(FieldError::invalid(
                "spec.leaseDurationSeconds",
                seconds,
                "must be greater than 0",
            ));
        }
        if let Some(count) = spec["leaseTransitions"].as_i64().filter(|c| *c < 0) {
            let detail = "must be greater than or equal to 0";
            errors.push(FieldError::invalid("spec.leaseTransitions", count, detail));
        }
    }
}
