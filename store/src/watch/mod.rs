//! Watches: one ordered sequence of changes, a cursor per watcher.
//!
//! `Applier` publishes each revision's [`Changes`] into the [`Hub`]'s ring after the batch is visible. A
//! [`Subscriber`] stands for one stream (one connection's worth of watchers) and pulls what its watchers
//! match: from the ring when it is near the head, from the history on disk when it is not.
//!
//! A slow stream costs a cursor, not a buffer; a stream that nothing concerned costs not even a wake-up. The
//! hub never waits for a stream, never drops an event, and knows nothing of wire formats or tasks.

mod catch_up;
mod hand_out;
mod hub;
mod interest;
mod previous;
mod range_tree;
mod ring;
mod subscriber;
#[cfg(test)]
mod tests;
mod watchers;

use std::{
    ops::Range,
    sync::{Arc, OnceLock},
};

use bytes::Bytes;

pub use hub::{Hub, HubMetrics};
pub use previous::Previous;
pub use subscriber::Subscriber;
use subscriber::read_previous;

use crate::{KeyRange, KeyValue, ReadError, Revision, StoreError};

/// Everything one main revision changed, in sub-revision order; or, out of the history, the part of it that was asked
/// for.
#[derive(Debug)]
pub struct Changes {
    pub revision: Revision,
    pub events: Vec<Event>,
}

/// One change of one key.
#[derive(Debug)]
pub struct Event {
    pub kind: EventKind,
    /// Of a deletion: key and mod_revision only.
    pub kv: KeyValue,
    /// The version before this revision.
    pub prev: Previous,
    pub encodings: Encodings,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EventKind {
    Put,
    Delete,
}

/// Wire forms of an event, made once by whoever needs one first and shared by all watchers.
#[derive(Debug, Default)]
pub struct Encodings {
    /// An encoded `mvccpb.Event`, without and with `prev_kv`, which must have been read before.
    pub etcd: OnceLock<Bytes>,
    pub etcd_with_prev: OnceLock<Bytes>,
    /// A Kubernetes watch frame in JSON by how the selector sees it: ADDED, MODIFIED, DELETED.
    pub kubernetes: [OnceLock<Bytes>; 3],
}

/// Chosen by the caller; unique within a subscriber.
pub type WatchId = i64;

#[derive(Debug, Clone)]
pub struct WatchSpec {
    pub id: WatchId,
    pub range: KeyRange,
    /// The first revision wanted; 0: the next one.
    pub start: Revision,
    pub no_put: bool,
    pub no_delete: bool,
    /// Every event comes with the version before it read, unless that is compacted.
    pub prev_kv: bool,
}

/// What a subscriber has for its stream, in the order in which it must be sent.
#[derive(Debug)]
pub enum Delivery {
    /// Events of one revision for one watcher.
    Events {
        watch: WatchId,
        changes: Arc<Changes>,
        matched: Matched,
        /// More of this revision follows, before anything else for this watcher; at its end there may be no event.
        is_part: bool,
    },
    /// The watcher's next revision is compacted; it is gone from the subscriber.
    Compacted {
        watch: WatchId,
        compact_revision: Revision,
    },
}

/// Which events of a revision concern a watcher, in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Matched {
    All,
    /// Of their numbers. A deletion goes in key order, so a range of keys is one run however many it deletes.
    Runs(Box<[Range<u32>]>),
}

/// A place in the sequence of changes: before the change number `sub` of `revision`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    pub revision: Revision,
    pub sub: u32,
}

/// Where events are read that the ring no longer holds.
///
/// Hub and subscribers keep the source alive, so a source must not hold the hub.
pub trait HistorySource: Send + Sync {
    /// As [`Reader::history`](crate::Reader::history), on a view that is at least as new as the last head
    /// published to the hub; with the versions before the events read, if they are asked for.
    fn history(
        &self,
        range: &KeyRange,
        from: Place,
        prev_kv: bool,
        max_bytes: usize,
    ) -> Result<(Vec<Arc<Changes>>, Place), ReadError>;

    /// As [`Reader::previous`](crate::Reader::previous), on such a view.
    fn previous(&self, events: &[&Event]) -> Result<Vec<Option<KeyValue>>, StoreError>;
}

impl Changes {
    /// What this costs in memory, roughly: a value counts twice, for it is encoded once for the wire.
    pub(crate) fn weight(&self) -> usize {
        size_of::<Self>() + self.events.iter().map(Event::weight).sum::<usize>()
    }
}

impl Matched {
    pub fn events<'c>(&'c self, changes: &'c Changes) -> impl Iterator<Item = &'c Event> {
        let (all, runs): (_, &[Range<u32>]) = match self {
            Matched::All => (&*changes.events, &[]),
            Matched::Runs(runs) => (&[], runs),
        };
        let run = |run: &Range<u32>| &changes.events[run.start as usize..run.end as usize];
        all.iter().chain(runs.iter().flat_map(run))
    }
}

impl Place {
    pub const fn start_of(revision: Revision) -> Self {
        Self { revision, sub: 0 }
    }
}

impl From<Revision> for Place {
    fn from(revision: Revision) -> Self {
        Self::start_of(revision)
    }
}

impl Event {
    /// What it costs on its way to one watcher, roughly.
    pub(crate) fn cost(&self, prev_kv: bool) -> usize {
        let prev = self.prev.get().filter(|_| prev_kv);
        EVENT_COST + self.kv.size() + prev.map_or(0, KeyValue::size)
    }

    pub(crate) fn weight(&self) -> usize {
        size_of::<Self>() + 2 * (self.kv.size() + self.prev.weight())
    }
}

/// Of an event beside key and value: its place in a response, and its numbers there.
const EVENT_COST: usize = 64;
