//! A history in a vector, and a hub above it.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering::SeqCst},
};

use parking_lot::Mutex;

use super::super::*;
use crate::{Head, ReadError, StoreError, keys::Version};

pub const REVISIONS_PER_SCAN: usize = 3;
/// A revision with more events comes in parts.
pub const EVENTS_PER_PART: usize = 4;
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
        from: Place,
        prev_kv: bool,
        _max_bytes: usize,
    ) -> Result<(Vec<Arc<Changes>>, Place), ReadError> {
        self.scans.fetch_add(1, SeqCst);
        let log = self.log.lock();
        if from.revision < log.compact_revision {
            return Err(ReadError::Compacted {
                compact_revision: log.compact_revision,
            });
        }
        let skipped = (from.revision.0 - 2).max(0) as usize;
        if skipped > log.changes.len() {
            return Err(ReadError::FutureRevision);
        }
        let mut found = vec![];
        let mut next = Place::from(Revision(2 + log.changes.len() as i64));
        for changes in log.changes[skipped..].iter().take(REVISIONS_PER_SCAN) {
            let first = if changes.revision == from.revision {
                from.sub as usize
            } else {
                0
            };
            let rest = &changes.events[first..];
            let is_part = rest.len() > EVENTS_PER_PART;
            if is_part && changes.revision != from.revision {
                next = changes.revision.into();
                break;
            }
            let part = &rest[..rest.len().min(EVENTS_PER_PART)];
            let events: Vec<Event> = part
                .iter()
                .filter(|event| range.contains(&event.kv.key))
                .map(copy)
                .collect();
            if prev_kv {
                self.read(&events);
            }
            if !events.is_empty() {
                found.push(Arc::new(Changes {
                    revision: changes.revision,
                    events,
                }));
            }
            next = match is_part {
                true => Place {
                    revision: changes.revision,
                    sub: (first + EVENTS_PER_PART) as u32,
                },
                false => changes.revision.next().into(),
            };
            if is_part {
                break;
            }
        }
        Ok((found, next))
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
    fn read(&self, events: &[Event]) {
        let events: Vec<&Event> = events.iter().filter(|event| event.prev.is_unread()).collect();
        let read = self.previous(&events).expect("it is in memory");
        for (event, kv) in events.iter().zip(read) {
            event.prev.keep(kv);
        }
    }

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

/// An event of the truth, and of what was delivered.
pub type Seen = (Revision, EventKind, Bytes);

pub fn seen(changes: &Changes, matched: &Matched) -> Vec<Seen> {
    matched
        .events(changes)
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
