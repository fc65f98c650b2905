//! `metadata` of an object held as JSON: reading it, and validating what every object has.

use std::collections::HashSet;

use serde_json::{Map, Value, json};
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

use crate::{
    field_error::{FieldError, check_each},
    name,
};

/// A borrowed look at an object's metadata; absent fields read as empty.
#[derive(Clone, Copy)]
pub struct Meta<'a>(&'a Value);

impl<'a> Meta<'a> {
    pub fn of(object: &'a Value) -> Self {
        Self(&object["metadata"])
    }

    pub fn text(&self, field: &str) -> &'a str {
        self.0[field].as_str().unwrap_or_default()
    }

    pub fn name(&self) -> &'a str {
        self.text("name")
    }

    pub fn namespace(&self) -> &'a str {
        self.text("namespace")
    }

    pub fn uid(&self) -> &'a str {
        self.text("uid")
    }

    pub fn resource_version(&self) -> &'a str {
        self.text("resourceVersion")
    }

    pub fn generation(&self) -> i64 {
        self.0["generation"].as_i64().unwrap_or_default()
    }

    pub fn is_deleting(&self) -> bool {
        self.0["deletionTimestamp"].is_string()
    }

    pub fn labels(&self) -> impl Iterator<Item = (&'a str, &'a str)> + use<'a> {
        let labels = self.0["labels"].as_object();
        labels
            .into_iter()
            .flatten()
            .map(|(k, v)| (k.as_str(), v.as_str().unwrap_or_default()))
    }

    pub fn finalizers(&self) -> impl Iterator<Item = &'a str> + use<'a> {
        self.0["finalizers"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(Value::as_str)
    }

    pub fn owners(&self) -> impl Iterator<Item = &'a Value> + use<'a> {
        self.0["ownerReferences"].as_array().into_iter().flatten()
    }
}

/// The metadata to be changed; made when missing. `None` when the object or its metadata is no JSON object.
pub fn metadata_mut(object: &mut Value) -> Option<&mut Map<String, Value>> {
    let entry = object
        .as_object_mut()?
        .entry("metadata")
        .or_insert_with(|| json!({}));
    if entry.is_null() {
        *entry = json!({});
    }
    entry.as_object_mut()
}

/// Sets a field of the metadata; the empty string removes it.
pub fn set_text(object: &mut Value, field: &str, value: &str) {
    let Some(metadata) = metadata_mut(object) else {
        return;
    };
    match value {
        "" => drop(metadata.remove(field)),
        value => drop(metadata.insert(field.into(), value.into())),
    }
}

pub fn set(object: &mut Value, field: &str, value: Value) {
    if let Some(metadata) = metadata_mut(object) {
        metadata.insert(field.into(), value);
    }
}

/// As in `creationTimestamp`: RFC 3339 in whole seconds.
pub fn timestamp(at: OffsetDateTime) -> String {
    let whole = at
        .to_offset(time::UtcOffset::UTC)
        .replace_nanosecond(0)
        .unwrap_or(at);
    whole.format(&Rfc3339).unwrap_or_default()
}

/// Fields that only the server writes: an update keeps the stored ones whatever the client sent.
const SYSTEM_FIELDS: [&str; 6] = [
    "uid",
    "creationTimestamp",
    "deletionTimestamp",
    "deletionGracePeriodSeconds",
    "generation",
    "selfLink",
];

/// Copies what only the server writes from the stored object into the new one.
pub fn keep_system_fields(new: &mut Value, old: &Value) {
    let old = &old["metadata"];
    if let Some(metadata) = metadata_mut(new) {
        for field in SYSTEM_FIELDS {
            match old.get(field) {
                Some(value) => drop(metadata.insert(field.into(), value.clone())),
                None => drop(metadata.remove(field)),
            }
        }
    }
}

/// Checks what every object's metadata must fulfil.
pub fn validate(object: &Value, namespaced: bool, name_check: fn(&str) -> Option<String>) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let meta = Meta::of(object);
    validate_name(meta, name_check, &mut errors);
    if !namespaced && !meta.namespace().is_empty() {
        errors.push(FieldError::forbidden(
            "metadata.namespace",
            "not allowed on this type",
        ));
    }
    if namespaced {
        match meta.namespace() {
            "" => errors.push(FieldError::required("metadata.namespace", "")),
            namespace => {
                if let Some(problem) = name::dns1123_label(namespace) {
                    errors.push(FieldError::invalid("metadata.namespace", namespace, problem));
                }
            }
        }
    }
    validate_labels("metadata.labels", &object["metadata"]["labels"], &mut errors);
    validate_annotations(&object["metadata"]["annotations"], &mut errors);
    validate_owners(meta, &mut errors);
    check_each(meta.finalizers(), &mut errors, |_, finalizer, errors| {
        if let Some(problem) = name::qualified_name(finalizer) {
            errors.push(FieldError::invalid("metadata.finalizers", finalizer, problem));
        }
    });
    errors
}

fn validate_name(meta: Meta<'_>, name_check: fn(&str) -> Option<String>, errors: &mut Vec<FieldError>) {
    match meta.name() {
        "" => errors.push(FieldError::required(
            "metadata.name",
            "name or generateName is required",
        )),
        name => {
            if let Some(problem) = name::path_segment(name).or_else(|| name_check(name)) {
                errors.push(FieldError::invalid("metadata.name", name, problem));
            }
        }
    }
}

/// Checks a map of labels at `field`.
pub fn validate_labels(field: &str, labels: &Value, errors: &mut Vec<FieldError>) {
    let labels = labels.as_object().into_iter().flatten();
    check_each(labels, errors, |_, (key, value), errors| {
        if let Some(problem) = name::qualified_name(key) {
            errors.push(FieldError::invalid(field, key.as_str(), problem));
        }
        let value = value.as_str().unwrap_or_default();
        if let Some(problem) = name::label_value(value) {
            errors.push(FieldError::invalid(field, value, problem));
        }
    });
}

fn validate_annotations(annotations: &Value, errors: &mut Vec<FieldError>) {
    const MAX_BYTES: usize = 256 * 1024;
    let mut total = 0;
    let annotations = annotations.as_object().into_iter().flatten();
    check_each(annotations, errors, |_, (key, value), errors| {
        if let Some(problem) = name::qualified_name(&key.to_lowercase()) {
            errors.push(FieldError::invalid("metadata.annotations", key.as_str(), problem));
        }
        total += key.len() + value.as_str().map_or(0, str::len);
    });
    if total > MAX_BYTES {
        errors.push(FieldError::too_long("metadata.annotations", MAX_BYTES));
    }
}

fn validate_owners(meta: Meta<'_>, errors: &mut Vec<FieldError>) {
    check_each(meta.owners(), errors, |i, owner, errors| {
        for field in ["apiVersion", "kind", "name", "uid"] {
            if owner[field].as_str().unwrap_or_default().is_empty() {
                errors.push(FieldError::invalid(
                    format!("metadata.ownerReferences[{i}].{field}"),
                    "",
                    format!("{field} must not be empty"),
                ));
            }
        }
    });
    let is_controller = |owner: &&Value| owner["controller"] == Value::Bool(true);
    if meta.owners().filter(is_controller).nth(1).is_some() {
        errors.push(FieldError::invalid(
            "metadata.ownerReferences",
            meta.0["ownerReferences"].clone(),
            "Only one reference can have Controller set to true",
        ));
    }
}

/// Checks that an update changes nothing of the metadata that is fixed at creation.
pub fn validate_update(new: &Value, old: &Value) -> Vec<FieldError> {
    let mut errors = Vec::new();
    for field in ["name", "namespace", "uid"] {
        let (now, was) = (Meta::of(new).text(field), Meta::of(old).text(field));
        if now != was {
            errors.push(FieldError::invalid(
                format!("metadata.{field}"),
                now,
                crate::field_error::IMMUTABLE,
            ));
        }
    }
    if Meta::of(old).is_deleting() {
        let old_ones: HashSet<&str> = Meta::of(old).finalizers().collect();
        let added = Meta::of(new).finalizers().filter(|f| !old_ones.contains(f));
        check_each(added, &mut errors, |_, finalizer, errors| {
            errors.push(FieldError::forbidden(
                "metadata.finalizers",
                format!("no new finalizers can be added if the object is being deleted, found new finalizers []string{{{finalizer:?}}}"),
            ));
        });
    }
    errors
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::field_error::MAX_ERRORS;

    #[test]
    fn validates() {
        let check = |metadata: Value, expect: &[&str]| {
            let errors = validate(&json!({ "metadata": metadata }), true, name::dns1123_subdomain);
            let fields: Vec<&str> = errors.iter().map(|e| e.field.as_str()).collect();
            assert_eq!(fields, expect, "{metadata}");
        };
        check(
            json!({"name": "a", "namespace": "b", "labels": {"x": "y"}, "annotations": {"X.io/Y": "z z"}}),
            &[],
        );
        check(json!({"namespace": "b"}), &["metadata.name"]);
        check(
            json!({"name": "A", "namespace": "b.c"}),
            &["metadata.name", "metadata.namespace"],
        );
        check(
            json!({"name": "a", "namespace": "b", "labels": {"x y": "-"}}),
            &["metadata.labels", "metadata.labels"],
        );
        check(
            json!({"name": "a", "namespace": "b", "finalizers": ["!"]}),
            &["metadata.finalizers"],
        );
    }

    #[test]
    fn only_one_owner_controls() {
        let owner = |uid: usize, controller: bool| json!({"apiVersion": "v1", "kind": "K", "name": "n", "uid": uid.to_string(), "controller": controller});
        let check = |owners: Vec<Value>, expect: &[&str]| {
            let object = json!({"metadata": {"name": "a", "namespace": "b", "ownerReferences": owners}});
            let errors = validate(&object, true, name::dns1123_subdomain);
            let fields: Vec<&str> = errors.iter().map(|e| e.field.as_str()).collect();
            assert_eq!(fields, expect, "{object}");
        };
        check(vec![owner(1, false), owner(2, true), owner(3, false)], &[]);
        check(
            vec![owner(1, true), owner(2, true)],
            &["metadata.ownerReferences"],
        );
    }

    #[test]
    fn an_object_being_deleted_gets_no_new_finalizers() {
        const EACH: usize = 200_000;
        let deleting = |finalizers: std::ops::Range<usize>| {
            let finalizers: Vec<String> = finalizers.map(|n| format!("x.io/{n}")).collect();
            json!({"metadata": {"name": "a", "deletionTimestamp": "t", "finalizers": finalizers}})
        };
        let stored = deleting(0..EACH);
        assert_eq!(validate_update(&deleting(1..EACH), &stored), []);
        let errors = validate_update(&deleting(1..EACH + 2), &stored);
        let fields: Vec<&str> = errors.iter().map(|e| e.field.as_str()).collect();
        assert_eq!(fields, ["metadata.finalizers"; 2]);
        assert!(
            errors[0].to_string().contains("[]string{\"x.io/200000\"}"),
            "{}",
            errors[0]
        );
    }

    #[test]
    fn the_problems_of_metadata_are_bounded() {
        const EACH: usize = 100_000;
        let map: Map<String, Value> = (0..EACH).map(|n| (format!("{n}/"), json!("-"))).collect();
        let cases = [
            json!({"labels": map}),
            json!({"annotations": map}),
            json!({"finalizers": vec!["!"; EACH]}),
            json!({"ownerReferences": vec![json!({}); EACH]}),
            json!({"labels": map, "annotations": map, "ownerReferences": vec![json!({}); EACH]}),
        ];
        for metadata in cases {
            let errors = validate(&json!({ "metadata": metadata }), true, name::dns1123_subdomain).len();
            assert!((MAX_ERRORS + 1..MAX_ERRORS + 10).contains(&errors), "{errors}");
        }
    }

    #[test]
    fn the_server_s_fields_stay() {
        let old = json!({"metadata": {"name": "a", "uid": "1", "generation": 3, "creationTimestamp": "t"}});
        let mut new = json!({"metadata": {"name": "a", "uid": "2", "deletionTimestamp": "x", "labels": {}}});
        keep_system_fields(&mut new, &old);
        assert_eq!(
            new["metadata"],
            json!({"name": "a", "uid": "1", "generation": 3, "creationTimestamp": "t", "labels": {}})
        );
    }

    #[test]
    fn timestamps_are_whole_seconds() {
        let at = OffsetDateTime::from_unix_timestamp_nanos(1_800_000_000_123_456_789).unwrap();
        assert_eq!(timestamp(at), "2027-01-15T08:00:00Z");
    }
}
