//! Writing one change of one key: `cur`, `hist`, `log`, the indexes, the count and the event together.

use bytes::Bytes;

use super::{Machine, doomed::Doomed};
use crate::{
    IndexTerm, KeyValue, LeaseId, StoreError,
    codec::{self, LogOp, LogRow, Record},
    keys::{self, Version},
    kv::Family,
    live, mover,
    read::delete_event,
    state_hash::Effect,
    watch::{Encodings, Event, EventKind, Previous},
};

/// The newest version of a key before a put.
pub struct Newest {
    pub row: Bytes,
    pub kv: KeyValue,
    modified: Version,
}

impl Newest {
    pub fn new(key: Bytes, row: Bytes) -> Result<Self, StoreError> {
        let modified = Record::decode(&row)?.modified;
        Ok(Self {
            kv: codec::key_value(key, &row)?,
            row,
            modified,
        })
    }
}

impl Machine {
    /// Writes `kv` as the next version of its key. Revision and sub-revision are filled in here; what is
    /// stored and published is copied out of the command once.
    pub(super) fn write_put(&mut self, kv: KeyValue, old: Option<&Newest>) -> Result<(), StoreError> {
        let at = self.next_version();
        let key = Bytes::copy_from_slice(&kv.key);
        let created = old.map_or(at.revision(), |old| old.kv.create_revision);
        let version = old.map_or(1, |old| old.kv.version + 1);
        let kv = KeyValue {
            create_revision: created,
            mod_revision: at.revision(),
            version,
            ..kv
        };
        let record = codec::encode_record(&kv, at.sub)?;
        let kv = codec::key_value(key.clone(), &record)?;
        match old {
            Some(old) => self.supersede(&key, old.modified, &old.row, at),
            None => {
                self.move_ended(&key)?;
                self.recount(&key, true);
            }
        }
        self.move_lease(&key, old.map_or(LeaseId(0), |old| old.kv.lease), kv.lease);
        self.move_terms(&key, old.map_or(&[], |old| &old.kv.terms), &kv.terms);
        self.overlay.put(Family::Cur, key.clone(), record.clone());
        let before = old.map_or(Previous::NONE, |old| {
            Previous::of(&old.kv, old.modified, old.row.len())
        });
        let event = Event {
            kind: EventKind::Put,
            kv,
            prev: self.version_before(&key, before),
            encodings: Encodings::default(),
        };
        self.log_change(at, LogOp::Put, old.map(|old| old.modified), event, &record)
    }

    pub(super) fn write_delete(&mut self, old: Doomed) -> Result<(), StoreError> {
        let at = self.next_version();
        let row = self.end_row(&old, at)?;
        self.recount(&old.key, false);
        self.move_lease(&old.key, old.lease, LeaseId(0));
        self.move_terms(&old.key, &old.terms()?, &[]);
        let before = match row {
            Some(row) => Previous::of(&codec::key_value(old.key.clone(), &row)?, old.modified, row.len()),
            None => Previous::stored(old.modified, old.row_bytes),
        };
        let prev = self.version_before(&old.key, before);
        let event = delete_event(old.key, at.revision(), prev);
        self.log_change(at, LogOp::Delete, Some(old.modified), event, &[])
    }

    fn next_version(&self) -> Version {
        let sub = u32::try_from(self.command.changes.len()).expect("fewer than 2^32 changes in one command");
        Version::new(self.state.revision + 1, sub)
    }

    fn supersede(&mut self, key: &[u8], modified: Version, record: &[u8], at: Version) {
        let row = codec::encode_hist(at, record);
        self.overlay.put(Family::Hist, keys::hist(key, modified), row);
    }

    /// Ends the row of a deleted key: moves it to `hist` while this apply has moved little, and else leaves it where it
    /// is for the mover. Returns the row if it is at hand.
    fn end_row(&mut self, old: &Doomed, at: Version) -> Result<Option<Bytes>, StoreError> {
        if old.row_bytes > self.may_move {
            self.overlay
                .put(Family::Ended, old.key.clone(), live::encode_end(at));
            self.ended += 1;
            return Ok(old.row.clone());
        }
        self.may_move -= old.row_bytes;
        let row = match &old.row {
            Some(row) => row.clone(),
            None => mover::row_to_end(&self.overlay, &old.key)?,
        };
        self.supersede(&old.key, old.modified, &row, at);
        self.overlay.delete(Family::Cur, old.key.clone());
        Ok(Some(row))
    }

    /// Makes room for a new row of a key whose last one was ended, but not moved yet.
    fn move_ended(&mut self, key: &Bytes) -> Result<(), StoreError> {
        let Some(end) = self.live().end_of(key)? else {
            return Ok(());
        };
        let record = mover::row_to_end(&self.overlay, key)?;
        if let Some(hist) = mover::superseded(key, &record, end, self.state.compact_revision)? {
            self.overlay.put(Family::Hist, hist.key, hist.row);
        }
        self.overlay.delete(Family::Ended, key.clone());
        self.ended -= 1;
        Ok(())
    }

    fn move_lease(&mut self, key: &[u8], from: LeaseId, to: LeaseId) {
        if from == to {
            return;
        }
        if from != LeaseId(0) {
            self.overlay.delete(Family::LeaseKey, keys::lease_key(from, key));
        }
        if to != LeaseId(0) {
            self.overlay
                .put(Family::LeaseKey, keys::lease_key(to, key), Bytes::new());
        }
    }

    fn move_terms(&mut self, key: &[u8], from: &[IndexTerm], to: &[IndexTerm]) {
        if from == to {
            return;
        }
        for term in from.iter().filter(|term| !to.contains(term)) {
            self.overlay.delete(Family::Idx, keys::idx(term, key));
        }
        for term in to.iter().filter(|term| !from.contains(term)) {
            self.overlay.put(Family::Idx, keys::idx(term, key), Bytes::new());
        }
    }

    /// Contract line 25: the state at the revision before, also when this revision changed the key already.
    fn version_before(&mut self, key: &Bytes, old: Previous) -> Previous {
        match &mut self.command.before_txn {
            Some(before) => before.entry(key.clone()).or_insert(old).clone(),
            None => old,
        }
    }

    /// Of a deletion the record is empty.
    fn log_change(
        &mut self,
        at: Version,
        op: LogOp,
        prev: Option<Version>,
        event: Event,
        record: &[u8],
    ) -> Result<(), StoreError> {
        debug_assert_eq!(event.kv.mod_revision, at.revision());
        let log_key = keys::log(at);
        let log_row = LogRow {
            op,
            prev,
            key: &event.kv.key,
        }
        .encode()?;
        self.hash.absorb(Effect::Change, &[&log_key, &log_row, record]);
        self.overlay.put(Family::Log, log_key, log_row);
        self.command.changes.push(event);
        Ok(())
    }
}
