//! What a log should hold, as plain data: one state per step that a crash may fall back to.

use barque_wal::{Recovered, Wal, WalEntry};

#[derive(Debug, Clone, Default, PartialEq)]
pub struct Model {
    pub vote: Option<Vec<u8>>,
    pub bound: Option<u64>,
    pub purged: Option<(u64, u64)>,
    pub entries: Vec<WalEntry>,
}

#[derive(Debug, Clone)]
pub enum Step {
    Entry(WalEntry),
    Vote(Vec<u8>),
    Bound(u64),
    /// The new last index.
    Truncate(Option<u64>),
    Purge(u64, u64),
}

impl Model {
    pub fn apply(&mut self, step: &Step) {
        match step {
            Step::Entry(entry) => self.entries.push(entry.clone()),
            Step::Vote(vote) => self.vote = Some(vote.clone()),
            Step::Bound(bound) => self.bound = Some(*bound),
            Step::Truncate(last) => self
                .entries
                .retain(|entry| last.is_some_and(|last| entry.index <= last)),
            Step::Purge(term, index) => {
                self.entries.retain(|entry| entry.index > *index);
                self.purged = self.purged.max(Some((*term, *index)));
            }
        }
    }

    pub fn last(&self) -> Option<(u64, u64)> {
        self.entries
            .last()
            .map(|entry| (entry.term, entry.index))
            .or(self.purged)
    }

    /// Raft's first entry, a membership, is at 0.
    pub fn next_index(&self) -> u64 {
        self.last().map_or(0, |(_, index)| index + 1)
    }

    /// Where the log begins, if it holds entries.
    pub fn first_index(&self) -> u64 {
        self.purged.map_or(0, |(_, index)| index + 1)
    }

    /// What an opened log holds; reading it checks that it has no holes.
    pub fn of(wal: &Wal, known: &Recovered) -> Model {
        let first = known.purged.map_or(0, |(_, index)| index + 1);
        let end = known.last.map_or(0, |(_, index)| index + 1);
        let mut entries = Vec::new();
        while first + (entries.len() as u64) < end {
            let next = first + entries.len() as u64;
            let read = wal.read(next..end, 700).expect("every entry is readable");
            assert!(!read.is_empty(), "entry {next} of {end} is missing");
            for (entry, index) in read.iter().zip(next..) {
                assert_eq!(entry.index, index, "entries are contiguous");
            }
            entries.extend(read);
        }
        let model = Model {
            vote: known.vote.as_ref().map(|vote| vote.to_vec()),
            bound: known.bound,
            purged: known.purged,
            entries,
        };
        assert_eq!(model.last(), known.last);
        model
    }
}
