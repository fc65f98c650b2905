//! What a strategic merge patch says about itself, in fields that start with `$`.

use serde_json::{Map, Value};

pub(super) const PATCH: &str = "$patch";
pub(super) const RETAIN_KEYS: &str = "$retainKeys";
pub(super) const SET_ORDER: &str = "$setElementOrder";
pub(super) const DELETE_FROM: &str = "$deleteFromPrimitiveList";

/// The field that `$directive/field` speaks of; `None` when `key` is no such directive, an error when the
/// field is missing.
pub(super) fn field_of<'k>(key: &'k str, directive: &str) -> Option<Result<&'k str, ()>> {
    let rest = key.strip_prefix(directive)?;
    Some(rest.strip_prefix('/').filter(|field| !field.is_empty()).ok_or(()))
}

pub(super) fn is_directive(key: &str) -> bool {
    key == PATCH
        || key == RETAIN_KEYS
        || [SET_ORDER, DELETE_FROM]
            .iter()
            .any(|d| field_of(key, d).is_some())
}

/// What of a patch becomes part of the object where the object has nothing to merge it with: no nulls, no
/// directives, and no elements that are nothing but a directive. `None`: nothing.
pub(super) fn without_directives(value: Value) -> Option<Value> {
    match value {
        Value::Object(fields) if fields.contains_key(PATCH) => None,
        Value::Object(fields) => {
            let kept = fields
                .into_iter()
                .filter(|(key, value)| !is_directive(key) && !value.is_null());
            let clean: Map<String, Value> = kept
                .filter_map(|(key, value)| Some((key, without_directives(value)?)))
                .collect();
            Some(Value::Object(clean))
        }
        Value::Array(items) => Some(items.into_iter().filter_map(without_directives).collect()),
        scalar => Some(scalar),
    }
}
