//! How an object's next version is made from the stored one and what a client sent: who may change which part,
//! validation, generation, and when a deleted object finally goes.

use barque_machinery::{
    field_error::FieldError,
    metadata::{self, Meta},
    status::Status,
};
use serde_json::Value;

use crate::{
    registry::{self, Change, Place, Stored},
    resource::{Resource, Subresource},
};

/// The part of an object that a request may change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// Everything but the status, where that is a subresource.
    Main,
    Status,
}

/// What becomes of `stored` when a client wants it to be `new`.
pub fn decide(place: &Place, stored: &Stored, mut new: Value, part: Part) -> Result<Change, Status> {
    let resource = place.resource;
    check_identity(place, &new)?;
    registry::place_in_namespace(&mut new, &place.namespace)?;
    check_uid(place, &new, stored)?;
    registry::check_version(place, &new, stored)?;
    let old = &stored.object;
    metadata::keep_system_fields(&mut new, old);
    let mut new = match part {
        Part::Main => main_part(resource, new, old),
        Part::Status => status_part(new, old),
    };
    resource.strategy.set_defaults(&mut new);
    if part == Part::Main {
        resource.strategy.prepare_update(&mut new, old);
    }
    let mut errors = metadata::validate(&new, resource.namespaced, resource.name_check);
    errors.extend(metadata::validate_update(&new, old));
    resource.strategy.validate(&new, &mut errors);
    match part {
        Part::Main => resource.strategy.validate_update(&new, old, &mut errors),
        Part::Status => resource.strategy.validate_status_update(&new, &mut errors),
    }
    if !errors.is_empty() {
        return Err(Status::invalid(&resource.group_kind(), &place.name, &errors));
    }
    bump_generation(resource, &mut new, old);
    Ok(if is_gone(resource, &new) {
        Change::Delete
    } else {
        Change::Put(new)
    })
}

/// Whether a deleted object has nothing left to wait for.
pub fn is_gone(resource: &Resource, object: &Value) -> bool {
    let meta = Meta::of(object);
    let grace = object["metadata"]["deletionGracePeriodSeconds"]
        .as_i64()
        .unwrap_or(0);
    meta.is_deleting()
        && grace == 0
        && meta.finalizers().next().is_none()
        && !resource.strategy.holds_deletion(object)
}

fn check_identity(place: &Place, new: &Value) -> Result<(), Status> {
    let name = Meta::of(new).name();
    if name == place.name {
        return Ok(());
    }
    Err(match name {
        "" => {
            let errors = [FieldError::required("metadata.name", "name is required")];
            Status::invalid(&place.resource.group_kind(), &place.name, &errors)
        }
        name => Status::bad_request(format!(
            "the name of the object ({name}) does not match the name on the URL ({})",
            place.name
        )),
    })
}

/// Refuses a write that is meant for another object of the same name.
pub fn check_uid(place: &Place, new: &Value, stored: &Stored) -> Result<(), Status> {
    compare_uid(place, new, Meta::of(&stored.object).uid())
}

/// Refuses to create what is meant to change an object that is gone.
pub fn check_uid_of_none(place: &Place, new: &Value) -> Result<(), Status> {
    compare_uid(place, new, "")
}

fn compare_uid(place: &Place, new: &Value, is: &str) -> Result<(), Status> {
    let asked = Meta::of(new).uid();
    if asked.is_empty() || asked == is {
        return Ok(());
    }
    Err(place.conflict(&format!(
        "Precondition failed: UID in precondition: {asked}, UID in object meta: {is}"
    )))
}

fn main_part(resource: &Resource, mut new: Value, old: &Value) -> Value {
    if resource.has(Subresource::Status) {
        match old.get("status") {
            Some(status) => new["status"] = status.clone(),
            None => registry::remove(&mut new, "status"),
        }
    }
    new
}

/// The stored object with the new status; labels and annotations may come along, nothing else of metadata.
fn status_part(new: Value, old: &Value) -> Value {
    let mut merged = old.clone();
    match new.get("status") {
        Some(status) => merged["status"] = status.clone(),
        None => registry::remove(&mut merged, "status"),
    }
    for field in ["labels", "annotations"] {
        match new["metadata"].get(field) {
            Some(value) => metadata::set(&mut merged, field, value.clone()),
            None => metadata::set_text(&mut merged, field, ""),
        }
    }
    merged
}

fn bump_generation(resource: &Resource, new: &mut Value, old: &Value) {
    if !resource.has_generation {
        return;
    }
    let same = ["spec", "data", "webhooks"]
        .iter()
        .all(|part| new.get(part) == old.get(part));
    let generation = Meta::of(old).generation() + i64::from(!same);
    metadata::set(new, "generation", generation.into());
}

#[cfg(test)]
mod tests {
    use barque_store::{KeyValue, Revision};
    use serde_json::json;

    use super::*;
    use crate::resources;

    fn deployment(replicas: i64) -> Value {
        json!({
            "apiVersion": "apps/v1", "kind": "Deployment",
            "metadata": {"name": "a", "namespace": "b", "uid": "u", "generation": 2, "resourceVersion": "7"},
            "spec": {
                "replicas": replicas, "selector": {"matchLabels": {"x": "y"}},
                "template": {
                    "metadata": {"labels": {"x": "y"}},
                    "spec": {"containers": [{"name": "c", "image": "i"}]},
                },
            },
            "status": {"readyReplicas": 1},
        })
    }

    fn decide_on(new: Value, part: Part) -> Result<Value, Status> {
        let resource = resources::find("apps", "v1", "deployments").unwrap();
        let mut object = deployment(1);
        resource.strategy.set_defaults(&mut object);
        let kv = KeyValue {
            mod_revision: Revision(7),
            ..Default::default()
        };
        let place = Place {
            resource,
            namespace: "b".into(),
            name: "a".into(),
        };
        match decide(&place, &Stored { object, kv }, new, part)? {
            Change::Put(object) => Ok(object),
            Change::Delete | Change::Nothing => panic!("not a put"),
        }
    }

    #[test]
    fn spec_and_status_are_changed_apart() {
        let mut new = deployment(3);
        new["status"] = json!({"readyReplicas": 9});
        let put = decide_on(new.clone(), Part::Main).unwrap();
        assert_eq!(
            (&put["spec"]["replicas"], &put["status"]["readyReplicas"]),
            (&json!(3), &json!(1))
        );
        assert_eq!(put["metadata"]["generation"], 3);
        let put = decide_on(new, Part::Status).unwrap();
        assert_eq!(
            (&put["spec"]["replicas"], &put["status"]["readyReplicas"]),
            (&json!(1), &json!(9))
        );
        assert_eq!(put["metadata"]["generation"], 2);
    }

    #[test]
    fn what_an_update_may_not_do() {
        let check = |field: &str, value: Value, code: u16, text: &str| {
            let mut new = deployment(1);
            *new.pointer_mut(field).unwrap() = value;
            let status = decide_on(new, Part::Main).unwrap_err();
            assert_eq!(status.code, code, "{status}");
            assert!(status.message.contains(text), "{status}");
        };
        check(
            "/metadata/resourceVersion",
            json!("6"),
            409,
            "the object has been modified",
        );
        check(
            "/metadata/uid",
            json!("v"),
            409,
            "UID in precondition: v, UID in object meta: u",
        );
        check(
            "/metadata/name",
            json!("z"),
            400,
            "does not match the name on the URL (a)",
        );
        check(
            "/metadata/namespace",
            json!("z"),
            400,
            "does not match the namespace",
        );
        check(
            "/spec/selector/matchLabels/x",
            json!("z"),
            422,
            "field is immutable",
        );
        check(
            "/spec/replicas",
            json!(-1),
            422,
            "must be greater than or equal to 0",
        );
    }
}
