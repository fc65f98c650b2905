//! The hash over everything that was ever applied, chained from entry to entry.
//!
//! Two members that applied the same entries have the same [`StateHash`] at the same log position; physical
//! compaction and index rows do not enter it. [`EntryHash`] gathers one entry's effects.

use sha2::{Digest, Sha256};

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct StateHash(pub [u8; 32]);

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
