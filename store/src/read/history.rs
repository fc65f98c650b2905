//! Events of the past: `log` walked in order, its values fetched in batches from `cur` and `hist`.
//!
//! The versions before the events are fetched for those who ask, by [`Keyspace::previous`].

use std::sync::Arc;

use bytes::Bytes;

use super::Keyspace;
use crate::{
    KeyRange, KeyValue, ReadError, Revision, StoreError,
    codec::{self, LogOp, LogRow},
    keys::{self, Version},
    kv::{Bounds, Cursor, Family},
    watch::{Changes, Encodings, Event, EventKind, Previous},
};

/// Changes whose values are fetched together; a revision is never divided.
const WINDOW_CHANGES: usize = 64;

/// Changes looked at per call, matching or not, so that a narrow range does not walk the whole log at once.
const CALL_CHANGES: usize = 20_000;

/// A change of interest, before its values are there.
struct Change {
    at: Version,
    op: LogOp,
    prev: Option<Version>,
    key: Bytes,
}

impl Keyspace<'_> {
    /// See [`Reader::history`](crate::Reader::history).
    pub fn history(
        &self,
        range: &KeyRange,
        from: Revision,
        max_bytes: usize,
    ) -> Result<(Vec<Arc<Changes>>, Revision), ReadError> {
        self.check_retained(from)?;
        let start = Version::first_of(from.0).to_bytes();
        let end = Version::last_of(self.revision).to_bytes();
        let after_head = Revision(from.0.max(self.revision + 1));
        if from.0 > self.revision {
            return Ok((Vec::new(), after_head));
        }
        let mut log = self.view.cursor(Family::Log, Bounds::new(&start, Some(&end)))?;
        let mut history = Vec::new();
        let mut bytes = 0;
        let mut looked_at = 0;
        loop {
            let (window, next) = next_window(&mut *log, range, &mut looked_at)?;
            for changes in self.resolve_window(window)? {
                bytes += size(&changes);
                history.push(Arc::new(changes));
            }
            match next {
                None => return Ok((history, after_head)),
                Some(next) if bytes >= max_bytes || looked_at >= CALL_CHANGES => return Ok((history, next)),
                Some(_) => {}
            }
        }
    }

    fn resolve_window(&self, window: Vec<Change>) -> Result<Vec<Changes>, StoreError> {
        let mut rows = self.put_rows(&window)?.into_iter();
        let mut history: Vec<Changes> = Vec::new();
        for change in window {
            let revision = change.at.revision();
            if history.last().is_none_or(|last| last.revision != revision) {
                history.push(Changes {
                    revision,
                    events: Vec::new(),
                });
            }
            let events = history
                .last_mut()
                .map(|last| &mut last.events)
                .expect("pushed above");
            let prev = match earlier_in_revision(events, &change) {
                // Contract line 25: the version before is that of the revision before.
                Some(earlier) => earlier.prev.clone(),
                None => self
                    .readable_prev(&change)
                    .map_or(Previous::NONE, |version| Previous::stored(version, 0)),
            };
            let event = match change.op {
                LogOp::Put => put_event(change, rows.next().flatten(), prev)?,
                LogOp::Delete => delete_event(change.key, revision, prev),
            };
            events.push(event);
        }
        Ok(history)
    }

    /// The records of the puts.
    fn put_rows(&self, window: &[Change]) -> Result<Vec<Option<Bytes>>, StoreError> {
        let puts = window.iter().filter(|change| change.op == LogOp::Put);
        let wanted: Vec<_> = puts.map(|change| (change.key.clone(), change.at)).collect();
        self.versions(&wanted)
    }

    /// See [`Reader::previous`](crate::Reader::previous).
    pub fn previous(&self, events: &[&Event]) -> Result<Vec<Option<KeyValue>>, StoreError> {
        let version = |event: &Event| {
            let retained = event.kv.mod_revision.0 > self.compact_revision;
            event.prev.unread().filter(|_| retained)
        };
        let wanted: Vec<_> = events
            .iter()
            .filter_map(|event| Some((event.kv.key.clone(), version(event)?)))
            .collect();
        let mut rows = self.versions(&wanted)?.into_iter();
        let read = |event: &&Event| {
            let Some(version) = version(event) else {
                return Ok(None);
            };
            let key = event.kv.key.clone();
            let row = rows.next().flatten().ok_or_else(|| lost(&key, version))?;
            codec::key_value(key, &row).map(Some)
        };
        events.iter().map(read).collect()
    }

    /// The state before a change can be read when its revision, the one before, is not compacted.
    fn readable_prev(&self, change: &Change) -> Option<Version> {
        change.prev.filter(|_| change.at.main > self.compact_revision)
    }
}

/// Another change of the same key in the same revision; looked for only where there can be one.
fn earlier_in_revision<'e>(events: &'e [Event], change: &Change) -> Option<&'e Event> {
    let possible = change.prev.is_none_or(|prev| prev.main == change.at.main);
    events.iter().find(|event| possible && event.kv.key == change.key)
}

/// Takes changes from `log` until a revision's end with enough of them; and the revision that it stands at
/// then, `None` at the log's end.
fn next_window(
    log: &mut dyn Cursor,
    range: &KeyRange,
    looked_at: &mut usize,
) -> Result<(Vec<Change>, Option<Revision>), StoreError> {
    let mut window: Vec<Change> = Vec::new();
    let mut last = None;
    while let Some((row, value)) = log.row() {
        let at = keys::split_log(row)?;
        let enough = window.len() >= WINDOW_CHANGES || *looked_at >= CALL_CHANGES;
        if enough && last.is_some_and(|last| last != at.main) {
            return Ok((window, Some(at.revision())));
        }
        let change = LogRow::decode(value)?;
        if range.contains(change.key) {
            let key = Bytes::copy_from_slice(change.key);
            window.push(Change {
                at,
                op: change.op,
                prev: change.prev,
                key,
            });
        }
        last = Some(at.main);
        *looked_at += 1;
        log.advance()?;
    }
    Ok((window, None))
}

fn put_event(change: Change, row: Option<Bytes>, prev: Previous) -> Result<Event, StoreError> {
    let row = row.ok_or_else(|| lost(&change.key, change.at))?;
    let kv = codec::key_value(change.key, &row)?;
    Ok(Event {
        kind: EventKind::Put,
        kv,
        prev,
        encodings: Encodings::default(),
    })
}

fn lost(key: &Bytes, version: Version) -> StoreError {
    StoreError::Corrupt {
        what: "history",
        detail: format!("{key:?} has no version {version:?}, though it is retained"),
    }
}

/// Of a deletion only key and revision are told.
pub fn delete_event(key: Bytes, revision: Revision, prev: Previous) -> Event {
    let kv = KeyValue {
        key,
        mod_revision: revision,
        ..KeyValue::default()
    };
    Event {
        kind: EventKind::Delete,
        kv,
        prev,
        encodings: Encodings::default(),
    }
}

fn size(changes: &Changes) -> usize {
    let of = |event: &Event| event.kv.key.len() + event.kv.value.len();
    changes.events.iter().map(of).sum()
}
