//! Bringing slow watchers to their stream's cursor.
//!
//! Each step covers one window: it starts at the slowest watcher's next revision, reads the ring if that
//! still reaches back so far and the history on disk if not, and takes along the other slow watchers that
//! the same window serves. The stream's cursor stays where it is meanwhile: that is the fixed revision at
//! which a watcher is handed over, so nothing can be missed or repeated there.

use std::sync::Arc;

use super::{
    Changes, Delivery, Subscriber,
    ring::CopyLimit,
    subscriber::{Audience, REVISIONS_PER_COPY},
};
use crate::{KeyRange, ReadError, Revision, StoreError, planted};

/// Windows per drain: other streams wait while one reads the disk.
const STEPS_PER_DRAIN: usize = 4;
/// What one read of the history may bring at most.
const STEP_BYTES: usize = 1 << 20;
/// How far ahead of the slowest a watcher may be to share its scan of the history.
const SHARED_REVISIONS: i64 = 4096;

/// One window of changes up to `next`, for `slots`.
struct Scan {
    changes: Vec<Arc<Changes>>,
    next: Revision,
    slots: Vec<usize>,
}

impl Subscriber {
    pub(super) fn catch_up(&mut self, max_bytes: usize, out: &mut Vec<Delivery>) -> Result<(), StoreError> {
        let mut spent = 0;
        for step in 0..STEPS_PER_DRAIN {
            let Some(&(from, slot)) = self.slow.first() else {
                break;
            };
            // One step always: a drain that brings nobody forward could go on for ever.
            if step > 0 && spent >= max_bytes {
                break;
            }
            let step_bytes = (max_bytes.saturating_sub(spent)).clamp(1, STEP_BYTES);
            spent += self.step(from, slot, step_bytes, out)?;
        }
        Ok(())
    }

    fn step(
        &mut self,
        from: Revision,
        slot: usize,
        max_bytes: usize,
        out: &mut Vec<Delivery>,
    ) -> Result<usize, StoreError> {
        let scan = match self.scan_ring(from, max_bytes) {
            Some(scan) => scan,
            None => match self.scan_history(from, slot, max_bytes) {
                Ok(scan) => scan,
                Err(ReadError::Compacted { compact_revision }) if compact_revision > from => {
                    self.cancel_compacted(compact_revision, out);
                    return Ok(0);
                }
                Err(ReadError::Store(error)) => return Err(error),
                Err(error) => return Err(broken_history(from, &error.to_string())),
            },
        };
        for &slot in &scan.slots {
            self.watchers.get_mut(slot).scanned = true;
        }
        let mut delivered = 0;
        for changes in &scan.changes {
            delivered += self.deliver(changes, Audience::Scanned, out);
        }
        for &slot in &scan.slots {
            let watcher = self.watchers.get_mut(slot);
            watcher.scanned = false;
            let next = watcher.next.max(scan.next);
            self.advance_slow(slot, next);
        }
        self.recycle(scan.changes);
        Ok(delivered)
    }

    /// The ring holds every key, so a window of it serves whoever needs something in it.
    fn scan_ring(&mut self, from: Revision, bytes: usize) -> Option<Scan> {
        let mut changes = std::mem::take(&mut self.window);
        let state = self.shared.lock();
        if from < state.ring.first() {
            return None;
        }
        // The events at the compact revision lost the versions before them: the history knows which, the ring
        // still has them as they were.
        if from == state.head.compact_revision {
            return None;
        }
        let from = match planted("watch-gap-at-compaction") {
            true => from.max(state.head.compact_revision),
            false => from,
        };
        let limit = CopyLimit {
            bytes,
            revisions: REVISIONS_PER_COPY,
        };
        let next = state.ring.copy(from, self.taken, limit, &mut changes);
        drop(state);
        let slots = self.slow.range(..(next, 0)).map(|&(_, slot)| slot).collect();
        Some(Scan { changes, next, slots })
    }

    fn scan_history(&mut self, from: Revision, slot: usize, max_bytes: usize) -> Result<Scan, ReadError> {
        let (range, slots) = self.group(from, slot);
        let (mut changes, next) = self.shared.history.history(&range, from, max_bytes)?;
        let ascending = changes.is_sorted_by(|a, b| a.revision < b.revision);
        let within = changes
            .iter()
            .all(|changes| from <= changes.revision && changes.revision < next);
        if !(ascending && within && from < next) {
            return Err(broken_history(from, "revisions out of order or no headway").into());
        }
        // What is already on disk but after the cursor comes from the ring.
        let lost = i64::from(planted("watch-gap-at-handover"));
        changes.retain(|changes| changes.revision.0 < self.taken.0 - lost);
        Ok(Scan {
            changes,
            next: next.min(self.taken),
            slots,
        })
    }

    /// The slow watchers near `slot`'s that overlap with it, and the range that covers them all. A range
    /// apart is not joined: what lies between would be read for nobody.
    fn group(&self, from: Revision, slot: usize) -> (KeyRange, Vec<usize>) {
        let mut hull = self.watchers.get(slot).range.clone();
        let mut slots = vec![slot];
        for &(_, other) in self.slow.range(..(Revision(from.0 + SHARED_REVISIONS), 0)) {
            let range = &self.watchers.get(other).range;
            if other != slot && overlap(&hull, range) {
                if !planted("neighbour-not-covered") {
                    hull = cover(hull, range);
                }
                slots.push(other);
            }
        }
        (hull, slots)
    }

    fn cancel_compacted(&mut self, compact_revision: Revision, out: &mut Vec<Delivery>) {
        let gone: Vec<usize> = self
            .slow
            .range(..(compact_revision, 0))
            .map(|&(_, slot)| slot)
            .collect();
        for slot in gone {
            let watch = self.remove_slot(slot);
            out.push(Delivery::Compacted {
                watch,
                compact_revision,
            });
        }
    }
}

fn broken_history(from: Revision, detail: &str) -> StoreError {
    StoreError::Corrupt {
        what: "history",
        detail: format!("reading from revision {}: {detail}", from.0),
    }
}

fn overlap(a: &KeyRange, b: &KeyRange) -> bool {
    let ends_after =
        |end: &Option<bytes::Bytes>, start: &bytes::Bytes| end.as_ref().is_none_or(|end| end > start);
    ends_after(&a.end, &b.start) && ends_after(&b.end, &a.start)
}

fn cover(a: KeyRange, b: &KeyRange) -> KeyRange {
    let end = match (a.end, &b.end) {
        (Some(a), Some(b)) => Some(a.max(b.clone())),
        _ => None,
    };
    KeyRange {
        start: a.start.min(b.start.clone()),
        end,
    }
}
