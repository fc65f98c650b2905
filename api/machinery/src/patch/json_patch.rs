//! JSON patch, RFC 6902, with bounds: a short patch must not build a huge or bottomless object, nor take
//! minutes.

use json_patch::{
    Patch, PatchErrorKind, PatchOperation,
    jsonptr::{Pointer, index::Index},
};
use serde_json::{Map, Value};

use super::{MAX_DEPTH, PatchError, depth};

/// Operations in one patch.
pub const MAX_OPERATIONS: usize = 10_000;
/// What all `copy` operations of one patch may copy together.
const MAX_COPIED_BYTES: usize = 3 << 20;
/// Values that all operations of one patch may look at or shift together. What sits behind an element that
/// is inserted or removed is shifted; what is moved is looked at, to know how deep it nests. No useful patch
/// comes near: this is a fraction of a second.
const MAX_STEPS: usize = 64 << 20;

pub(super) fn apply(object: &Value, patch: &[u8]) -> Result<Value, PatchError> {
    let operations = parse(patch)?;
    let mut patched = object.clone();
    let mut costs = Costs::default();
    for operation in &operations {
        costs.charge(&patched, operation)?;
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

/// What the operations so far have taken. Each is a few bytes in the patch, whatever it moves.
#[derive(Default)]
struct Costs {
    copied_bytes: usize,
    steps: usize,
}

impl Costs {
    /// Adds what `operation` will take; refuses it when that is too much.
    fn charge(&mut self, object: &Value, operation: &PatchOperation) -> Result<(), PatchError> {
        match operation {
            PatchOperation::Add(add) => {
                self.charge_shift(object, &add.path);
                self.charge_nesting(&add.path, &add.value)?;
            }
            PatchOperation::Replace(replace) => self.charge_nesting(&replace.path, &replace.value)?,
            PatchOperation::Remove(remove) => self.charge_shift(object, &remove.path),
            PatchOperation::Move(moved) => {
                self.charge_shift(object, &moved.from);
                self.charge_shift(object, &moved.path);
                if let Ok(source) = moved.from.resolve(object) {
                    self.charge_nesting(&moved.path, source)?;
                }
            }
            PatchOperation::Copy(copy) => {
                self.charge_shift(object, &copy.path);
                if let Ok(source) = copy.from.resolve(object) {
                    self.charge_copy(source)?;
                    self.charge_nesting(&copy.path, source)?;
                }
            }
            // Compared no further than the patch itself goes.
            PatchOperation::Test(_) => {}
        }
        if self.steps > MAX_STEPS {
            return Err(PatchError::Inapplicable(format!(
                "the operations of this patch move more than {MAX_STEPS} values"
            )));
        }
        Ok(())
    }

    /// What is inserted or removed at `path` of a list shifts everything behind.
    fn charge_shift(&mut self, object: &Value, path: &Pointer) {
        let Some((parent, last)) = path.split_back() else {
            return;
        };
        if let Ok(Value::Array(list)) = parent.resolve(object)
            && let Ok(Index::Num(at)) = last.to_index()
        {
            self.steps += list.len().saturating_sub(at);
        }
    }

    fn charge_copy(&mut self, source: &Value) -> Result<(), PatchError> {
        self.copied_bytes += source.to_string().len();
        if self.copied_bytes > MAX_COPIED_BYTES {
            return Err(PatchError::Inapplicable(format!(
                "the copies of this patch exceed {MAX_COPIED_BYTES} bytes"
            )));
        }
        Ok(())
    }

    fn charge_nesting(&mut self, path: &Pointer, added: &Value) -> Result<(), PatchError> {
        let above = path.tokens().count();
        if above + depth(added, MAX_DEPTH + 1, &mut self.steps) > MAX_DEPTH {
            return Err(PatchError::Inapplicable(format!(
                "the object would nest more than {MAX_DEPTH} levels deep"
            )));
        }
        Ok(())
    }
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

    #[test]
    fn what_operations_shift_and_move_is_bounded() {
        let object = || json!({"list": vec![0; 100_000], "tree": {"big": vec![1; 100_000]}});
        let times = |n: usize, operations: &[Value]| Value::from(vec![operations; n].concat());
        let add = json!({"op": "add", "path": "/list/0", "value": 2});
        let append = json!({"op": "add", "path": "/list/-", "value": 2});
        let remove = json!({"op": "remove", "path": "/list/0"});
        let there = json!({"op": "move", "from": "/tree", "path": "/other"});
        let back = json!({"op": "move", "from": "/other", "path": "/tree"});

        let at_most = patched(object(), times(MAX_OPERATIONS, std::slice::from_ref(&append)));
        assert_eq!(
            at_most.map(|o| o["list"].as_array().map(Vec::len)),
            Ok(Some(110_000))
        );
        let fewer = times(100, &[add.clone(), remove.clone(), there.clone(), back.clone()]);
        assert_eq!(patched(object(), fewer), Ok(object()));
        for operations in [vec![add.clone()], vec![add, remove], vec![there, back]] {
            let too_much = times(MAX_OPERATIONS / operations.len(), &operations);
            assert!(
                matches!(patched(object(), too_much), Err(PatchError::Inapplicable(text)) if text.contains("values")),
                "{operations:?}"
            );
        }
    }
}
