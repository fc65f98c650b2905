//! The newest entries in memory: those that are not durable yet, and before them as many as the limit allows.

use std::collections::VecDeque;

use crate::WalEntry;

/// Holds the entries from `first()` to the last of the log without a gap.
pub(crate) struct Cache {
    entries: VecDeque<(WalEntry, u64)>,
    /// Index of the first entry, or of the next one when there is none.
    first: u64,
    bytes: usize,
    limit: usize,
}

/// Memory that an entry takes beside its payload, about.
const ENTRY_OVERHEAD: usize = 64;

fn weight(entry: &WalEntry) -> usize {
    entry.payload.len() + ENTRY_OVERHEAD
}

impl Cache {
    pub(crate) fn new(limit: usize, next_index: u64) -> Cache {
        Cache {
            entries: VecDeque::new(),
            first: next_index,
            bytes: 0,
            limit,
        }
    }

    /// Entries below this index are read from the files.
    pub(crate) fn first(&self) -> u64 {
        self.first
    }

    /// `op` is the number of the operation that brings the entry.
    pub(crate) fn push(&mut self, entry: WalEntry, op: u64) {
        if self.entries.is_empty() {
            self.first = entry.index;
        }
        self.bytes += weight(&entry);
        self.entries.push_back((entry, op));
    }

    pub(crate) fn truncate(&mut self, from: u64) {
        while let Some((entry, _)) = self.entries.pop_back_if(|(entry, _)| entry.index >= from) {
            self.bytes -= weight(&entry);
        }
        self.first = self.first.min(from);
    }

    pub(crate) fn purge(&mut self, index: u64) {
        while let Some((entry, _)) = self.entries.pop_front_if(|(entry, _)| entry.index <= index) {
            self.bytes -= weight(&entry);
        }
        self.first = self.first.max(index + 1);
    }

    /// Lets go of the oldest entries above the limit, of those that operations up to `durable` brought.
    pub(crate) fn evict(&mut self, durable: u64) {
        while self.bytes > self.limit {
            let Some((entry, _)) = self.entries.pop_front_if(|(_, op)| *op <= durable) else {
                return;
            };
            self.bytes -= weight(&entry);
            self.first = entry.index + 1;
        }
    }

    pub(crate) fn from(&self, index: u64) -> impl Iterator<Item = &WalEntry> {
        let skip = index.saturating_sub(self.first) as usize;
        self.entries.iter().skip(skip).map(|(entry, _)| entry)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(index: u64) -> WalEntry {
        WalEntry {
            term: 1,
            index,
            kind: 0,
            payload: vec![0u8; 36].into(),
        }
    }

    fn held(cache: &Cache) -> Vec<u64> {
        cache.from(0).map(|entry| entry.index).collect()
    }

    #[test]
    fn what_is_not_durable_stays() {
        let mut cache = Cache::new(250, 1);
        (1..=6).for_each(|index| cache.push(entry(index), index));
        cache.evict(2);
        assert_eq!((cache.first(), held(&cache)), (3, vec![3, 4, 5, 6]));
        cache.evict(6);
        assert_eq!((cache.first(), held(&cache)), (5, vec![5, 6]));
    }

    #[test]
    fn a_truncation_below_it_empties_it() {
        let mut cache = Cache::new(1000, 10);
        (10..=12).for_each(|index| cache.push(entry(index), index));
        cache.truncate(12);
        assert_eq!(held(&cache), vec![10, 11]);
        cache.truncate(5);
        assert_eq!((cache.first(), held(&cache)), (5, vec![]));
        cache.push(entry(5), 20);
        cache.purge(100);
        assert_eq!((cache.first(), held(&cache)), (101, vec![]));
    }
}
