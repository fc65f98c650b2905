//! Config maps: keys are file names, and an immutable one stays as it is.

use barque_machinery::{
    field_error::{FieldError, IMMUTABLE},
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
            for (key, value) in object[field].as_object().into_iter().flatten() {
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
            }
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
