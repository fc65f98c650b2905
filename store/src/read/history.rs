//! Events of the past: `log` walked in order, its values fetched in batches from `cur` and `hist`.
//!
//! The versions before the events are fetched for those who ask alone. A call ends at a revision's end, but for a
//! revision that is too large by itself: that one is read in parts, each of about [`PART_BYTES`].

use std::sync::Arc;

use bytes::Bytes;

use super::Keyspace;
use crate::{
    KeyRange, KeyValue, ReadError, Revision, StoreError,
    codec::{self, LogOp, LogRow, Record},
    keys::{self, Version},
    kv::{Bounds, Cursor, Family},
    watch::{Changes, Encodings, Event, EventKind, Place, Previous},
};

/// Changes whose values are fetched together at most: the largest values there are may be in all of them.
const WINDOW_CHANGES: usize = 16;

/// Changes looked at per call, matching or not, so that a narrow range does not walk the whole log at once.
const CALL_CHANGES: usize = 20_000;

/// What a revision may cost before it is divided.
const PART_BYTES: usize = 1 << 20;

/// A change of interest, before its values are there.
struct Change {
    at: Version,
    op: LogOp,
    prev: Option<Version>,
    key: Bytes,
}

/// One call under way.
struct Walk<'v> {
    keyspace: Keyspace<'v>,
    log: Box<dyn Cursor + 'v>,
    from: Place,
    prev_kv: bool,
    found: Vec<Changes>,
    /// What was found costs so much.
    bytes: usize,
    looked_at: usize,
    /// The revision of the last change looked at.
    last: i64,
}

impl<'v> Keyspace<'v> {
    /// The events of `range` from `from` on, oldest first, stopping after about `max_bytes` or a bounded number of changes
    /// looked at (then there may be no event at all), with the place where to go on. That is the start of a revision, or
    /// lies inside of `from`'s.
    pub fn history(
        self,
        range: &KeyRange,
        from: Place,
        prev_kv: bool,
        max_bytes: usize,
    ) -> Result<(Vec<Arc<Changes>>, Place), ReadError> {
        self.check_retained(from.revision)?;
        let after_head = Place::start_of(Revision(from.revision.0.max(self.revision + 1)));
        if from.revision.0 > self.revision {
            return Ok((Vec::new(), after_head));
        }
        let start = Version::new(from.revision.0, from.sub).to_bytes();
        let end = Version::last_of(self.revision).to_bytes();
        let mut walk = Walk {
            keyspace: self,
            log: self.view.cursor(Family::Log, Bounds::new(&start, Some(&end)))?,
            from,
            prev_kv,
            found: Vec::new(),
            bytes: 0,
            looked_at: 0,
            last: 0,
        };
        let next = walk.run(range, max_bytes)?.unwrap_or(after_head);
        Ok((walk.found.into_iter().map(Arc::new).collect(), next))
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
}

impl Walk<'_> {
    /// Where the call ends; `None`: at the log's end.
    fn run(&mut self, range: &KeyRange, max_bytes: usize) -> Result<Option<Place>, StoreError> {
        // Doubled while values are small: nothing says how large they are before they are read.
        let mut window_changes = 1;
        loop {
            let is_enough = self.bytes >= max_bytes || self.looked_at >= CALL_CHANGES;
            let (window, next) = self.next_window(range, window_changes, is_enough)?;
            let before = self.bytes;
            self.resolve(window)?;
            window_changes = match self.bytes - before {
                small if small <= PART_BYTES / 4 => (2 * window_changes).min(WINDOW_CHANGES),
                _ => 1,
            };
            let Some(next) = next else { return Ok(None) };
            let is_inside = next.main == self.last;
            if !is_inside && (is_enough || self.bytes >= max_bytes || self.looked_at >= CALL_CHANGES) {
                return Ok(Some(Place::start_of(next.revision())));
            }
            if is_inside && self.bytes >= max_bytes.max(PART_BYTES) {
                return Ok(Some(self.divide(next)));
            }
        }
    }

    /// The call ends before the change `next`, inside of a revision. One that it did not start with is left to the next
    /// call, which may have room for all of it.
    fn divide(&mut self, next: Version) -> Place {
        let revision = next.revision();
        if revision == self.from.revision {
            return Place {
                revision,
                sub: next.sub,
            };
        }
        self.found.pop_if(|changes| changes.revision == revision);
        Place::start_of(revision)
    }

    /// Takes up to so many changes of `range` from the log, or those up to the revision's end when there `is_enough`; and
    /// the change that the log stands at then, `None` at its end.
    fn next_window(
        &mut self,
        range: &KeyRange,
        changes: usize,
        is_enough: bool,
    ) -> Result<(Vec<Change>, Option<Version>), StoreError> {
        let mut window: Vec<Change> = Vec::new();
        while let Some((row, value)) = self.log.row() {
            let at = keys::split_log(row)?;
            let at_end = (is_enough || self.looked_at >= CALL_CHANGES) && at.main != self.last;
            if window.len() >= changes || (at_end && self.looked_at > 0) {
                return Ok((window, Some(at)));
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
            self.last = at.main;
            self.looked_at += 1;
            self.log.advance()?;
        }
        Ok((window, None))
    }

    /// Turns changes into events, and adds them to what was found.
    fn resolve(&mut self, window: Vec<Change>) -> Result<(), StoreError> {
        let puts = window.iter().filter(|change| change.op == LogOp::Put);
        let wanted: Vec<_> = puts.map(|change| (change.key.clone(), change.at)).collect();
        let mut rows = self.keyspace.versions(&wanted)?.into_iter();
        let mut events = Vec::with_capacity(window.len());
        for change in window {
            let prev = self.version_before(&change, &events)?;
            events.push(match change.op {
                LogOp::Put => put_event(change, rows.next().flatten(), prev)?,
                LogOp::Delete => delete_event(change.key, change.at.revision(), prev),
            });
        }
        if self.prev_kv {
            let read = self.keyspace.previous(&events.iter().collect::<Vec<_>>())?;
            for (event, kv) in events.iter().zip(read) {
                event.prev.keep(kv);
            }
        }
        for event in events {
            self.add(event);
        }
        Ok(())
    }

    fn add(&mut self, event: Event) {
        self.bytes += event.cost(self.prev_kv);
        let revision = event.kv.mod_revision;
        match self.found.last_mut() {
            Some(last) if last.revision == revision => last.events.push(event),
            _ => self.found.push(Changes {
                revision,
                events: vec![event],
            }),
        }
    }

    /// The state before a change can be read when its revision, the one before, is not compacted. Contract line 25: it is
    /// that of the revision before, also when this revision changed the key already, which is looked for only where it can be.
    fn version_before(&self, change: &Change, window: &[Event]) -> Result<Previous, StoreError> {
        let revision = change.at.revision();
        if revision.0 <= self.keyspace.compact_revision {
            return Ok(Previous::NONE);
        }
        let stored = |version| Previous::stored(version, 0);
        if let Some(prev) = change.prev.filter(|prev| prev.main != revision.0) {
            return Ok(stored(prev));
        }
        let found = self.found.last().filter(|last| last.revision == revision);
        let mut earlier = found.iter().flat_map(|last| &last.events).chain(window);
        if let Some(earlier) =
            earlier.find(|event| event.kv.mod_revision == revision && event.kv.key == change.key)
        {
            return Ok(earlier.prev.clone());
        }
        if self.from.sub == 0 || revision != self.from.revision {
            return Ok(Previous::NONE);
        }
        // An earlier part of the revision may have it.
        let row = self.keyspace.superseded_row_at(&change.key, revision.0 - 1)?;
        let record = row.as_deref().map(Record::decode).transpose()?;
        Ok(record.map_or(Previous::NONE, |record| stored(record.modified)))
    }
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
