//! JSON patch, RFC 6902, with bounds: a short patch must not build a huge or bottomless object.

use json_patch::{Patch, PatchErrorKind, PatchOperation};
use serde_json::{Map, Value};

use super::{MAX_DEPTH, PatchError, depth};

/// Operations in one patch.
pub const MAX_OPERATIONS: usize = 10_000;
/// What all `copy` operations of one patch may copy together.
const MAX_COPIED_BYTES: usize = 3 << 20;

pub(super) fn apply(object: &Value, patch: &[u8]) -> Result<Value, PatchError> {
    let operations = parse(patch)?;
    let mut patched = object.clone();
    let mut copied_bytes = 0;
    for operation in &operations {
        check_growth(&patched, operation, &mut copied_bytes)?;
        json_patch::patch(&mut patched, std::slice::from_ref(operation)).map_err(|error| {
            PatchError::Inapplicable(match error.kind {
                PatchErrorKind::TestFailed => format!("testing path {:?} failed", error.path.to_string()),
                kind => format!("{:?}: {kind}", error.path.to_string()),
            })
        })?;
    }
    Ok(patched)
}

/// A patch that is an object.
pub(super) fn parse_object(patch: &[u8]) -> Result<Map<String, Value>, PatchError> {
    let malformed = |text: String| PatchError::Malformed(format!("error decoding patch: {text}"));
    match serde_json::from_slice(patch).map_err(|error| malformed(error.to_string()))? {
        Value::Object(fields) => Ok(fields),
        other => Err(malformed(cannot_unmarshal(&other, "map[string]interface {}"))),
    }
}

fn parse(patch: &[u8]) -> Result<Vec<PatchOperation>, PatchError> {
    let parsed: Value =
        serde_json::from_slice(patch).map_err(|error| PatchError::Malformed(error.to_string()))?;
    let Value::Array(operations) = &parsed else {
        return Err(PatchError::Malformed(cannot_unmarshal(
            &parsed,
            "jsonpatch.Patch",
        )));
    };
    if operations.len() > MAX_OPERATIONS {
        return Err(PatchError::TooManyOperations(operations.len()));
    }
    if let Some(other) = operations.iter().find(|operation| !operation.is_object()) {
        return Err(PatchError::Malformed(cannot_unmarshal(
            other,
            "jsonpatch.Operation",
        )));
    }
    let Patch(operations) = serde_json::from_value(parsed)
        .map_err(|error| PatchError::Inapplicable(format!("invalid operation: {error}")))?;
    Ok(operations)
}

/// The words that clients of kube-apiserver know.
fn cannot_unmarshal(value: &Value, target: &str) -> String {
    let found = match value {
        Value::Null => "null",
        Value::Bool(_) => "bool",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    };
    format!("json: cannot unmarshal {found} into Go value of type {target}")
}

fn check_growth(object: &Value, operation: &PatchOperation, copied: &mut usize) -> Result<(), PatchError> {
    let (added, path) = match operation {
        PatchOperation::Add(add) => (Some(&add.value), &add.path),
        PatchOperation::Replace(replace) => (Some(&replace.value), &replace.path),
        PatchOperation::Move(moved) => (moved.from.resolve(object).ok(), &moved.path),
        PatchOperation::Copy(copy) => {
            let source = copy.from.resolve(object).ok();
            *copied += source.map_or(0, |source| source.to_string().len());
            if *copied > MAX_COPIED_BYTES {
                return Err(PatchError::Inapplicable(format!(
                    "the copies of this patch exceed {MAX_COPIED_BYTES} bytes"
                )));
            }
            (source, &copy.path)
        }
        PatchOperation::Remove(_) | PatchOperation::Test(_) => return Ok(()),
    };
    let above = path.tokens().count();
    if above + added.map_or(0, |value| depth(value, MAX_DEPTH + 1)) > MAX_DEPTH {
        return Err(PatchError::Inapplicable(format!(
            "the object would nest more than {MAX_DEPTH} levels deep"
        )));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn patched(object: Value, patch: Value) -> Result<Value, PatchError> {
        apply(&object, patch.to_string().as_bytes())
    }

    #[test]
    fn each_operation() {
        let object = || json!({"a": {"b": [1, 2]}, "c~/d": "x"});
        let cases = [
            (json!([]), object()),
            (
                json!([{"op": "add", "path": "/a/b/-", "value": 3}, {"op": "add", "path": "/a/b/0", "value": 0}]),
                json!({"a": {"b": [0, 1, 2, 3]}, "c~/d": "x"}),
            ),
            (
                json!([{"op": "remove", "path": "/c~0~1d"}]),
                json!({"a": {"b": [1, 2]}}),
            ),
            (
                json!([{"op": "replace", "path": "/a", "value": null}]),
                json!({"a": null, "c~/d": "x"}),
            ),
            (
                json!([{"op": "move", "from": "/a/b", "path": "/b"}]),
                json!({"a": {}, "b": [1, 2], "c~/d": "x"}),
            ),
            (
                json!([{"op": "copy", "from": "/a/b/1", "path": "/n"}]),
                json!({"a": {"b": [1, 2]}, "n": 2, "c~/d": "x"}),
            ),
            (json!([{"op": "test", "path": "/a/b/0", "value": 1}]), object()),
        ];
        for (patch, expected) in cases {
            assert_eq!(patched(object(), patch.clone()), Ok(expected), "{patch}");
        }
    }

    #[test]
    fn what_does_not_apply_is_told_apart_from_what_is_malformed() {
        let inapplicable = [
            json!([{"op": "test", "path": "/a", "value": 2}]),
            json!([{"op": "remove", "path": "/b"}]),
            json!([{"op": "replace", "path": "/b", "value": 1}]),
            json!([{"op": "add", "path": "/b/c", "value": 1}]),
            json!([{"op": "copy", "from": "/b", "path": "/c"}]),
            json!([{"op": "frob", "path": "/a"}]),
            json!([{"op": "add", "path": "/a", "value": 2}, {"op": "remove", "path": "/b"}]),
        ];
        for patch in inapplicable {
            let error = patched(json!({"a": 1}), patch.clone());
            assert!(
                matches!(error, Err(PatchError::Inapplicable(_))),
                "{patch}: {error:?}"
            );
        }
        assert_eq!(
            patched(json!({}), json!({"a": 1})),
            Err(PatchError::Malformed(
                "json: cannot unmarshal object into Go value of type jsonpatch.Patch".into()
            ))
        );
    }

    #[test]
    fn operations_are_counted() {
        let test = json!({"op": "test", "path": "/a", "value": 1});
        let most = Value::from(vec![test.clone(); MAX_OPERATIONS]);
        assert_eq!(patched(json!({"a": 1}), most), Ok(json!({"a": 1})));
        let more = Value::from(vec![test; MAX_OPERATIONS + 1]);
        assert_eq!(
            patched(json!({"a": 1}), more),
            Err(PatchError::TooManyOperations(MAX_OPERATIONS + 1))
        );
    }

    #[test]
    fn copies_are_bounded_in_bytes_and_depth() {
        let object = json!({"a": ["x".repeat(1000)]});
        let doubling = Value::from(vec![json!({"op": "copy", "from": "/a", "path": "/a/-"}); 200]);
        assert!(
            matches!(patched(object.clone(), doubling), Err(PatchError::Inapplicable(text)) if text.contains("bytes"))
        );
        let nesting = Value::from(vec![json!({"op": "copy", "from": "", "path": "/b"}); 200]);
        assert!(
            matches!(patched(json!({}), nesting), Err(PatchError::Inapplicable(text)) if text.contains("deep"))
        );
    }
}
