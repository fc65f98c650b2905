//! The hub: head, ring and interest index under one short lock, and the signals that wake streams.
//!
//! Publishing walks the events once, marks each stream they concern with the first revision it has not been
//! given, and wakes those that had nothing pending before. A stream without a mark is up to date at the
//! published head, however long ago it was last woken.

use std::{
    cmp::Ordering,
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicI64, AtomicU64, Ordering::*},
    },
};

use atomic_waker::AtomicWaker;
use parking_lot::{Mutex, MutexGuard};

use super::{Changes, HistorySource, Subscriber, interest::Interest, ring::Ring};
use crate::{Head, Revision, planted};

/// The one ordered sequence of changes.
#[derive(Clone)]
pub struct Hub {
    shared: Arc<Shared>,
}

/// Figures for an operator.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct HubMetrics {
    pub subscribers: u64,
    pub watchers: u64,
    /// Watchers that are catching up from behind their stream.
    pub slow_watchers: u64,
    /// Events handed out since the start, counted once per watcher.
    pub events_delivered: u64,
    pub ring_bytes: u64,
    /// Revisions that the ring holds.
    pub ring_revisions: u64,
}

/// What hub and subscribers share.
pub(super) struct Shared {
    state: Mutex<State>,
    /// Held over a whole publish, which it serialises; scratch space for whom to wake.
    publishing: Mutex<Vec<Arc<Signal>>>,
    pub history: Arc<dyn HistorySource>,
    pub counters: Counters,
}

pub(super) struct State {
    pub head: Arc<Head>,
    pub ring: Ring,
    pub interest: Interest<Stream>,
    subscribers: BTreeMap<u64, Arc<Signal>>,
    next_subscriber: u64,
}

#[derive(Default)]
pub(super) struct Counters {
    pub watchers: AtomicU64,
    pub slow_watchers: AtomicU64,
    pub events_delivered: AtomicU64,
}

/// A subscriber as the interest index knows it.
#[derive(Clone)]
pub(super) struct Stream {
    pub id: u64,
    pub signal: Arc<Signal>,
}

/// How a publish reaches a subscriber.
pub(super) struct Signal {
    /// The first revision that may concern the subscriber and that it has not taken; [`NOTHING_PENDING`].
    /// Written only under the hub's lock.
    pending: AtomicI64,
    pub waker: AtomicWaker,
}

const NOTHING_PENDING: i64 = i64::MAX;

impl Hub {
    /// A hub whose next revision is the one after `head`.
    pub fn new(head: Arc<Head>, ring_bytes: usize, history: Arc<dyn HistorySource>) -> Self {
        let state = State {
            ring: Ring::new(head.revision.next(), ring_bytes),
            head,
            interest: Interest::new(),
            subscribers: BTreeMap::new(),
            next_subscriber: 0,
        };
        let shared = Shared {
            state: Mutex::new(state),
            publishing: Mutex::new(Vec::new()),
            history,
            counters: Counters::default(),
        };
        Self {
            shared: Arc::new(shared),
        }
    }

    /// Takes over what one apply changed: every revision after the last head up to `head`'s, in order.
    /// Without changes it publishes a new compact revision.
    ///
    /// `make_visible` lets readers and history see them, first: and in one with the head that watchers see,
    /// so that nobody who has read a revision can open a watch at an earlier head.
    pub fn publish(&self, head: Arc<Head>, changes: Vec<Arc<Changes>>, make_visible: impl FnOnce()) {
        let mut to_wake = self.shared.publishing.lock();
        let mut state = self.shared.lock();
        make_visible();
        state.append(head, changes, &mut to_wake);
        drop(state);
        wake(&mut to_wake);
    }

    /// A snapshot replaced the whole state: nothing in memory counts any more. Every stream goes on from the
    /// new history where it stood, or hears that it was compacted. `make_visible` as in [`Self::publish`].
    pub fn reset(&self, head: Arc<Head>, make_visible: impl FnOnce()) {
        let mut to_wake = self.shared.publishing.lock();
        let mut state = self.shared.lock();
        make_visible();
        state.replace(head, &mut to_wake);
        drop(state);
        wake(&mut to_wake);
    }

    /// The head as published to watchers.
    pub fn head(&self) -> Arc<Head> {
        Arc::clone(&self.shared.lock().head)
    }

    /// A stream's own cursor set; dropped, it leaves nothing behind.
    pub fn subscribe(&self) -> Subscriber {
        let signal = Arc::new(Signal {
            pending: AtomicI64::new(NOTHING_PENDING),
            waker: AtomicWaker::new(),
        });
        let mut state = self.shared.lock();
        let id = state.next_subscriber;
        state.next_subscriber += 1;
        state.subscribers.insert(id, Arc::clone(&signal));
        let next = state.head.revision.next();
        drop(state);
        Subscriber::new(Arc::clone(&self.shared), Stream { id, signal }, next)
    }

    pub fn metrics(&self) -> HubMetrics {
        let counters = &self.shared.counters;
        let state = self.shared.lock();
        HubMetrics {
            subscribers: state.subscribers.len() as u64,
            watchers: counters.watchers.load(Relaxed),
            slow_watchers: counters.slow_watchers.load(Relaxed),
            events_delivered: counters.events_delivered.load(Relaxed),
            ring_bytes: state.ring.bytes() as u64,
            ring_revisions: (state.ring.next().0 - state.ring.first().0) as u64,
        }
    }

    #[cfg(test)]
    pub(super) fn has_interests(&self) -> bool {
        !self.shared.lock().interest.is_empty()
    }
}

/// After the lock is released: a waker runs code of the executor.
fn wake(signals: &mut Vec<Arc<Signal>>) {
    for signal in signals.drain(..) {
        signal.waker.wake();
    }
}

impl Shared {
    pub fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock()
    }

    pub fn forget(&self, subscriber: u64) {
        self.lock().subscribers.remove(&subscriber);
    }
}

impl State {
    fn append(&mut self, head: Arc<Head>, changes: Vec<Arc<Changes>>, to_wake: &mut Vec<Arc<Signal>>) {
        for changes in changes {
            for event in &changes.events {
                self.interest.visit(&event.kv.key, &mut |stream| {
                    stream.signal.mark(changes.revision, to_wake);
                });
            }
            self.ring.push(changes);
        }
        assert_eq!(
            head.revision.next(),
            self.ring.next(),
            "the head is the last revision published"
        );
        assert!(
            head.compact_revision >= self.head.compact_revision,
            "compaction never goes back"
        );
        self.head = head;
    }

    fn replace(&mut self, head: Arc<Head>, to_wake: &mut Vec<Arc<Signal>>) {
        assert!(
            head.revision >= self.head.revision,
            "a snapshot never takes the keyspace back"
        );
        let missed = self.head.revision.next();
        for signal in self
            .subscribers
            .values()
            .filter(|_| !planted("watch-gap-at-snapshot"))
        {
            signal.mark(missed, to_wake);
        }
        self.ring.clear(head.revision.next());
        self.head = head;
    }
}

impl Signal {
    /// Under the hub's lock. Whoever has something pending was woken for it and has not come yet.
    fn mark(self: &Arc<Self>, revision: Revision, to_wake: &mut Vec<Arc<Signal>>) {
        if self.pending.load(Relaxed) == NOTHING_PENDING {
            self.pending.store(revision.0, Release);
            to_wake.push(Arc::clone(self));
        }
    }

    pub fn pending(&self) -> Option<Revision> {
        let revision = self.pending.load(Acquire);
        (revision != NOTHING_PENDING).then_some(Revision(revision))
    }

    /// Under the hub's lock.
    pub fn set_pending(&self, revision: Option<Revision>) {
        self.pending
            .store(revision.map_or(NOTHING_PENDING, |revision| revision.0), Release);
    }
}

impl PartialEq for Stream {
    fn eq(&self, other: &Self) -> bool {
        self.id == other.id
    }
}

impl Eq for Stream {}

impl PartialOrd for Stream {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Stream {
    fn cmp(&self, other: &Self) -> Ordering {
        self.id.cmp(&other.id)
    }
}
