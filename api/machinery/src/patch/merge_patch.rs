//! JSON merge patch, RFC 7396: objects merge, null deletes, everything else replaces.

use serde_json::Value;

use super::PatchError;

pub(super) fn apply(object: &Value, patch: &[u8]) -> Result<Value, PatchError> {
    let patch = super::json_patch::parse_object(patch)?;
    let mut patched = object.clone();
    json_patch::merge(&mut patched, &Value::Object(patch));
    Ok(patched)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Map, json};

    use super::*;

    #[test]
    fn the_cases_of_the_rfc() {
        // RFC 7396, appendix A, those whose patch is an object.
        let cases = [
            (json!({"a": "b"}), json!({"a": "c"}), json!({"a": "c"})),
            (json!({"a": "b"}), json!({"b": "c"}), json!({"a": "b", "b": "c"})),
            (json!({"a": "b"}), json!({"a": null}), json!({})),
            (json!({"a": "b", "b": "c"}), json!({"a": null}), json!({"b": "c"})),
            (json!({"a": ["b"]}), json!({"a": "c"}), json!({"a": "c"})),
            (json!({"a": "c"}), json!({"a": ["b"]}), json!({"a": ["b"]})),
            (
                json!({"a": {"b": "c"}}),
                json!({"a": {"b": "d", "c": null}}),
                json!({"a": {"b": "d"}}),
            ),
            (json!({"a": [{"b": "c"}]}), json!({"a": [1]}), json!({"a": [1]})),
            (json!({"e": null}), json!({"a": 1}), json!({"e": null, "a": 1})),
            (
                json!({}),
                json!({"a": {"bb": {"ccc": null}}}),
                json!({"a": {"bb": {}}}),
            ),
        ];
        for (object, patch, expected) in cases {
            assert_eq!(
                apply(&object, patch.to_string().as_bytes()),
                Ok(expected),
                "{object} + {patch}"
            );
        }
    }

    #[test]
    fn a_patch_is_an_object() {
        for (patch, text) in [
            (
                "[]",
                "error decoding patch: json: cannot unmarshal array into Go value of type map[string]interface {}",
            ),
            (
                "{",
                "error decoding patch: EOF while parsing an object at line 1 column 1",
            ),
        ] {
            assert_eq!(
                apply(&json!({}), patch.as_bytes()),
                Err(PatchError::Malformed(text.into()))
            );
        }
    }

    fn object() -> impl Strategy<Value = Value> {
        let scalar = prop_oneof![
            any::<bool>().prop_map(Value::from),
            (0..5i64).prop_map(Value::from)
        ];
        let value = scalar.prop_recursive(3, 24, 4, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..3).prop_map(Value::from),
                prop::collection::btree_map("[a-d]", inner, 0..4).prop_map(|fields| json!(fields)),
            ]
        });
        prop::collection::btree_map("[a-d]", value, 0..4).prop_map(|fields| json!(fields))
    }

    /// What has to be merged into `from` to get `to`.
    fn diff(from: &Map<String, Value>, to: &Map<String, Value>) -> Value {
        let mut patch = Map::new();
        for key in from.keys().filter(|key| !to.contains_key(*key)) {
            patch.insert(key.clone(), Value::Null);
        }
        for (key, value) in to {
            match (from.get(key), value) {
                (Some(old), new) if old == new => {}
                (Some(Value::Object(old)), Value::Object(new)) => {
                    drop(patch.insert(key.clone(), diff(old, new)))
                }
                (_, new) => drop(patch.insert(key.clone(), new.clone())),
            }
        }
        Value::Object(patch)
    }

    proptest! {
        #[test]
        fn an_applied_diff_gives_the_other_object(from in object(), to in object()) {
            let patch = diff(from.as_object().expect("an object"), to.as_object().expect("an object"));
            prop_assert_eq!(apply(&from, patch.to_string().as_bytes()), Ok(to));
        }

        #[test]
        fn an_empty_patch_changes_nothing(object in object()) {
            prop_assert_eq!(apply(&object, b"{}"), Ok(object));
        }
    }
}
