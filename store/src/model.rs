//! The nouns of the keyspace: revisions, keys' ranges, key-values, leases, log positions.

use bytes::Bytes;

/// A main revision of the keyspace. An empty store is at 1; the first write is 2.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Revision(pub i64);

impl Revision {
    pub fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

/// A lease's id; 0 means none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct LeaseId(pub i64);

/// Where in the Raft log: the entry at `index`, written in `term`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct LogPosition {
    pub term: u64,
    pub index: u64,
}

/// A field of an object under which it can be found, such as a label or the node a pod is bound to.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct IndexTerm {
    pub field: Bytes,
    pub value: Bytes,
}

/// One key at one revision.
///
/// Of a deletion (in an event) only `key` and `mod_revision` are set.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct KeyValue {
    pub key: Bytes,
    pub value: Bytes,
    pub create_revision: Revision,
    pub mod_revision: Revision,
    /// How many times the key was put since it was created; 1 at creation.
    pub version: i64,
    pub lease: LeaseId,
    pub terms: Vec<IndexTerm>,
    /// Where in `value` the resourceVersion is spliced in; 0: nowhere.
    pub splice_offset: u32,
}

impl KeyValue {
    /// Bytes of key and value.
    pub(crate) fn size(&self) -> usize {
        self.key.len() + self.value.len()
    }
}

/// A half-open range of keys, spelled as etcd spells it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct KeyRange {
    pub start: Bytes,
    /// `None`: no upper bound.
    pub end: Option<Bytes>,
}

impl KeyRange {
    pub const EVERYTHING: KeyRange = KeyRange {
        start: Bytes::new(),
        end: None,
    };

    /// etcd's rule: an empty `range_end` is the one key, `"\0"` every key from `key` on.
    pub fn from_etcd(key: Bytes, range_end: Bytes) -> Self {
        if range_end.is_empty() {
            return Self::single(key);
        }
        let end = if range_end.as_ref() == [0] {
            None
        } else {
            Some(range_end)
        };
        // `key` = "\0" with `range_end` = "\0" is everything: no key sorts below "\0" but the empty one.
        Self { start: key, end }
    }

    pub fn single(key: Bytes) -> Self {
        let mut end = Vec::with_capacity(key.len() + 1);
        end.extend_from_slice(&key);
        end.push(0);
        Self {
            start: key,
            end: Some(end.into()),
        }
    }

    pub fn contains(&self, key: &[u8]) -> bool {
        key >= self.start.as_ref() && self.end.as_ref().is_none_or(|end| key < end.as_ref())
    }

    /// The key, when the range holds exactly one.
    pub fn as_single(&self) -> Option<&Bytes> {
        let end = self.end.as_ref()?;
        let one = end.len() == self.start.len() + 1 && end.last() == Some(&0) && end.starts_with(&self.start);
        one.then_some(&self.start)
    }
}
