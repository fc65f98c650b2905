//! The hash over everything that was ever applied, chained from entry to entry.
//!
//! Two members that applied the same entries have the same [`StateHash`] at the same log position; physical
//! compaction and index rows do not enter it. [`EntryHash`] gathers one entry's effects, and the [`Trail`] remembers
//! the hash after each of the last entries, so that members can be compared at one that both have applied.

use std::collections::VecDeque;

use sha2::{Digest, Sha256};

/// How many entries a [`Trail`] remembers. A member that is further behind than this is compared once it is nearer.
const TRAIL_ENTRIES: usize = 4096;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct StateHash(pub [u8; 32]);

/// The state after one entry, in few bytes. Of members that agree, those at the same index are equal; and since the
/// hash is chained, two that differ once differ at every later index too.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mark {
    pub index: u64,
    /// The first 8 bytes of the state hash.
    pub hash: u64,
}

impl Mark {
    pub fn new(index: u64, hash: StateHash) -> Self {
        let [a, b, c, d, e, f, g, h, ..] = hash.0;
        Self {
            index,
            hash: u64::from_be_bytes([a, b, c, d, e, f, g, h]),
        }
    }
}

/// The marks of the last applied entries, oldest first.
///
/// Taken per entry and not per batch of entries: each member cuts its batches differently, and would have marks at
/// other indexes. A state that came whole (opened, or installed from a snapshot) begins a new trail with one mark.
#[derive(Debug, Default)]
pub struct Trail {
    marks: VecDeque<Mark>,
}

impl Trail {
    pub fn begin(applied: Option<u64>, hash: StateHash) -> Self {
        Self {
            marks: applied.map(|index| Mark::new(index, hash)).into_iter().collect(),
        }
    }

    pub fn extend(&mut self, marks: impl IntoIterator<Item = Mark>) {
        self.marks.extend(marks);
        let surplus = self.marks.len().saturating_sub(TRAIL_ENTRIES);
        self.marks.drain(..surplus);
    }

    pub fn newest(&self) -> Option<Mark> {
        self.marks.back().copied()
    }

    /// `None`: not applied yet, or no longer remembered.
    pub fn at(&self, index: u64) -> Option<Mark> {
        let found = self.marks.binary_search_by_key(&index, |mark| mark.index);
        found.ok().map(|place| self.marks[place])
    }
}

/// What kind of effect is hashed; part of the format.
#[derive(Debug, Clone, Copy)]
#[repr(u8)]
pub enum Effect {
    Change = 1,
    Compact = 2,
    LeaseGrant = 3,
    LeaseRevoke = 4,
    LeaseCheckpoint = 5,
    Alarm = 6,
}

/// The effects of one entry so far.
#[derive(Clone)]
pub struct EntryHash {
    before: StateHash,
    digest: Option<Sha256>,
}

impl EntryHash {
    pub fn new(before: StateHash) -> Self {
        Self { before, digest: None }
    }

    /// Each part goes in behind its length, so that no two effects look alike.
    pub fn absorb(&mut self, effect: Effect, parts: &[&[u8]]) {
        let before = self.before;
        let digest = self
            .digest
            .get_or_insert_with(|| Sha256::new_with_prefix(before.0));
        digest.update([effect as u8]);
        for part in parts {
            digest.update((part.len() as u64).to_be_bytes());
            digest.update(part);
        }
    }

    /// Unchanged when the entry had no effect.
    pub fn finish(self) -> StateHash {
        self.digest
            .map_or(self.before, |digest| StateHash(digest.finalize().into()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trail_remembers_the_last_entries() {
        let mark = |index| Mark { index, hash: !index };
        let mut trail = Trail::begin(Some(7), StateHash([1; 32]));
        assert_eq!(trail.newest(), Some(Mark::new(7, StateHash([1; 32]))));
        let last = 7 + TRAIL_ENTRIES as u64;
        trail.extend((8..=last).map(mark));
        assert_eq!(trail.newest(), Some(mark(last)));
        assert_eq!((trail.at(7), trail.at(8)), (None, Some(mark(8))));
        assert_eq!((trail.at(last), trail.at(last + 1)), (Some(mark(last)), None));
        assert_eq!(Trail::begin(None, StateHash::default()).newest(), None);
    }

    #[test]
    fn chains_and_tells_parts_apart() {
        let hash = |parts: &[&[u8]]| {
            let mut entry = EntryHash::new(StateHash::default());
            entry.absorb(Effect::Change, parts);
            entry.finish()
        };
        assert_ne!(hash(&[b"ab", b"c"]), hash(&[b"a", b"bc"]));
        assert_eq!(EntryHash::new(StateHash([7; 32])).finish(), StateHash([7; 32]));
        let mut next = EntryHash::new(hash(&[b"a"]));
        next.absorb(Effect::Change, &[b"a"]);
        assert_ne!(next.finish(), hash(&[b"a"]));
    }
}
