//! Strategic merge patch: a merge patch that knows which lists are sets and which are keyed by a field.
//!
//! The rules are kube-apiserver's, order of elements included: `$setElementOrder` lists are worked off
//! first, then every other field is merged by the schema. A patch consists of JSON only, so whatever is left
//! of its directives where there is nothing to merge is dropped, as decoding into typed objects would.

use std::collections::HashSet;

use serde_json::{Map, Value};

use super::{
    PatchError,
    directives::{self, DELETE_FROM, PATCH, RETAIN_KEYS, SET_ORDER},
    index::Index,
    order::{Identity, arrange, no_merge_key, type_of},
    schema::{Field, Schema},
};

type Fields = Map<String, Value>;

pub(super) fn apply(object: &Value, patch: &[u8], schema: &'static Schema) -> Result<Value, PatchError> {
    let bad_json = || PatchError::Malformed("invalid JSON document".into());
    let Ok(Value::Object(patch)) = serde_json::from_slice(patch) else {
        return Err(bad_json());
    };
    let Value::Object(original) = object.clone() else {
        return Err(bad_json());
    };
    merge_object(original, patch, schema).map(Value::Object)
}

fn merge_object(
    mut original: Fields,
    mut patch: Fields,
    schema: &'static Schema,
) -> Result<Fields, PatchError> {
    if let Some(directive) = patch.remove(PATCH) {
        return match directive.as_str() {
            Some("replace") => Ok(replacement(patch)),
            Some("delete") => Ok(Fields::new()),
            _ => Err(bad_patch_type(&directive, &patch)),
        };
    }
    retain_keys(&mut original, &mut patch)?;
    merge_ordered_lists(&mut original, &mut patch, schema)?;
    // Deletions from lists first: the same patch may add to them.
    let (deletions, others): (Vec<_>, Vec<_>) = patch
        .into_iter()
        .partition(|(key, _)| directives::field_of(key, DELETE_FROM).is_some());
    for (key, value) in deletions {
        delete_from_list(&mut original, &key, value)?;
    }
    for (key, value) in others {
        merge_field(&mut original, key, value, schema)?;
    }
    Ok(original)
}

fn merge_field(
    original: &mut Fields,
    key: String,
    patch: Value,
    schema: &'static Schema,
) -> Result<(), PatchError> {
    let merged = match (original.remove(&key), patch) {
        (_, Value::Null) => None,
        (Some(Value::Object(old)), Value::Object(new)) => {
            Some(Value::Object(merge_object(old, new, schema.below(&key))?))
        }
        (Some(Value::Array(old)), Value::Array(new)) => {
            Some(Value::Array(merge_list(old, new, schema.field(&key))?))
        }
        (_, new) => directives::without_directives(new),
    };
    if let Some(merged) = merged {
        original.insert(key, merged);
    }
    Ok(())
}

/// What `$patch: replace` leaves: the patch, its nested directives apart.
fn replacement(patch: Fields) -> Fields {
    let clean = patch
        .into_iter()
        .filter(|(key, _)| !directives::is_directive(key));
    clean
        .filter_map(|(key, value)| Some((key, directives::without_directives(value)?)))
        .collect()
}

/// `$retainKeys` names all fields that stay; the patch may set no others.
fn retain_keys(original: &mut Fields, patch: &mut Fields) -> Result<(), PatchError> {
    let Some(directive) = patch.remove(RETAIN_KEYS) else {
        return Ok(());
    };
    let bad_format = || PatchError::Malformed("invalid patch format of retainKeys".into());
    let Value::Array(retained) = directive else {
        return Err(bad_format());
    };
    let retained: HashSet<&str> = retained.iter().filter_map(Value::as_str).collect();
    let is_retained = |key: &str| retained.contains(key);
    if patch
        .iter()
        .any(|(key, value)| !value.is_null() && !directives::is_directive(key) && !is_retained(key))
    {
        return Err(bad_format());
    }
    original.retain(|key, _| is_retained(key));
    Ok(())
}

/// Works off `$setElementOrder/…` together with the lists that they order.
fn merge_ordered_lists(
    original: &mut Fields,
    patch: &mut Fields,
    schema: &'static Schema,
) -> Result<(), PatchError> {
    let ordering: Vec<String> = patch
        .keys()
        .filter(|key| directives::field_of(key, SET_ORDER).is_some())
        .cloned()
        .collect();
    for directive in ordering {
        let order = patch.remove(&directive);
        let Some(Ok(field)) = directives::field_of(&directive, SET_ORDER) else {
            return Err(bad_order_format());
        };
        let Some(Value::Array(order)) = order else {
            return Err(bad_order_format());
        };
        let live = take_list(original, field)?;
        let patched = take_list(patch, field)?;
        let strategy = schema.field(field);
        let identity = Identity {
            merge_key: match strategy {
                Some(Field::ListBy(key, _)) => Some(key),
                _ => None,
            },
        };
        check_order(patched.as_deref().unwrap_or_default(), &order, identity)?;
        let live_order = live.clone().unwrap_or_default();
        let merged = match (live, patched) {
            (None, None) => continue,
            (Some(live), None) => live,
            (None, Some(patched)) => patched
                .into_iter()
                .filter_map(directives::without_directives)
                .collect(),
            (Some(live), Some(patched)) => merge_list(live, patched, strategy)?,
        };
        // A list that is replaced as a whole is in order already.
        let arranged = match strategy {
            Some(Field::ListBy(..) | Field::Set) => arrange(merged, &order, &live_order, identity)?,
            Some(Field::Object(_)) | None => merged,
        };
        original.insert(field.to_owned(), Value::Array(arranged));
    }
    Ok(())
}

fn take_list(fields: &mut Fields, field: &str) -> Result<Option<Vec<Value>>, PatchError> {
    match fields.remove(field) {
        None => Ok(None),
        Some(Value::Array(list)) => Ok(Some(list)),
        // Its type only: what is stored may be secret, and this text is logged.
        Some(other) => Err(PatchError::Unmergeable(format!(
            "expected a list in field {field}, got {}",
            type_of(&other)
        ))),
    }
}

/// The patch's elements, deletions aside, must be part of the order, and in the same order.
fn check_order(patched: &[Value], order: &[Value], identity: Identity) -> Result<(), PatchError> {
    if patched.is_empty() || order.is_empty() {
        return Ok(());
    }
    let mut kept = patched
        .iter()
        .filter(|element| element.get(PATCH).is_none())
        .peekable();
    for ordered in order {
        let Some(element) = kept.peek() else { break };
        identity.check(std::slice::from_ref(element))?;
        identity.check(std::slice::from_ref(ordered))?;
        if identity.of(element) == identity.of(ordered) {
            kept.next();
        }
    }
    if kept.peek().is_none() {
        return Ok(());
    }
    Err(PatchError::Unmergeable(format!(
        "The order in patch list doesn't match {SET_ORDER} list"
    )))
}

/// `$deleteFromPrimitiveList/field`.
fn delete_from_list(original: &mut Fields, directive: &str, values: Value) -> Result<(), PatchError> {
    let bad_format = || PatchError::Malformed("invalid patch format of primitive list".into());
    let Some(Ok(field)) = directives::field_of(directive, DELETE_FROM) else {
        return Err(bad_format());
    };
    let Value::Array(values) = values else {
        return Err(bad_format());
    };
    if let Some(Value::Array(list)) = original.get_mut(field) {
        let values: HashSet<&Value> = values.iter().collect();
        list.retain(|element| !values.contains(element));
    }
    Ok(())
}

fn merge_list(
    live: Vec<Value>,
    patch: Vec<Value>,
    strategy: Option<Field>,
) -> Result<Vec<Value>, PatchError> {
    match strategy {
        Some(Field::ListBy(key, schema)) => merge_list_by(live, patch, key, schema),
        Some(Field::Set) => merge_set(live, patch),
        Some(Field::Object(_)) | None => Ok(patch
            .into_iter()
            .filter_map(directives::without_directives)
            .collect()),
    }
}

fn merge_set(live: Vec<Value>, patch: Vec<Value>) -> Result<Vec<Value>, PatchError> {
    if live
        .iter()
        .chain(&patch)
        .any(|element| element.is_object() || element.is_array())
    {
        return Err(PatchError::Unmergeable(
            "cannot merge lists without merge key for type map".into(),
        ));
    }
    let mut seen = HashSet::with_capacity(live.len() + patch.len());
    let merged = live
        .iter()
        .chain(&patch)
        .filter(|element| seen.insert(*element))
        .cloned()
        .collect();
    arrange(merged, &patch, &live, Identity { merge_key: None })
}

fn merge_list_by(
    mut live: Vec<Value>,
    patch: Vec<Value>,
    key: &'static str,
    schema: &'static Schema,
) -> Result<Vec<Value>, PatchError> {
    let identity = Identity { merge_key: Some(key) };
    if live.iter().chain(&patch).any(|element| !element.is_object()) {
        return Err(PatchError::Unmergeable(
            "list element types are not identical: expected objects".into(),
        ));
    }
    let (directed, patch): (Vec<_>, Vec<_>) = patch
        .into_iter()
        .partition(|element| element.get(PATCH).is_some());
    let mut replace = false;
    let mut deleted = HashSet::new();
    for element in &directed {
        match element[PATCH].as_str() {
            Some("delete") => {
                let name = identity.of(element).ok_or_else(|| no_merge_key(element, key))?;
                deleted.insert(name);
            }
            Some("replace") => replace = true,
            Some("merge") => {
                return Err(PatchError::Unmergeable(
                    "merging lists cannot yet be specified in the patch".into(),
                ));
            }
            _ => return Err(bad_patch_type(&element[PATCH], element)),
        }
    }
    identity.check(&patch)?;
    if replace {
        return Ok(patch
            .into_iter()
            .filter_map(directives::without_directives)
            .collect());
    }
    live.retain(|element| identity.of(element).is_none_or(|name| !deleted.contains(name)));
    let live_order = live.clone();
    let patch_order = patch.clone();
    let mut index = Index::of(&live_order, identity);
    for (element, given) in patch.into_iter().zip(&patch_order) {
        match (index.position(given), element) {
            (Some(at), Value::Object(element)) => {
                let Value::Object(old) = live[at].take() else {
                    unreachable!("checked above to be an object")
                };
                live[at] = Value::Object(merge_object(old, element, schema)?);
            }
            (_, element) => {
                // The patch may name it again, and then means this one.
                index.add(given, live.len());
                live.extend(directives::without_directives(element));
            }
        }
    }
    arrange(live, &patch_order, &live_order, identity)
}

fn bad_order_format() -> PatchError {
    PatchError::Malformed("invalid patch format of setElementOrder list".into())
}

fn bad_patch_type(directive: &Value, patch: impl serde::Serialize) -> PatchError {
    let patch = serde_json::json!(patch);
    PatchError::Inapplicable(format!("unknown patch type: {directive} in map: {patch}"))
}
