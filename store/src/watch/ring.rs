//! The newest revisions in memory, bounded in bytes, without a gap up to the head.

use std::{collections::VecDeque, sync::Arc};

use super::Changes;
use crate::Revision;

pub(super) struct Ring {
    entries: VecDeque<Arc<Changes>>,
    /// The revision of `entries[0]`; the one after the head when there are none.
    first: Revision,
    bytes: usize,
    max_bytes: usize,
}

/// How much one copy out of the ring may take, so that the hub's lock is held briefly.
#[derive(Clone, Copy)]
pub(super) struct CopyLimit {
    pub bytes: usize,
    pub revisions: usize,
}

impl Ring {
    /// Empty; `first` is the next revision expected.
    pub fn new(first: Revision, max_bytes: usize) -> Self {
        Self {
            entries: VecDeque::new(),
            first,
            bytes: 0,
            max_bytes,
        }
    }

    /// The oldest revision held, or the next one expected.
    pub fn first(&self) -> Revision {
        self.first
    }

    /// The next revision expected.
    pub fn next(&self) -> Revision {
        Revision(self.first.0 + self.entries.len() as i64)
    }

    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Appends the next revision and forgets the oldest ones that no longer fit.
    pub fn push(&mut self, changes: Arc<Changes>) {
        assert_eq!(
            changes.revision,
            self.next(),
            "revisions are published in order and without a gap"
        );
        self.bytes += changes.weight();
        self.entries.push_back(changes);
        while self.bytes > self.max_bytes {
            let Some(oldest) = self.entries.pop_front() else {
                break;
            };
            self.bytes -= oldest.weight();
            self.first.0 += 1;
        }
    }

    /// Forgets everything; `first` is the next revision expected.
    pub fn clear(&mut self, first: Revision) {
        self.entries.clear();
        self.bytes = 0;
        self.first = first;
    }

    /// Copies `from..until`, at least one revision and then up to `limit`; returns the first one not copied.
    /// `from` must be held.
    pub fn copy(
        &self,
        from: Revision,
        until: Revision,
        limit: CopyLimit,
        out: &mut Vec<Arc<Changes>>,
    ) -> Revision {
        assert!(
            self.first <= from && until <= self.next(),
            "the ring holds what is copied from it"
        );
        let mut next = from;
        let mut bytes = 0;
        while next < until && bytes < limit.bytes && ((next.0 - from.0) as usize) < limit.revisions {
            let changes = &self.entries[(next.0 - self.first.0) as usize];
            bytes += changes.weight();
            out.push(Arc::clone(changes));
            next.0 += 1;
        }
        next
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: CopyLimit = CopyLimit {
        bytes: usize::MAX,
        revisions: usize::MAX,
    };

    fn changes(revision: i64) -> Arc<Changes> {
        Arc::new(Changes {
            revision: Revision(revision),
            events: vec![],
        })
    }

    fn copied(ring: &Ring, from: i64, until: i64, limit: CopyLimit) -> (Vec<i64>, i64) {
        let mut out = vec![];
        let next = ring.copy(Revision(from), Revision(until), limit, &mut out);
        (out.iter().map(|changes| changes.revision.0).collect(), next.0)
    }

    #[test]
    fn forgets_the_oldest_when_full() {
        let mut ring = Ring::new(Revision(2), 3 * changes(0).weight());
        (2..=6).for_each(|revision| ring.push(changes(revision)));
        assert_eq!((ring.first(), ring.next()), (Revision(4), Revision(7)));
        assert_eq!(ring.bytes(), 3 * changes(0).weight());
        assert_eq!(copied(&ring, 4, 7, ALL), (vec![4, 5, 6], 7));
        assert_eq!(copied(&ring, 5, 6, ALL), (vec![5], 6));
    }

    #[test]
    fn keeps_nothing_that_is_larger_than_itself() {
        let mut ring = Ring::new(Revision(2), 0);
        ring.push(changes(2));
        assert_eq!(
            (ring.first(), ring.next(), ring.bytes()),
            (Revision(3), Revision(3), 0)
        );
    }

    #[test]
    fn copies_at_least_one_and_then_up_to_the_limit() {
        let mut ring = Ring::new(Revision(2), usize::MAX);
        (2..=9).for_each(|revision| ring.push(changes(revision)));
        assert_eq!(
            copied(
                &ring,
                3,
                10,
                CopyLimit {
                    bytes: 1,
                    revisions: 100
                }
            ),
            (vec![3], 4)
        );
        assert_eq!(
            copied(
                &ring,
                3,
                10,
                CopyLimit {
                    bytes: usize::MAX,
                    revisions: 2
                }
            ),
            (vec![3, 4], 5)
        );
    }

    #[test]
    fn starts_anew_after_a_clear() {
        let mut ring = Ring::new(Revision(2), usize::MAX);
        ring.push(changes(2));
        ring.clear(Revision(50));
        ring.push(changes(50));
        assert_eq!(copied(&ring, 50, 51, ALL), (vec![50], 51));
    }

    #[test]
    #[should_panic(expected = "without a gap")]
    fn refuses_a_gap() {
        Ring::new(Revision(2), usize::MAX).push(changes(3));
    }
}
