//! The order of a merged list: the patch's elements as the patch has them, the others where the object had
//! them, as near as both allow.

use serde_json::Value;

use super::{PatchError, index::Index};

/// How elements of a list are told apart: by a field, or (primitives) by themselves.
#[derive(Debug, Clone, Copy)]
pub(super) struct Identity {
    pub merge_key: Option<&'static str>,
}

impl Identity {
    pub fn of<'v>(&self, element: &'v Value) -> Option<&'v Value> {
        match self.merge_key {
            Some(key) => element.get(key),
            None => Some(element),
        }
    }

    /// Every element must be one that can be told apart.
    pub fn check(&self, list: &[Value]) -> Result<(), PatchError> {
        let Some(key) = self.merge_key else { return Ok(()) };
        match list.iter().find(|element| element.get(key).is_none()) {
            None => Ok(()),
            Some(element) => Err(no_merge_key(element, key)),
        }
    }
}

pub(super) fn no_merge_key(element: &Value, key: &str) -> PatchError {
    let found = type_of(element);
    PatchError::Unmergeable(format!(
        "{found} in a list does not contain declared merge key: {key}"
    ))
}

/// What errors say of a value, which may be secret itself.
pub(super) fn type_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}

/// Arranges `merged`: elements named by `patch_order` follow it, the rest follow `live_order`; both are
/// interleaved so that an element of the rest precedes the first of the others that it preceded live.
pub(super) fn arrange(
    merged: Vec<Value>,
    patch_order: &[Value],
    live_order: &[Value],
    identity: Identity,
) -> Result<Vec<Value>, PatchError> {
    for list in [&merged[..], patch_order, live_order] {
        identity.check(list)?;
    }
    let (patch_index, live_index) = (Index::of(patch_order, identity), Index::of(live_order, identity));
    let live_place = |element: &Value| live_index.position(element).unwrap_or(usize::MAX);
    let (mut patched, mut others): (Vec<_>, Vec<_>) = merged
        .into_iter()
        .partition(|element| patch_index.position(element).is_some());
    patched.sort_by_cached_key(|element| patch_index.position(element));
    others.sort_by_cached_key(live_place);

    let mut arranged = Vec::with_capacity(patched.len() + others.len());
    let mut others = others.into_iter().peekable();
    for element in patched {
        if let Some(place) = live_index.position(&element) {
            while let Some(other) = others.next_if(|other| live_place(other) < place) {
                arranged.push(other);
            }
        }
        arranged.push(element);
    }
    arranged.extend(others);
    Ok(arranged)
}
