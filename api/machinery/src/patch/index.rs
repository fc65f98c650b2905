//! Where the elements of a list are, by what tells them apart.
//!
//! A request has room for lists of a hundred thousand elements: whatever looks for one element after the
//! other must not search the list each time.

use std::collections::{HashMap, hash_map::Entry};

use serde_json::Value;

use super::order::Identity;

/// Positions by identity. Of elements with the same identity the first is found.
pub(super) struct Index<'v> {
    identity: Identity,
    positions: HashMap<&'v Value, usize>,
}

impl<'v> Index<'v> {
    pub fn of(list: &'v [Value], identity: Identity) -> Self {
        let mut index = Self {
            identity,
            positions: HashMap::with_capacity(list.len()),
        };
        for (at, element) in list.iter().enumerate() {
            index.add(element, at);
        }
        index
    }

    /// Notes that `element` is at `at`, unless one with the same identity is somewhere already.
    pub fn add(&mut self, element: &'v Value, at: usize) {
        if let Some(identity) = self.identity.of(element)
            && let Entry::Vacant(place) = self.positions.entry(identity)
        {
            place.insert(at);
        }
    }

    pub fn position(&self, element: &Value) -> Option<usize> {
        self.positions.get(self.identity.of(element)?).copied()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn position(list: Value, merge_key: Option<&'static str>, element: Value) -> Option<usize> {
        let list = list.as_array().expect("a list");
        Index::of(list, Identity { merge_key }).position(&element)
    }

    #[test]
    fn the_first_of_the_same_is_found() {
        let list = || json!([{"name": "a"}, {"name": "b", "x": 1}, {"name": "b"}]);
        assert_eq!(position(list(), Some("name"), json!({"name": "b"})), Some(1));
        assert_eq!(position(list(), Some("name"), json!({"name": "c"})), None);
        assert_eq!(position(list(), None, json!({"name": "b"})), Some(2));
    }

    #[test]
    fn what_has_no_identity_is_nowhere() {
        let list = || json!([{}, {"name": null}, 7]);
        assert_eq!(position(list(), Some("name"), json!({})), None);
        assert_eq!(position(list(), Some("name"), json!({"name": null})), Some(1));
        assert_eq!(position(list(), Some("name"), json!(7)), None);
    }

    #[test]
    fn the_same_is_what_values_call_equal() {
        let list = || json!([1, "1", 0.0, true, null]);
        assert_eq!(position(list(), None, json!(1)), Some(0));
        assert_eq!(position(list(), None, json!(1.0)), None);
        assert_eq!(position(list(), None, json!("1")), Some(1));
        assert_eq!(position(list(), None, json!(-0.0)), Some(2));
        assert_eq!(position(list(), None, json!(null)), Some(4));
    }
}
