//! The watchers of one stream in slots, and who of them wants which keys.

use std::{collections::HashMap, ops::Range};

use super::{Changes, Event, EventKind, Matched, WatchId, WatchSpec, interest::Interest};
use crate::{KeyRange, Revision};

pub(super) struct Watchers {
    slots: Vec<Option<Watcher>>,
    free: Vec<usize>,
    by_id: HashMap<WatchId, usize>,
    interest: Interest<usize>,
    next_serial: u64,
    /// Scratch: slots with a match in the revision at hand.
    touched: Vec<usize>,
}

pub(super) struct Watcher {
    pub id: WatchId,
    /// Never given twice: slots and ids are.
    serial: u64,
    pub range: KeyRange,
    no_put: bool,
    no_delete: bool,
    pub prev_kv: bool,
    /// Nothing before this revision concerns the watcher. Exact while it is slow.
    pub next: Revision,
    /// Progress below this would send the client back to before its own start, or before what the `created` header
    /// told it.
    pub least_progress: Revision,
    pub slow: bool,
    /// Takes part in the scan at hand.
    pub scanned: bool,
    /// Was given a part of the revision `next`, and waits for the rest.
    pub has_part: bool,
    /// Scratch: matching events of the revision at hand, as runs.
    matched: Vec<Range<u32>>,
}

/// Who is to be given a window of changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Audience {
    KeepingUp,
    Scanned,
}

/// A watcher that stays itself, whatever becomes of its slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Ticket {
    slot: usize,
    serial: u64,
}

/// What a watcher is due of a revision.
pub(super) struct Due {
    pub slot: usize,
    pub matched: Matched,
}

impl Watchers {
    pub fn new() -> Self {
        Self {
            slots: Vec::new(),
            free: Vec::new(),
            by_id: HashMap::new(),
            interest: Interest::new(),
            next_serial: 0,
            touched: Vec::new(),
        }
    }

    pub fn insert(&mut self, spec: WatchSpec, next: Revision, least_progress: Revision) -> usize {
        let watcher = Watcher {
            id: spec.id,
            serial: self.next_serial,
            range: spec.range,
            no_put: spec.no_put,
            no_delete: spec.no_delete,
            prev_kv: spec.prev_kv,
            next,
            least_progress,
            slow: false,
            scanned: false,
            has_part: false,
            matched: Vec::new(),
        };
        self.next_serial += 1;
        let slot = self.free.pop().unwrap_or(self.slots.len());
        self.interest.add(&watcher.range, slot);
        self.by_id.insert(watcher.id, slot);
        if slot == self.slots.len() {
            self.slots.push(Some(watcher));
        } else {
            self.slots[slot] = Some(watcher);
        }
        slot
    }

    pub fn remove(&mut self, slot: usize) -> Watcher {
        let watcher = self.slots[slot].take().expect("a slot in use");
        self.interest.remove(&watcher.range, &slot);
        self.by_id.remove(&watcher.id);
        self.free.push(slot);
        watcher
    }

    pub fn iter(&self) -> impl Iterator<Item = &Watcher> {
        self.slots.iter().flatten()
    }

    pub fn used_slots(&self) -> Vec<usize> {
        (0..self.slots.len())
            .filter(|slot| self.slots[*slot].is_some())
            .collect()
    }

    pub fn slot_of(&self, watch: WatchId) -> Option<usize> {
        self.by_id.get(&watch).copied()
    }

    pub fn get(&self, slot: usize) -> &Watcher {
        self.slots[slot].as_ref().expect("a slot in use")
    }

    pub fn get_mut(&mut self, slot: usize) -> &mut Watcher {
        self.slots[slot].as_mut().expect("a slot in use")
    }

    pub fn ticket(&self, slot: usize) -> Ticket {
        Ticket {
            slot,
            serial: self.get(slot).serial,
        }
    }

    /// The slot, if the watcher is still there.
    pub fn redeem(&self, ticket: Ticket) -> Option<usize> {
        let watcher = self.slots[ticket.slot].as_ref()?;
        (watcher.serial == ticket.serial).then_some(ticket.slot)
    }

    /// Those of `audience` whom the revision concerns, and which of its events.
    pub fn find(&mut self, changes: &Changes, audience: Audience) -> Vec<Due> {
        let Self {
            slots,
            interest,
            touched,
            ..
        } = self;
        for (at, event) in (0u32..).zip(&changes.events) {
            interest.visit(&event.kv.key, &mut |&slot| {
                let watcher = slots[slot]
                    .as_mut()
                    .expect("the interest index names slots in use");
                if !watcher.takes(changes.revision, event.kind, audience) {
                    return;
                }
                if watcher.matched.is_empty() {
                    touched.push(slot);
                }
                add_to_runs(&mut watcher.matched, at);
            });
        }
        let all = changes.events.len() as u32;
        let due = |slot: usize| {
            let runs = &mut slots[slot].as_mut().expect("a slot in use").matched;
            let matched = match runs.as_slice() {
                [run] if *run == (0..all) => Matched::All,
                runs => Matched::Runs(runs.into()),
            };
            runs.clear();
            Due { slot, matched }
        };
        touched.drain(..).map(due).collect()
    }
}

/// `runs` are ascending, and `at` lies behind them.
fn add_to_runs(runs: &mut Vec<Range<u32>>, at: u32) {
    match runs.last_mut() {
        Some(run) if run.end == at => run.end += 1,
        _ => runs.push(at..at + 1),
    }
}

impl Watcher {
    fn takes(&self, revision: Revision, kind: EventKind, audience: Audience) -> bool {
        let filtered = match kind {
            EventKind::Put => self.no_put,
            EventKind::Delete => self.no_delete,
        };
        let addressed = match audience {
            Audience::KeepingUp => !self.slow,
            Audience::Scanned => self.scanned,
        };
        addressed && !filtered && revision >= self.next
    }

    /// Whether something must be read from disk before it can be given what it is due.
    pub fn must_read(&self, changes: &Changes, matched: &Matched) -> bool {
        self.prev_kv && matched.events(changes).any(|event| event.prev.is_unread())
    }

    /// What it is handed by a delivery, in bytes.
    pub fn cost(&self, changes: &Changes, matched: &Matched) -> usize {
        let of = |event: &Event| event.cost(self.prev_kv);
        DELIVERY_COST + matched.events(changes).map(of).sum::<usize>()
    }
}

/// What a delivery costs beside its events: here, and as a response on its way out.
const DELIVERY_COST: usize = 256;
