//! One stream's watchers and how far each of them is.
//!
//! The stream has one cursor, `taken`, for all watchers that keep up. What lies between the cursor and the
//! first pending revision that the hub marked concerns none of them, so an idle stream does nothing at all.
//! A watcher that is behind the cursor is *slow*: `catch_up.rs` brings it to the cursor, where it joins the
//! others. So each watcher passes each revision exactly once, either way.

use std::{
    collections::{BTreeSet, HashMap},
    sync::{Arc, atomic::Ordering::Relaxed},
    task::{Context, Poll},
};

use super::{
    Changes, Delivery, Event, EventKind, HistorySource, Matched, WatchId, WatchSpec,
    hub::{Shared, State, Stream},
    interest::Interest,
    ring::CopyLimit,
};
use crate::{KeyRange, KeyValue, Revision, StoreError};

/// How many revisions one look at the ring takes at most.
pub(super) const REVISIONS_PER_COPY: usize = 1024;

/// The watchers of one stream.
pub struct Subscriber {
    pub(super) shared: Arc<Shared>,
    stream: Stream,
    pub(super) watchers: Watchers,
    /// Every revision before this one has been given to every watcher that keeps up. Settled with the hub
    /// (see [`Self::settle`]) before it is used.
    pub(super) taken: Revision,
    /// The watchers behind `taken`, by the first revision that each still needs.
    pub(super) slow: BTreeSet<(Revision, usize)>,
    /// Not yet told that they were compacted.
    pub(super) compacted: Vec<(WatchId, Revision)>,
    pub(super) window: Vec<Arc<Changes>>,
}

/// The watchers in slots, and who of them wants which keys.
pub(super) struct Watchers {
    slots: Vec<Option<Watcher>>,
    free: Vec<usize>,
    by_id: HashMap<WatchId, usize>,
    interest: Interest<usize>,
    /// Scratch: slots with a match in the revision at hand.
    touched: Vec<usize>,
    /// Scratch: slots whose versions before the revision at hand are to be read first.
    must_read: Vec<usize>,
}

pub(super) struct Watcher {
    id: WatchId,
    pub range: KeyRange,
    no_put: bool,
    no_delete: bool,
    prev_kv: bool,
    /// Nothing before this revision concerns the watcher. Exact while it is slow.
    pub next: Revision,
    /// Progress below this would send the client back to before its own start, or before what the `created` header
    /// told it.
    least_progress: Revision,
    pub slow: bool,
    /// Takes part in the scan at hand.
    pub scanned: bool,
    /// Scratch: matching events of the revision at hand.
    matched: Vec<u32>,
}

/// Who is to be given a window of changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Audience {
    KeepingUp,
    Scanned,
}

impl Subscriber {
    pub(super) fn new(shared: Arc<Shared>, stream: Stream, next: Revision) -> Self {
        Self {
            shared,
            stream,
            watchers: Watchers::new(),
            taken: next,
            slow: BTreeSet::new(),
            compacted: Vec::new(),
            window: Vec::new(),
        }
    }

    /// Adds a watcher. The revision returned is the head at that instant: the `created` header's.
    ///
    /// A start before the compact revision is answered by the next drain; the watcher is never there.
    ///
    /// # Panics
    /// When the id is taken: [`Self::contains`] tells.
    pub fn add(&mut self, spec: WatchSpec) -> Revision {
        assert!(
            !self.contains(spec.id),
            "watch id {} is unique within its stream",
            spec.id
        );
        let shared = Arc::clone(&self.shared);
        let mut state = shared.lock();
        let head = state.head.revision;
        if spec.start > Revision(0) && spec.start < state.head.compact_revision {
            self.compacted.push((spec.id, state.head.compact_revision));
            return head;
        }
        self.settle(&state);
        state.interest.add(&spec.range, self.stream.clone());
        drop(state);
        let (next, least_progress) = if spec.start > Revision(0) {
            (spec.start, spec.start.max(head))
        } else {
            (head.next(), head)
        };
        let slot = self.watchers.insert(Watcher {
            id: spec.id,
            range: spec.range,
            no_put: spec.no_put,
            no_delete: spec.no_delete,
            prev_kv: spec.prev_kv,
            next,
            least_progress,
            slow: false,
            scanned: false,
            matched: Vec::new(),
        });
        self.shared.counters.watchers.fetch_add(1, Relaxed);
        if next < self.taken {
            self.make_slow(slot, next);
        }
        head
    }

    pub fn contains(&self, watch: WatchId) -> bool {
        self.watchers.by_id.contains_key(&watch) || self.compacted.iter().any(|(id, _)| *id == watch)
    }

    /// `false` when there is no such watcher.
    pub fn remove(&mut self, watch: WatchId) -> bool {
        if let Some(at) = self.compacted.iter().position(|(id, _)| *id == watch) {
            self.compacted.remove(at);
            return true;
        }
        let Some(slot) = self.watchers.by_id.get(&watch).copied() else {
            return false;
        };
        self.remove_slot(slot);
        true
    }

    /// Ready when [`Self::drain`] may have something; registers the waker otherwise.
    pub fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.has_work() {
            return Poll::Ready(());
        }
        self.stream.signal.waker.register(cx.waker());
        // A publish between the look above and the registration woke nobody.
        if self.has_work() {
            Poll::Ready(())
        } else {
            Poll::Pending
        }
    }

    /// Appends what is there, about `max_bytes` of it; `true` when there is more at once.
    ///
    /// Reads from disk when [`Self::is_catching_up`] before, a bounded number of times; else not at all.
    pub fn drain(&mut self, max_bytes: usize, out: &mut Vec<Delivery>) -> Result<bool, StoreError> {
        out.extend(
            self.compacted
                .drain(..)
                .map(|(watch, compact_revision)| Delivery::Compacted {
                    watch,
                    compact_revision,
                }),
        );
        // Who falls behind below waits for the next drain, which the caller may run elsewhere.
        let catching_up = self.is_catching_up();
        // While some catch up they have half of each drain, or a busy stream would starve them.
        let share = if catching_up { max_bytes / 2 } else { max_bytes };
        self.take_window(share);
        let window = std::mem::take(&mut self.window);
        let mut delivered = 0;
        for changes in &window {
            delivered += self.deliver(changes, Audience::KeepingUp, out)?;
        }
        self.recycle(window);
        if catching_up {
            self.catch_up(max_bytes.saturating_sub(delivered), out)?;
        }
        Ok(self.has_work())
    }

    /// Whether the next drain will read from disk, or may.
    pub fn is_catching_up(&self) -> bool {
        !self.slow.is_empty()
    }

    /// The version before an event's revision; `None` when there was none, or when it is compacted. Read from disk
    /// when nobody has read it yet.
    pub fn previous<'e>(&self, event: &'e Event) -> Result<Option<&'e KeyValue>, StoreError> {
        read_previous(&*self.shared.history, &[event])?;
        Ok(event.prev.get())
    }

    /// The revision up to which every watcher of this stream has been given everything, if none lags and none
    /// starts later: what a progress notification may claim once all that was drained before has been sent.
    pub fn synced_revision(&mut self) -> Option<Revision> {
        if !self.slow.is_empty() || !self.compacted.is_empty() {
            return None;
        }
        let synced = self.synced();
        self.watchers
            .iter()
            .all(|watcher| watcher.least_progress <= synced)
            .then_some(synced)
    }

    /// The same for one watcher.
    pub fn watcher_synced_revision(&mut self, watch: WatchId) -> Option<Revision> {
        let synced = self.synced();
        let watcher = self.watchers.get(*self.watchers.by_id.get(&watch)?);
        (!watcher.slow && watcher.least_progress <= synced).then_some(synced)
    }

    fn synced(&mut self) -> Revision {
        let shared = Arc::clone(&self.shared);
        self.settle(&shared.lock());
        Revision(self.taken.0 - 1)
    }

    fn has_work(&self) -> bool {
        self.stream.signal.pending().is_some() || !self.slow.is_empty() || !self.compacted.is_empty()
    }

    /// Moves the cursor over what concerned nobody: to the first pending revision, or past the head.
    fn settle(&mut self, state: &State) {
        let next = state.head.revision.next();
        let settled = self
            .stream
            .signal
            .pending()
            .map_or(next, |pending| pending.min(next));
        assert!(settled >= self.taken, "the hub marks only what was not taken");
        self.taken = settled;
    }

    /// Takes pending revisions from the ring into `window`. When the ring has already lost them, those who
    /// kept up until now are slow from there on.
    fn take_window(&mut self, max_bytes: usize) {
        let shared = Arc::clone(&self.shared);
        let state = shared.lock();
        self.settle(&state);
        let pending = self.taken;
        let next = state.head.revision.next();
        if pending >= state.ring.first() {
            let limit = CopyLimit {
                bytes: max_bytes.max(1),
                revisions: REVISIONS_PER_COPY,
            };
            self.taken = state.ring.copy(pending, next, limit, &mut self.window);
        } else {
            self.taken = next;
        }
        self.stream
            .signal
            .set_pending((self.taken < next).then_some(self.taken));
        drop(state);
        if self.window.is_empty() && pending < next {
            self.fall_behind(pending);
        }
    }

    fn fall_behind(&mut self, from: Revision) {
        for slot in 0..self.watchers.slots.len() {
            let Some(watcher) = &self.watchers.slots[slot] else {
                continue;
            };
            let next = watcher.next.max(from);
            if !watcher.slow && next < self.taken {
                self.make_slow(slot, next);
            }
        }
    }

    fn make_slow(&mut self, slot: usize, next: Revision) {
        let watcher = self.watchers.get_mut(slot);
        watcher.slow = true;
        watcher.next = next;
        self.slow.insert((next, slot));
        self.shared.counters.slow_watchers.fetch_add(1, Relaxed);
    }

    /// A slow watcher has everything before `next`; at the cursor it joins those that keep up.
    pub(super) fn advance_slow(&mut self, slot: usize, next: Revision) {
        let watcher = self.watchers.get_mut(slot);
        self.slow.remove(&(watcher.next, slot));
        watcher.next = next;
        if next < self.taken {
            self.slow.insert((next, slot));
        } else {
            watcher.slow = false;
            self.shared.counters.slow_watchers.fetch_sub(1, Relaxed);
        }
    }

    pub(super) fn remove_slot(&mut self, slot: usize) -> WatchId {
        let watcher = self.watchers.remove(slot);
        self.shared.lock().interest.remove(&watcher.range, &self.stream);
        if watcher.slow {
            self.slow.remove(&(watcher.next, slot));
            self.shared.counters.slow_watchers.fetch_sub(1, Relaxed);
        }
        self.shared.counters.watchers.fetch_sub(1, Relaxed);
        watcher.id
    }

    /// Hands one revision to those of `audience` whom it concerns; returns the bytes handed out. Of those that keep
    /// up, the ones for whom something must be read from disk fall behind.
    pub(super) fn deliver(
        &mut self,
        changes: &Arc<Changes>,
        audience: Audience,
        out: &mut Vec<Delivery>,
    ) -> Result<usize, StoreError> {
        self.watchers.find(changes, audience);
        let mut must_read = std::mem::take(&mut self.watchers.must_read);
        match audience {
            Audience::KeepingUp => must_read.iter().for_each(|&slot| {
                self.watchers.get_mut(slot).matched.clear();
                self.make_slow(slot, changes.revision);
            }),
            Audience::Scanned => {
                let events: Vec<&Event> = self.watchers.matched_by(&must_read, changes).collect();
                read_previous(&*self.shared.history, &events)?;
                self.watchers.touched.append(&mut must_read);
            }
        }
        must_read.clear();
        self.watchers.must_read = must_read;
        let (events, bytes) = self.watchers.hand_out(changes, out);
        if events > 0 {
            self.shared.counters.events_delivered.fetch_add(events, Relaxed);
        }
        Ok(bytes)
    }

    /// Keeps a window's memory for the next one.
    pub(super) fn recycle(&mut self, mut window: Vec<Arc<Changes>>) {
        window.clear();
        self.window = window;
    }
}

impl Drop for Subscriber {
    fn drop(&mut self) {
        for slot in 0..self.watchers.slots.len() {
            if self.watchers.slots[slot].is_some() {
                self.remove_slot(slot);
            }
        }
        self.shared.forget(self.stream.id);
    }
}

impl Watchers {
    fn new() -> Self {
        Self {
            slots: Vec::new(),
            free: Vec::new(),
            by_id: HashMap::new(),
            interest: Interest::new(),
            touched: Vec::new(),
            must_read: Vec::new(),
        }
    }

    fn insert(&mut self, watcher: Watcher) -> usize {
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

    fn remove(&mut self, slot: usize) -> Watcher {
        let watcher = self.slots[slot].take().expect("a slot in use");
        self.interest.remove(&watcher.range, &slot);
        self.by_id.remove(&watcher.id);
        self.free.push(slot);
        watcher
    }

    fn iter(&self) -> impl Iterator<Item = &Watcher> {
        self.slots.iter().flatten()
    }

    pub fn get(&self, slot: usize) -> &Watcher {
        self.slots[slot].as_ref().expect("a slot in use")
    }

    pub fn get_mut(&mut self, slot: usize) -> &mut Watcher {
        self.slots[slot].as_mut().expect("a slot in use")
    }

    /// Finds those of `audience` whom the revision concerns, and which of its events; apart, those for whom versions
    /// before it are not at hand.
    fn find(&mut self, changes: &Changes, audience: Audience) {
        let Self {
            slots,
            interest,
            touched,
            must_read,
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
                watcher.matched.push(at);
            });
        }
        touched.retain(|&slot| {
            let watcher = slots[slot].as_ref().expect("a slot in use");
            let unread = |at: &u32| changes.events[*at as usize].prev.is_unread();
            let must = watcher.prev_kv && watcher.matched.iter().any(unread);
            if must {
                must_read.push(slot);
            }
            !must
        });
    }

    /// The events that any of `slots` matched, in order.
    fn matched_by<'e>(
        &self,
        slots: &[usize],
        changes: &'e Changes,
    ) -> impl Iterator<Item = &'e Event> + use<'e> {
        let all = slots.iter().flat_map(|slot| &self.get(*slot).matched);
        let distinct: BTreeSet<u32> = all.copied().collect();
        distinct.into_iter().map(|at| &changes.events[at as usize])
    }

    /// Returns how many events were handed out, and their bytes.
    fn hand_out(&mut self, changes: &Arc<Changes>, out: &mut Vec<Delivery>) -> (u64, usize) {
        let (mut events, mut bytes) = (0, 0);
        for slot in std::mem::take(&mut self.touched) {
            let watcher = self.get_mut(slot);
            let weigh = |at: &u32| changes.events[*at as usize].weight();
            events += watcher.matched.len() as u64;
            bytes += watcher.matched.iter().map(weigh).sum::<usize>();
            let matched = if watcher.matched.len() == changes.events.len() {
                Matched::All
            } else {
                Matched::Some(watcher.matched.clone())
            };
            watcher.matched.clear();
            out.push(Delivery::Events {
                watch: watcher.id,
                changes: Arc::clone(changes),
                matched,
            });
        }
        (events, bytes)
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
}

/// Reads the versions before `events` that nobody has read yet, all at once.
fn read_previous(history: &dyn HistorySource, events: &[&Event]) -> Result<(), StoreError> {
    let unread: Vec<&Event> = events
        .iter()
        .copied()
        .filter(|event| event.prev.is_unread())
        .collect();
    if unread.is_empty() {
        return Ok(());
    }
    for (event, kv) in unread.iter().zip(history.previous(&unread)?) {
        event.prev.keep(kv);
    }
    Ok(())
}
