//! Watches: one ordered sequence of changes, a cursor per watcher.
//!
//! `Applier` publishes each revision's [`Changes`] into the [`Hub`]'s ring after the batch is visible. A
//! [`Subscriber`] stands for one stream (one connection's worth of watchers) and pulls what its watchers
//! match: from the ring when it is near the head, from the history on disk when it is not.
//!
//! A slow stream costs a cursor, not a buffer; a stream that nothing concerned costs not even a wake-up. The
//! hub never waits for a stream, never drops an event, and knows nothing of wire formats or tasks.

mod catch_up;
mod hub;
mod interest;
mod previous;
mod range_tree;
mod ring;
mod subscriber;
#[cfg(test)]
mod tests;

use std::sync::{Arc, OnceLock};

use bytes::Bytes;

pub use hub::{Hub, HubMetrics};
pub use previous::Previous;
pub use subscriber::Subscriber;

use crate::{KeyRange, KeyValue, ReadError, Revision, StoreError};

/// Everything one main revision changed, in sub-revision order.
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
    /// Events of one revision for one watcher: `changes.events[i]` for each `i` in `matched`.
    Events {
        watch: WatchId,
        changes: Arc<Changes>,
        matched: Matched,
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
    Some(Vec<u32>),
}

/// Where events are read that the ring no longer holds.
///
/// Hub and subscribers keep the source alive, so a source must not hold the hub.
pub trait HistorySource: Send + Sync {
    /// As [`Reader::history`](crate::Reader::history), on a view that is at least as new as the last head
    /// published to the hub.
    fn history(
        &self,
        range: &KeyRange,
        from: Revision,
        max_bytes: usize,
    ) -> Result<(Vec<Arc<Changes>>, Revision), ReadError>;

    /// As [`Reader::previous`](crate::Reader::previous), on such a view.
    fn previous(&self, events: &[&Event]) -> Result<Vec<Option<KeyValue>>, StoreError>;
}

impl Changes {
    /// What this costs in memory, roughly: a value counts twice, for it is encoded once for the wire.
    pub(crate) fn weight(&self) -> usize {
        size_of::<Self>() + self.events.iter().map(Event::weight).sum::<usize>()
    }
}

impl Event {
    pub(crate) fn weight(&self) -> usize {
        size_of::<Self>() + 2 * (self.kv.key.len() + self.kv.value.len() + self.prev.weight())
    }
}
