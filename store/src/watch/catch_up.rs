//! Bringing slow watchers to their stream's cursor.
//!
//! Each step covers one window: it starts at the slowest watcher's next revision, reads the ring if that
//! still reaches back so far and the history on disk if not, and takes along the other slow watchers that
//! the same window serves. The stream's cursor stays where it is meanwhile: that is the fixed revision at
//! which a watcher is handed over, so nothing can be missed or repeated there.
//!
//! A revision that is too large for one window comes in parts, and those who are inside it go before all others. Its
//! parts may pile up with the caller, who has to send a revision whole; so no more than one watcher of a range is inside
//! at a time, or any number of single keys, to which a revision has little to say.
//!
//! Example: revision 9 deletes a million keys, and the watches 1 (every key) and 2 (keys below b/) are behind it. 1 goes
//! inside and is given parts of revision 9 until its end; 2 stays before revision 9 and goes inside after that.

use std::sync::Arc;

use super::{
    Changes, Delivery, Place, Subscriber,
    ring::CopyLimit,
    subscriber::REVISIONS_PER_COPY,
    watchers::{Audience, Ticket},
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
    next: Place,
    slots: Vec<usize>,
    range: KeyRange,
}

/// Watchers that were given the changes of a revision before `at`.
pub(super) struct Inside {
    pub at: Place,
    pub tickets: Vec<Ticket>,
    range: KeyRange,
}

impl Subscriber {
    pub(super) fn catch_up(&mut self, max_bytes: usize, out: &mut Vec<Delivery>) -> Result<(), StoreError> {
        // One step always: a drain that brings nobody forward could go on for ever.
        let mut room = max_bytes.max(1);
        for _ in 0..STEPS_PER_DRAIN {
            if self.slow.is_empty() || room == 0 || self.under_way.is_some() {
                break;
            }
            self.step(&mut room, out)?;
        }
        Ok(())
    }

    fn step(&mut self, room: &mut usize, out: &mut Vec<Delivery>) -> Result<(), StoreError> {
        let Some(&(from, slot)) = self.slow.first() else {
            return Ok(());
        };
        let max_bytes = (*room).min(STEP_BYTES);
        // Those inside who were removed meanwhile.
        self.inside.take_if(|inside| {
            inside
                .tickets
                .retain(|ticket| self.watchers.redeem(*ticket).is_some());
            inside.tickets.is_empty()
        });
        let from = self.inside.as_ref().map_or(from, |inside| inside.at.revision);
        let scan = match self.inside {
            Some(_) => self.scan_inside(max_bytes),
            None => match self.scan_ring(from, max_bytes) {
                Some(scan) => Ok(scan),
                None => self.scan_history(from, slot, max_bytes),
            },
        };
        match scan {
            Ok(scan) => self.hand_over(from, scan, room, out),
            Err(ReadError::Compacted { compact_revision }) if compact_revision > from => {
                self.cancel_compacted(compact_revision, out);
                Ok(())
            }
            Err(ReadError::Store(error)) => Err(error),
            Err(error) => Err(broken_history(from, &error.to_string())),
        }
    }

    /// Gives a window to its watchers, as far as there is room, and moves them behind what they were given.
    fn hand_over(
        &mut self,
        from: Revision,
        mut scan: Scan,
        room: &mut usize,
        out: &mut Vec<Delivery>,
    ) -> Result<(), StoreError> {
        self.end_parts(&mut scan);
        for &slot in &scan.slots {
            self.watchers.get_mut(slot).scanned = true;
        }
        let mut next = scan.next;
        for changes in &scan.changes {
            if *room == 0 || self.under_way.is_some() {
                next = Place::start_of(changes.revision);
                break;
            }
            let is_part = changes.revision == scan.next.revision;
            self.deliver(changes, Audience::Scanned, is_part, room, out)?;
        }
        for &slot in &scan.slots {
            let watcher = self.watchers.get_mut(slot);
            watcher.scanned = false;
            let next = watcher.next.max(next.revision);
            self.advance_slow(slot, next);
        }
        self.inside = (next.sub > 0).then(|| Inside {
            at: next,
            tickets: scan
                .slots
                .iter()
                .map(|slot| self.watchers.ticket(*slot))
                .collect(),
            range: scan.range,
        });
        debug_assert!(
            self.inside.is_none() || next.revision == from,
            "one goes inside at its start"
        );
        self.recycle(scan.changes);
        Ok(())
    }

    /// Who was given parts of a revision is to hear of its end, though the last part may have nothing in it.
    fn end_parts(&mut self, scan: &mut Scan) {
        let Some(inside) = &self.inside else { return };
        let revision = inside.at.revision;
        let has_more = scan
            .changes
            .first()
            .is_some_and(|changes| changes.revision == revision);
        if scan.next.revision > revision && !has_more {
            let end = Changes {
                revision,
                events: Vec::new(),
            };
            scan.changes.insert(0, Arc::new(end));
        }
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
        Some(Scan {
            changes,
            next: next.into(),
            slots,
            range: KeyRange::EVERYTHING,
        })
    }

    fn scan_history(&mut self, from: Revision, slot: usize, max_bytes: usize) -> Result<Scan, ReadError> {
        let (range, slots) = self.group(from, slot);
        let mut scan = self.read(from.into(), range, slots, max_bytes)?;
        if scan.next.sub > 0 {
            scan.slots = self.going_inside(from, slot, &scan.slots);
            let ranges = scan.slots.iter().map(|slot| &self.watchers.get(*slot).range);
            scan.range = ranges.fold(self.watchers.get(slot).range.clone(), cover);
        }
        Ok(scan)
    }

    fn scan_inside(&mut self, max_bytes: usize) -> Result<Scan, ReadError> {
        let inside = self.inside.as_ref().expect("somebody is inside");
        let (at, range) = (inside.at, inside.range.clone());
        let tickets = inside.tickets.iter();
        let slots = tickets
            .filter_map(|ticket| self.watchers.redeem(*ticket))
            .collect();
        self.read(at, range, slots, max_bytes)
    }

    fn read(
        &self,
        from: Place,
        range: KeyRange,
        slots: Vec<usize>,
        max_bytes: usize,
    ) -> Result<Scan, ReadError> {
        let prev_kv = slots.iter().any(|slot| self.watchers.get(*slot).prev_kv);
        let (mut changes, next) = self.shared.history.history(&range, from, prev_kv, max_bytes)?;
        let ascending = changes.is_sorted_by(|a, b| a.revision < b.revision);
        let end = if next.sub > 0 {
            next.revision.next()
        } else {
            next.revision
        };
        let within = changes
            .iter()
            .all(|changes| from.revision <= changes.revision && changes.revision < end);
        // Only a revision that would be too large by itself comes in parts.
        let divided = next.sub == 0 || next.revision == from.revision;
        if !(ascending && within && divided && from < next) {
            return Err(broken_history(from.revision, "revisions out of order or no headway").into());
        }
        // What is already on disk but after the cursor comes from the ring.
        let lost = i64::from(planted("watch-gap-at-handover"));
        changes.retain(|changes| changes.revision.0 < self.taken.0 - lost);
        Ok(Scan {
            changes,
            next: next.min(self.taken.into()),
            slots,
            range,
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

    /// Who of `slots` enters the revision `from`: `first`, and with a single key all other single keys.
    fn going_inside(&self, from: Revision, first: usize, slots: &[usize]) -> Vec<usize> {
        let is_single = |slot: usize| self.watchers.get(slot).range.as_single().is_some();
        let others = slots.iter().copied().filter(|&slot| {
            slot != first && is_single(first) && is_single(slot) && self.watchers.get(slot).next == from
        });
        std::iter::once(first).chain(others).collect()
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
