//! Secrets: `stringData` is merged into `data`, the type is fixed, some types demand keys.

use barque_machinery::{
    field_error::{FieldError, IMMUTABLE, check_each},
    gvk::GroupVersion,
    name,
};
use base64::{Engine, engine::general_purpose::STANDARD};
use serde_json::Value;

use super::{
    configmaps::{MAX_DATA_BYTES, check_immutable, check_key},
    default, object_at, text,
};
use crate::{
    registry,
    resource::{Resource, Strategy},
};

pub static SECRETS: Resource = Resource {
    group_version: GroupVersion::new("", "v1"),
    plural: "secrets",
    singular: "secret",
    kind: "Secret",
    short_names: &[],
    categories: &[],
    namespaced: true,
    subresources: &[],
    selectable: &["type"],
    indexed: &["type"],
    name_check: name::dns1123_subdomain,
    has_generation: false,
    create_on_update: false,
    expires: false,
    strategy: &Secrets,
};

struct Secrets;

impl Strategy for Secrets {
    fn set_defaults(&self, object: &mut Value) {
        if let Some(strings) = object.get("stringData").and_then(Value::as_object).cloned()
            && let Some(data) = object_at(object, "data")
        {
            for (key, value) in strings {
                data.insert(key, STANDARD.encode(value.as_str().unwrap_or_default()).into());
            }
        }
        registry::remove(object, "stringData");
        if let Some(fields) = object.as_object_mut() {
            default(fields, "type", "Opaque");
        }
    }

    fn prepare_update(&self, new: &mut Value, old: &Value) {
        if text(new, "type").is_empty() {
            new["type"] = old["type"].clone();
        }
    }

    fn validate(&self, object: &Value, errors: &mut Vec<FieldError>) {
        let mut total = 0;
        let entries = object["data"].as_object().into_iter().flatten();
        check_each(entries, errors, |_, (key, value), errors| {
            check_key("data", key, errors);
            match STANDARD.decode(value.as_str().unwrap_or_default()) {
                Ok(bytes) => total += bytes.len(),
                Err(e) => errors.push(FieldError::invalid(
                    format!("data[{key}]"),
                    value.clone(),
                    e.to_string(),
                )),
            }
        });
        if total > MAX_DATA_BYTES {
            errors.push(FieldError::too_long("data", MAX_DATA_BYTES));
        }
        for key in required_keys(text(object, "type")) {
            if object["data"].get(*key).is_none() {
                errors.push(FieldError::required(format!("data[{key}]"), ""));
            }
        }
    }

    fn validate_update(&self, new: &Value, old: &Value, errors: &mut Vec<FieldError>) {
        if new["type"] != old["type"] {
            errors.push(FieldError::invalid("type", new["type"].clone(), IMMUTABLE));
        }
        check_immutable(new, old, &["data"], errors);
    }
}

fn required_keys(secret_type: &str) -> &'static [&'static str] {
    match secret_type {
        "kubernetes.io/tls" => &["tls.crt", "tls.key"],
        "kubernetes.io/dockerconfigjson" => &[".dockerconfigjson"],
        "kubernetes.io/dockercfg" => &[".dockercfg"],
        "kubernetes.io/ssh-auth" => &["ssh-privatekey"],
        _ => &[],
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn string_data_becomes_data() {
        let mut secret = json!({"stringData": {"a": "x"}, "data": {"b": "eQ=="}});
        Secrets.set_defaults(&mut secret);
        assert_eq!(
            secret,
            json!({"type": "Opaque", "data": {"a": "eA==", "b": "eQ=="}})
        );
    }

    #[test]
    fn demands() {
        let check = |secret: Value, fields: &[&str]| {
            let mut errors = Vec::new();
            Secrets.validate(&secret, &mut errors);
            assert_eq!(
                errors.iter().map(|e| e.field.as_str()).collect::<Vec<_>>(),
                fields
            );
        };
        check(
            json!({"type": "kubernetes.io/tls", "data": {"tls.crt": ""}}),
            &["data[tls.key]"],
        );
        check(
            json!({"type": "Opaque", "data": {"a b": "!"}}),
            &["data[a b]", "data[a b]"],
        );
    }

    #[test]
    fn problems_are_bounded() {
        let data: serde_json::Map<String, Value> =
            (0..100_000).map(|n| (format!("{n} "), json!("!"))).collect();
        let mut errors = Vec::new();
        Secrets.validate(&json!({ "data": data }), &mut errors);
        assert!((101..110).contains(&errors.len()), "{}", errors.len());
    }
}
