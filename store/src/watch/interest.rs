//! Who wants to hear of which keys: single keys by hash, ranges by tree.
//!
//! Used twice: the hub's finds the streams that a change concerns, a stream's own finds its watchers.

use std::collections::HashMap;

use bytes::Bytes;

use super::range_tree::RangeTree;
use crate::KeyRange;

pub(super) struct Interest<T> {
    keys: HashMap<Bytes, Parties<T>>,
    ranges: RangeTree<Parties<T>>,
}

/// The interested in one key or range, sorted, each with how many times it was added.
struct Parties<T>(Vec<(T, u32)>);

impl<T: Ord> Interest<T> {
    pub fn new() -> Self {
        Self {
            keys: HashMap::new(),
            ranges: RangeTree::new(),
        }
    }

    pub fn add(&mut self, range: &KeyRange, party: T) {
        if let Some(key) = range.as_single() {
            self.keys
                .entry(key.clone())
                .or_insert_with(Parties::new)
                .add(party);
        } else if let Some(parties) = self.ranges.get_mut(range) {
            parties.add(party);
        } else {
            let mut parties = Parties::new();
            parties.add(party);
            self.ranges.insert(range, parties);
        }
    }

    /// Takes back one [`Self::add`].
    pub fn remove(&mut self, range: &KeyRange, party: &T) {
        if let Some(key) = range.as_single() {
            let Some(parties) = self.keys.get_mut(key) else {
                return;
            };
            parties.remove(party);
            if parties.0.is_empty() {
                self.keys.remove(key);
            }
        } else if let Some(parties) = self.ranges.get_mut(range) {
            parties.remove(party);
            if parties.0.is_empty() {
                self.ranges.remove(range);
            }
        }
    }

    /// Whoever wants to hear of `key`; more than once who has several ranges that contain it.
    pub fn visit<'a>(&'a self, key: &[u8], found: &mut dyn FnMut(&'a T)) {
        if let Some(parties) = self.keys.get(key) {
            parties.0.iter().for_each(|(party, _)| found(party));
        }
        self.ranges.visit(key, &mut |parties| {
            parties.0.iter().for_each(|(party, _)| found(party))
        });
    }

    #[cfg(test)]
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty() && self.ranges.is_empty()
    }
}

impl<T: Ord> Parties<T> {
    fn new() -> Self {
        Self(Vec::new())
    }

    fn add(&mut self, party: T) {
        match self.0.binary_search_by(|(other, _)| other.cmp(&party)) {
            Ok(at) => self.0[at].1 += 1,
            Err(at) => self.0.insert(at, (party, 1)),
        }
    }

    fn remove(&mut self, party: &T) {
        if let Ok(at) = self.0.binary_search_by(|(other, _)| other.cmp(party)) {
            self.0[at].1 -= 1;
            if self.0[at].1 == 0 {
                self.0.remove(at);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(interest: &Interest<u32>, key: &'static str) -> Vec<u32> {
        let mut out = vec![];
        interest.visit(key.as_bytes(), &mut |&party| out.push(party));
        out.sort_unstable();
        out
    }

    fn range(key: &'static str, end: &'static str) -> KeyRange {
        KeyRange::from_etcd(key.into(), end.into())
    }

    #[test]
    fn finds_keys_and_ranges_and_counts_repeats() {
        let mut interest = Interest::new();
        let wanted = [
            (range("a", ""), 1),
            (range("a", "c"), 2),
            (range("b", "\0"), 3),
            (range("a", ""), 1),
            (range("z", "a"), 4),
        ];
        for (range, party) in &wanted {
            interest.add(range, *party);
        }
        assert_eq!(found(&interest, "a"), [1, 2]);
        assert_eq!(found(&interest, "aa"), [2]);
        assert_eq!(found(&interest, "b"), [2, 3]);
        assert_eq!(found(&interest, "z"), [3], "an inverted range contains nothing");

        interest.remove(&range("a", ""), &1);
        assert_eq!(found(&interest, "a"), [1, 2], "added twice, removed once");
        for (range, party) in &wanted[1..] {
            interest.remove(range, party);
        }
        assert!(interest.is_empty());
    }
}
