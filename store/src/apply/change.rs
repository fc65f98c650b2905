//! Writing one change of one key: `cur`, `hist`, `log`, the indexes, the count and the event together.

use bytes::Bytes;

use super::Machine;
use crate::{
    IndexTerm, KeyValue, LeaseId, Revision, StoreError,
    codec::{self, LogOp, LogRow, Record},
    keys::{self, Version},
    kv::Family,
    read::delete_event,
    state_hash::{Effect, EntryHash},
    watch::{Encodings, Event, EventKind, Previous},
};

/// A change that the command under way has written.
pub struct Written {
    pub event: Event,
    log_key: Bytes,
    log_row: Bytes,
    /// Of a put.
    record: Option<Bytes>,
}

impl Written {
    pub fn hash_into(&self, hash: &mut EntryHash) {
        hash.absorb(
            Effect::Change,
            &[
                &self.log_key,
                &self.log_row,
                self.record.as_deref().unwrap_or_default(),
            ],
        );
    }
}

/// The newest version of a key before a change.
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
            Some(old) => self.supersede(&key, old, at),
            None => self.count_change(&key, true),
        }
        self.move_lease(&key, old.map_or(LeaseId(0), |old| old.kv.lease), kv.lease);
        self.move_terms(&key, old.map_or(&[], |old| &old.kv.terms), &kv.terms);
        self.overlay.put(Family::Cur, key.clone(), record.clone());
        let prev = self.version_before(&key, old);
        let event = Event {
            kind: EventKind::Put,
            kv,
            prev,
            encodings: Encodings::default(),
        };
        self.log_change(at, LogOp::Put, old, event, Some(record))
    }

    pub(super) fn write_delete(&mut self, old: &Newest) -> Result<(), StoreError> {
        let at = self.next_version();
        let key = &old.kv.key;
        self.supersede(key, old, at);
        self.count_change(key, false);
        self.move_lease(key, old.kv.lease, LeaseId(0));
        self.move_terms(key, &old.kv.terms, &[]);
        self.overlay.delete(Family::Cur, key.clone());
        let prev = self.version_before(key, Some(old));
        let event = delete_event(key.clone(), at.revision(), prev);
        self.log_change(at, LogOp::Delete, Some(old), event, None)
    }

    fn next_version(&self) -> Version {
        let sub = u32::try_from(self.command.changes.len()).expect("fewer than 2^32 changes in one command");
        Version::new(self.state.revision + 1, sub)
    }

    fn supersede(&mut self, key: &[u8], old: &Newest, at: Version) {
        self.overlay.put(
            Family::Hist,
            keys::hist(key, old.modified),
            codec::encode_hist(at, &old.row),
        );
    }

    fn count_change(&mut self, key: &Bytes, came: bool) {
        self.recount(key, came);
        self.command.counted.push((key.clone(), came));
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
    fn version_before(&mut self, key: &Bytes, old: Option<&Newest>) -> Previous {
        let old = old.map_or(Previous::NONE, |old| {
            Previous::of(&old.kv, old.modified, old.row.len())
        });
        match &mut self.command.before_txn {
            Some(before) => before.entry(key.clone()).or_insert(old).clone(),
            None => old,
        }
    }

    fn log_change(
        &mut self,
        at: Version,
        op: LogOp,
        old: Option<&Newest>,
        event: Event,
        record: Option<Bytes>,
    ) -> Result<(), StoreError> {
        debug_assert_eq!(event.kv.mod_revision, Revision(at.main));
        let log_key = keys::log(at);
        let log_row = LogRow {
            op,
            prev: old.map(|old| old.modified),
            key: &event.kv.key,
        }
        .encode()?;
        self.overlay.put(Family::Log, log_key.clone(), log_row.clone());
        self.command.changes.push(Written {
            event,
            log_key,
            log_row,
            record,
        });
        Ok(())
    }
}
