//! Reading an object for its cells: by JSON pointer, forgiving about what is not there.

use serde_json::Value;
use time::OffsetDateTime;

use super::duration;

pub(super) const NONE: &str = "<none>";

pub(super) fn str_at<'v>(object: &'v Value, pointer: &str) -> &'v str {
    object.pointer(pointer).and_then(Value::as_str).unwrap_or("")
}

pub(super) fn int_at(object: &Value, pointer: &str) -> i64 {
    object.pointer(pointer).and_then(Value::as_i64).unwrap_or(0)
}

pub(super) fn list_at<'v>(object: &'v Value, pointer: &str) -> &'v [Value] {
    object
        .pointer(pointer)
        .and_then(Value::as_array)
        .map_or(&[], Vec::as_slice)
}

/// The element of a list whose `type` is this.
pub(super) fn of_type<'v>(list: &'v [Value], wanted: &str) -> Option<&'v Value> {
    list.iter().find(|element| element["type"] == wanted)
}

pub(super) fn text(object: &Value, pointer: &str) -> Value {
    str_at(object, pointer).into()
}

pub(super) fn or(text: &str, otherwise: &str) -> String {
    if text.is_empty() {
        otherwise.into()
    } else {
        text.into()
    }
}

/// Entries of an object.
pub(super) fn count(object: &Value, pointer: &str) -> usize {
    object
        .pointer(pointer)
        .and_then(Value::as_object)
        .map_or(0, |entries| entries.len())
}

/// Since the object was created.
pub(super) fn age(object: &Value, now: OffsetDateTime) -> Value {
    age_of(object, "/metadata/creationTimestamp", now).into()
}

pub(super) fn age_of(object: &Value, pointer: &str, now: OffsetDateTime) -> String {
    duration::since(object.pointer(pointer).and_then(Value::as_str), now)
}

/// `k=v,…` in key order; empty when there is nothing.
pub(super) fn equalities(labels: Option<&Value>) -> String {
    let Some(labels) = labels.and_then(Value::as_object) else {
        return String::new();
    };
    let mut pairs: Vec<String> = labels
        .iter()
        .map(|(key, value)| format!("{key}={}", value.as_str().unwrap_or("")))
        .collect();
    pairs.sort_unstable();
    pairs.join(",")
}

/// A field of each element, joined by commas.
pub(super) fn joined(list: &[Value], field: &str) -> String {
    let all: Vec<&str> = list
        .iter()
        .map(|element| element[field].as_str().unwrap_or(""))
        .collect();
    all.join(",")
}
