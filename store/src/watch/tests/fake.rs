//! A history in a vector, and a hub above it.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering::SeqCst},
};

use parking_lot::Mutex;

use super::super::*;
use crate::{Head, ReadError, StoreError, keys::Version};

pub const REVISIONS_PER_SCAN: usize = 3;
/// Bytes of a large value.
pub const LARGE: usize = 1 << 20;

#[derive(Default)]
pub struct FakeHistory {
    log: Mutex<Log>,
    pub scans: AtomicUsize,
    /// Versions before events that were read.
    pub previous_reads: AtomicUsize,
}

#[derive(Default)]
struct Log {
    /// Revision 2 is the first.
    changes: Vec<Arc<Changes>>,
    compact_revision: Revision,
    epoch: u64,
}

/// The store's side: history and hub, written to by the test.
pub struct Cluster {
    pub history: Arc<FakeHistory>,
    pub hub: Hub,
}

impl HistorySource for FakeHistory {
    fn history(
        &self,
        range: &KeyRange,
        from: Revision,
        _max_bytes: usize,
    ) -> Result<(Vec<Arc<Changes>>, Revision), ReadError> {
        self.scans.fetch_add(1, SeqCst);
        let log = self.log.lock();
        if from < log.compact_revision {
            return Err(ReadError::Compacted {
                compact_revision: log.compact_revision,
            });
        }
        let skipped = (from.0 - 2).max(0) as usize;
        if skipped > log.changes.len() {
            return Err(ReadError::FutureRevision);
        }
        let looked_at: Vec<_> = log.changes[skipped..].iter().take(REVISIONS_PER_SCAN).collect();
        let next = looked_at
            .last()
            .map_or(Revision(2 + log.changes.len() as i64), |changes| {
                changes.revision.next()
            });
        let found = looked_at.into_iter().filter_map(|changes| {
            let events: Vec<Event> = changes
                .events
                .iter()
                .filter(|event| range.contains(&event.kv.key))
                .map(copy)
                .collect();
            (!events.is_empty()).then(|| {
                Arc::new(Changes {
                    revision: changes.revision,
                    events,
                })
            })
        });
        Ok((found.collect(), next))
    }

    fn previous(&self, events: &[&Event]) -> Result<Vec<Option<KeyValue>>, StoreError> {
        self.previous_reads.fetch_add(events.len(), SeqCst);
        let read = |event: &&Event| {
            event.prev.unread().map(|version| KeyValue {
                key: event.kv.key.clone(),
                mod_revision: version.revision(),
                ..KeyValue::default()
            })
        };
        Ok(events.iter().map(read).collect())
    }
}

impl Cluster {
    pub fn new(ring_bytes: usize) -> Self {
        let history = Arc::new(FakeHistory::default());
        let hub = Hub::new(
            history.head(),
            ring_bytes,
            Arc::clone(&history) as Arc<dyn HistorySource>,
        );
        Self { history, hub }
    }

    /// One revision: `+key` puts, `-key` deletes; `~key` puts over a large value of the revision before.
    pub fn write(&self, events: &[&str]) {
        let changes = self.history.append(events);
        self.hub.publish(self.history.head(), vec![changes], || {});
    }

    pub fn compact(&self, revision: i64) {
        self.history.compact(revision);
        self.hub.publish(self.history.head(), vec![], || {});
    }

    /// A snapshot with some revisions more than the state before it.
    pub fn replace_state(&self, revisions: &[&[&str]], compact_revision: i64) {
        for events in revisions {
            self.history.append(events);
        }
        self.history.compact(compact_revision);
        self.history.log.lock().epoch += 1;
        self.hub.reset(self.history.head(), || {});
    }
}

impl FakeHistory {
    pub fn head(&self) -> Arc<Head> {
        let log = self.log.lock();
        Arc::new(Head {
            revision: Revision(1 + log.changes.len() as i64),
            compact_revision: log.compact_revision,
            applied: None,
            epoch: log.epoch,
        })
    }

    pub fn append(&self, events: &[&str]) -> Arc<Changes> {
        let mut log = self.log.lock();
        let revision = Revision(2 + log.changes.len() as i64);
        let events = events.iter().map(|text| event(revision, text)).collect();
        let changes = Arc::new(Changes { revision, events });
        log.changes.push(Arc::clone(&changes));
        changes
    }

    pub fn compact(&self, revision: i64) {
        let mut log = self.log.lock();
        log.compact_revision = log.compact_revision.max(Revision(revision));
    }

    pub fn all(&self) -> Vec<Arc<Changes>> {
        self.log.lock().changes.clone()
    }
}

fn event(revision: Revision, text: &str) -> Event {
    let (sign, key) = text.split_at(1);
    let kv = KeyValue {
        key: Bytes::copy_from_slice(key.as_bytes()),
        mod_revision: revision,
        ..KeyValue::default()
    };
    let kind = if sign == "-" {
        EventKind::Delete
    } else {
        EventKind::Put
    };
    let prev = match sign {
        "~" => Previous::stored(Version::first_of(revision.0 - 1), LARGE),
        _ => Previous::NONE,
    };
    Event {
        kind,
        kv,
        prev,
        encodings: Encodings::default(),
    }
}

fn copy(event: &Event) -> Event {
    Event {
        kind: event.kind,
        kv: event.kv.clone(),
        prev: event.prev.clone(),
        encodings: Encodings::default(),
    }
}

pub fn range(key: &str, end: &str) -> KeyRange {
    KeyRange::from_etcd(
        Bytes::copy_from_slice(key.as_bytes()),
        Bytes::copy_from_slice(end.as_bytes()),
    )
}

pub fn spec(id: WatchId, range: KeyRange, start: i64) -> WatchSpec {
    WatchSpec {
        id,
        range,
        start: Revision(start),
        no_put: false,
        no_delete: false,
        prev_kv: false,
    }
}

pub fn events_of<'a>(changes: &'a Changes, matched: &'a Matched) -> Box<dyn Iterator<Item = &'a Event> + 'a> {
    match matched {
        Matched::All => Box::new(changes.events.iter()),
        Matched::Some(at) => Box::new(at.iter().map(|&at| &changes.events[at as usize])),
    }
}

/// An event of the truth, and of what was delivered.
pub type Seen = (Revision, EventKind, Bytes);

pub fn seen(changes: &Changes, matched: &Matched) -> Vec<Seen> {
    events_of(changes, matched)
        .map(|event| (changes.revision, event.kind, event.kv.key.clone()))
        .collect()
}

/// What `spec`, added when the head was `head`, must be given in the end.
pub fn expected(all: &[Arc<Changes>], spec: &WatchSpec, head: Revision) -> Vec<Seen> {
    let start = if spec.start == Revision(0) {
        head.next()
    } else {
        spec.start
    };
    let wanted = |event: &&Event| {
        let filtered = if event.kind == EventKind::Put {
            spec.no_put
        } else {
            spec.no_delete
        };
        spec.range.contains(&event.kv.key) && !filtered
    };
    all.iter()
        .filter(|changes| changes.revision >= start)
        .flat_map(|changes| {
            changes
                .events
                .iter()
                .filter(wanted)
                .map(|e| (changes.revision, e.kind, e.kv.key.clone()))
        })
        .collect()
}
