//! Config maps: keys are file names, and an immutable one stays as it is.

use barque_machinery::{
    field_error::{FieldError, IMMUTABLE, check_each},
    gvk::GroupVersion,
    name,
};
use serde_json::Value;

use crate::resource::{Resource, Strategy};

pub static CONFIGMAPS: Resource = Resource {
    group_version: GroupVersion::new("", "v1"),
    plural: "configmaps",
    singular: "configmap",
    kind: "ConfigMap",
    short_names: &["cm"],
    categories: &[],
    namespaced: true,
    subresources: &[],
    selectable: &[],
    indexed: &[],
    name_check: name::dns1123_subdomain,
    has_generation: false,
    create_on_update: false,
    expires: false,
    strategy: &ConfigMaps,
};

struct ConfigMaps;

impl Strategy for ConfigMaps {
    fn validate(&self, object: &Value, errors: &mut Vec<FieldError>) {
        let mut total = 0;
        for field in ["data", "binaryData"] {
            let entries = object[field].as_object().into_iter().flatten();
            check_each(entries, errors, |_, (key, value), errors| {
                check_key(field, key, errors);
                total += value.as_str().map_or(0, str::len);
                if field == "binaryData" && !object["data"][key].is_null() {
                    let detail = format!("duplicate of key present in data: {key:?}");
                    errors.push(FieldError::invalid(
                        format!("{field}[{key}]"),
                        key.as_str(),
                        detail,
                    ));
                }
            });
        }
        if total > MAX_DATA_BYTES {
            errors.push(FieldError::too_long("", MAX_DATA_BYTES));
        }
    }

    fn validate_update(&self, new: &Value, old: &Value, errors: &mut Vec<FieldError>) {
        check_immutable(new, old, &["data", "binaryData"], errors);
    }
}

/// All the values of a config map or a secret together.
pub const MAX_DATA_BYTES: usize = 1024 * 1024;

pub fn check_key(field: &str, key: &str, errors: &mut Vec<FieldError>) {
    if let Some(problem) = name::config_key(key) {
        errors.push(FieldError::invalid(format!("{field}[{key}]"), key, problem));
    }
}

/// Once `immutable` is set, neither it nor the data can be changed.
pub fn check_immutable(new: &Value, old: &Value, fields: &[&str], errors: &mut Vec<FieldError>) {
    if old["immutable"] != Value::Bool(true) {
        return;
    }
    let why = format!("{IMMUTABLE} when `immutable` is set");
    if new["immutable"] != Value::Bool(true) {
        errors.push(FieldError::forbidden("immutable", why.clone()));
    }
    for field in fields.iter().filter(|f| new.get(**f) != old.get(**f)) {
        errors.push(FieldError::forbidden(*field, why.clone()));
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Map, json};

    use super::*;

    fn problems(object: Value) -> Vec<String> {
        let mut errors = Vec::new();
        ConfigMaps.validate(&object, &mut errors);
        errors.into_iter().map(|e| e.field).collect()
    }

    #[test]
    fn keys_are_file_names_and_occur_once() {
        let object = json!({"data": {"a": "1", "b c": "2"}, "binaryData": {"a": "eA==", "d": "eA=="}});
        assert_eq!(problems(object), ["data[b c]", "binaryData[a]"]);
        let large = json!({"data": {"a": "x".repeat(MAX_DATA_BYTES)}, "binaryData": {"b": "eA=="}});
        assert_eq!(problems(large), [""]);
    }

    #[test]
    fn problems_are_bounded() {
        let data: Map<String, Value> = (0..100_000).map(|n| (format!("{n} "), json!(""))).collect();
        let found = problems(json!({"data": data, "binaryData": data})).len();
        assert!((101..110).contains(&found), "{found}");
    }
}
