//! Namespaces: deleted in two steps, emptied in between by the leader.

use barque_machinery::{field_error::FieldError, gvk::GroupVersion, metadata::Meta, name};
use serde_json::{Value, json};

use super::{default, object_at};
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

/// What the cluster cannot do without.
const IMMORTAL: [&str; 3] = ["default", "kube-system", "kube-public"];

const ACTIVE: &str = "Active";
const TERMINATING: &str = "Terminating";

impl Strategy for Namespaces {
    fn set_defaults(&self, object: &mut Value) {
        if let Some(status) = object_at(object, "status") {
            default(status, "phase", ACTIVE);
        }
        let name = Meta::of(object).name().to_owned();
        if let Some(labels) = object.get_mut("metadata").and_then(|m| object_at(m, "labels"))
            && !name.is_empty()
        {
            labels.insert("kubernetes.io/metadata.name".into(), name.into());
        }
    }

    fn prepare_create(&self, object: &mut Value) {
        object["status"] = json!({ "phase": ACTIVE });
        if let Some(spec) = object_at(object, "spec") {
            spec.insert("finalizers".into(), json!([FINALIZER]));
        }
    }

    fn prepare_update(&self, new: &mut Value, old: &Value) {
        // Only the finalize subresource changes these.
        new["spec"] = old["spec"].clone();
    }

    /// What is in a namespace is deleted when the phase says so: only a delete may bring that about.
    fn validate_status_update(&self, new: &Value, errors: &mut Vec<FieldError>) {
        let (phase, why) = if Meta::of(new).is_deleting() {
            (
                TERMINATING,
                "may only be 'Terminating' if `deletionTimestamp` is not empty",
            )
        } else {
            (ACTIVE, "may only be 'Active' if `deletionTimestamp` is empty")
        };
        let given = &new["status"]["phase"];
        if given != phase {
            errors.push(FieldError::invalid("status.phase", given.clone(), why));
        }
    }

    fn holds_deletion(&self, object: &Value) -> bool {
        object["spec"]["finalizers"]
            .as_array()
            .is_some_and(|f| !f.is_empty())
    }

    fn refuses_deletion(&self, name: &str) -> Option<&'static str> {
        IMMORTAL
            .contains(&name)
            .then_some("this namespace may not be deleted")
    }

    /// Each takes everything in it along: they go one by one.
    fn deletes_collections(&self) -> bool {
        false
    }

    fn prepare_deletion(&self, object: &mut Value) {
        object["status"]["phase"] = TERMINATING.into();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_phase_says_whether_the_namespace_is_being_deleted() {
        let check = |deleted: Value, phase: Value, good: bool| {
            let mut namespace = json!({"metadata": {"name": "a"}, "status": {"phase": phase}});
            if deleted.is_string() {
                namespace["metadata"]["deletionTimestamp"] = deleted;
            }
            Namespaces.set_defaults(&mut namespace);
            let mut errors = Vec::new();
            Namespaces.validate_status_update(&namespace, &mut errors);
            assert_eq!(errors.is_empty(), good, "{namespace}: {errors:?}");
        };
        let at = || json!("2027-01-15T08:00:00Z");
        check(Value::Null, json!(ACTIVE), true);
        check(Value::Null, Value::Null, true);
        check(Value::Null, json!(TERMINATING), false);
        check(Value::Null, json!("Other"), false);
        check(at(), json!(TERMINATING), true);
        check(at(), json!(ACTIVE), false);
        check(at(), Value::Null, false);
    }
}
