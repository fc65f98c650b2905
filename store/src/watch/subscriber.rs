//! One stream's watchers and how far each of them is.
//!
//! The stream has one cursor, `taken`, for all watchers that keep up. What lies between the cursor and the
//! first pending revision that the hub marked concerns none of them, so an idle stream does nothing at all.
//! A watcher that is behind the cursor is *slow*: `catch_up.rs` brings it to the cursor, where it joins the
//! others. So each watcher passes each revision exactly once, either way.

use std::{
    collections::BTreeSet,
    sync::{Arc, atomic::Ordering::Relaxed},
    task::{Context, Poll},
};

use super::{
    Changes, Delivery, Event, HistorySource, WatchId, WatchSpec,
    catch_up::Inside,
    hand_out::UnderWay,
    hub::{Shared, State, Stream},
    ring::CopyLimit,
    watchers::{Audience, Watchers},
};
use crate::{KeyValue, Revision, StoreError};

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
    /// Of the slow ones, those that were given a part of a revision.
    pub(super) inside: Option<Inside>,
    /// What the last drain had no room for.
    pub(super) under_way: Option<UnderWay>,
    /// Not yet told that they were compacted.
    pub(super) compacted: Vec<(WatchId, Revision)>,
    pub(super) window: Vec<Arc<Changes>>,
}

impl Subscriber {
    pub(super) fn new(shared: Arc<Shared>, stream: Stream, next: Revision) -> Self {
        Self {
            shared,
            stream,
            watchers: Watchers::new(),
            taken: next,
            slow: BTreeSet::new(),
            inside: None,
            under_way: None,
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
        let slot = self.watchers.insert(spec, next, least_progress);
        self.shared.counters.watchers.fetch_add(1, Relaxed);
        if next < self.taken {
            self.make_slow(slot, next);
        }
        head
    }

    pub fn contains(&self, watch: WatchId) -> bool {
        self.watchers.slot_of(watch).is_some() || self.compacted.iter().any(|(id, _)| *id == watch)
    }

    /// `false` when there is no such watcher.
    pub fn remove(&mut self, watch: WatchId) -> bool {
        if let Some(at) = self.compacted.iter().position(|(id, _)| *id == watch) {
            self.compacted.remove(at);
            return true;
        }
        let Some(slot) = self.watchers.slot_of(watch) else {
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

    /// Appends what is there, about `max_bytes` of it over all watchers; `true` when there is more at once.
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
        let mut room = max_bytes.max(1);
        self.hand_out(&mut room, out);
        if self.under_way.is_some() {
            return Ok(true);
        }
        // Who falls behind below waits for the next drain, which the caller may run elsewhere.
        let catching_up = self.is_catching_up();
        // While some catch up they have half of each drain, or a busy stream would starve them.
        let kept_back = if catching_up { room / 2 } else { 0 };
        room -= kept_back;
        self.keep_up(&mut room, out)?;
        if catching_up && self.under_way.is_none() {
            self.catch_up(room + kept_back, out)?;
        }
        Ok(self.has_work())
    }

    /// Hands the next revisions to those that keep up.
    fn keep_up(&mut self, room: &mut usize, out: &mut Vec<Delivery>) -> Result<(), StoreError> {
        if *room == 0 {
            return Ok(());
        }
        self.take_window(*room);
        let window = std::mem::take(&mut self.window);
        for changes in &window {
            if *room == 0 || self.under_way.is_some() {
                self.put_back(changes.revision);
                break;
            }
            self.deliver(changes, Audience::KeepingUp, false, room, out)?;
        }
        self.recycle(window);
        Ok(())
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
        if !self.slow.is_empty() || !self.compacted.is_empty() || self.under_way.is_some() {
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
        if self.under_way.is_some() {
            return None;
        }
        let synced = self.synced();
        let watcher = self.watchers.get(self.watchers.slot_of(watch)?);
        (!watcher.slow && watcher.least_progress <= synced).then_some(synced)
    }

    fn synced(&mut self) -> Revision {
        let shared = Arc::clone(&self.shared);
        self.settle(&shared.lock());
        Revision(self.taken.0 - 1)
    }

    fn has_work(&self) -> bool {
        self.stream.signal.pending().is_some()
            || !self.slow.is_empty()
            || !self.compacted.is_empty()
            || self.under_way.is_some()
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

    /// Of what was taken from the ring, `from` and what follows found no room.
    fn put_back(&mut self, from: Revision) {
        let shared = Arc::clone(&self.shared);
        let _state = shared.lock();
        self.taken = from;
        self.stream.signal.set_pending(Some(from));
    }

    fn fall_behind(&mut self, from: Revision) {
        for slot in self.watchers.used_slots() {
            let watcher = self.watchers.get(slot);
            let next = watcher.next.max(from);
            if !watcher.slow && next < self.taken {
                self.make_slow(slot, next);
            }
        }
    }

    pub(super) fn make_slow(&mut self, slot: usize, next: Revision) {
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

    /// Keeps a window's memory for the next one.
    pub(super) fn recycle(&mut self, mut window: Vec<Arc<Changes>>) {
        window.clear();
        self.window = window;
    }
}

impl Drop for Subscriber {
    fn drop(&mut self) {
        for slot in self.watchers.used_slots() {
            self.remove_slot(slot);
        }
        self.shared.forget(self.stream.id);
    }
}

/// Reads the versions before `events` that nobody has read yet, all at once.
pub(super) fn read_previous(history: &dyn HistorySource, events: &[&Event]) -> Result<(), StoreError> {
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
