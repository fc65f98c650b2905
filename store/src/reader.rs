//! Reads over one consistent view.
//!
//! [`Reader`] holds the view that was published with its [`Head`]; what it answers never changes. The reads
//! themselves are in `read/`.

use std::{ops::ControlFlow, sync::Arc};

use barque_proto::command::Range;
use bytes::Bytes;

use crate::{
    Head, IndexTerm, KeyRange, KeyValue, LeaseId, ReadError, Revision, StoreError, codec,
    damage::Damage,
    read::Keyspace,
    store::Published,
    watch::{Changes, Event, Place},
};

/// A consistent view of the keyspace at one head. Holding it pins old files on disk: keep it short.
#[derive(Clone)]
pub struct Reader {
    published: Arc<Published>,
    damage: Arc<Damage>,
}

/// Keys found by a range, etcd's way.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RangeResult {
    /// The keyspace's revision, not the one that was read at (contract line 4).
    pub revision: Revision,
    pub kvs: Vec<KeyValue>,
    /// Cut by the limit.
    pub more: bool,
    /// Keys in the range at the revision read, whatever the limit and the revision filters.
    pub count: i64,
}

/// One row of a scan, borrowed from the view.
pub struct ScanRow<'a> {
    pub key: &'a [u8],
    pub value: &'a [u8],
    pub mod_revision: Revision,
    pub create_revision: Revision,
    pub version: i64,
    pub lease: LeaseId,
    pub splice_offset: u32,
    pub terms: RowTerms<'a>,
}

/// A row's index terms, still as the record holds them: a scan that filters by them allocates nothing.
#[derive(Clone, Copy)]
pub struct RowTerms<'a>(pub(crate) &'a [u8]);

impl<'a> RowTerms<'a> {
    /// Calls `visit` with each term's field and value.
    pub fn each(&self, visit: &mut dyn FnMut(&'a [u8], &'a [u8])) {
        codec::each_term(self.0, visit).expect("a record's index terms were encoded by this program");
    }
}

impl Reader {
    pub(crate) fn new(published: Arc<Published>, damage: Arc<Damage>) -> Self {
        Self { published, damage }
    }

    /// The answer; what it says of damage is noted on the way.
    pub(crate) fn noting<T>(&self, answer: Result<T, ReadError>) -> Result<T, ReadError> {
        if let Err(ReadError::Store(error)) = &answer {
            self.damage.note(error);
        }
        answer
    }

    pub(crate) fn note_damage(&self, error: &StoreError) {
        self.damage.note(error);
    }

    pub(crate) fn keyspace(&self) -> Keyspace<'_> {
        let head = &self.published.head;
        Keyspace {
            view: &*self.published.view,
            any_ended: self.published.ended > 0,
            counts: &self.published.counts,
            revision: head.revision.0,
            committed: head.revision.0,
            compact_revision: head.compact_revision.0,
        }
    }

    pub fn head(&self) -> &Head {
        &self.published.head
    }

    /// etcd's Range: revision, limit, sort, filters, count.
    pub fn range(&self, query: &Range) -> Result<RangeResult, ReadError> {
        self.noting(self.keyspace().range(query))
    }

    /// Walks the keys of `range` as of `revision` (0: the head) in key order, until `visit` breaks.
    pub fn scan(
        &self,
        range: &KeyRange,
        revision: Revision,
        visit: &mut dyn FnMut(ScanRow<'_>) -> ControlFlow<()>,
    ) -> Result<(), ReadError> {
        let keyspace = self.keyspace();
        let at = keyspace.resolve(revision)?;
        let scanned = keyspace.scan(range, at, &mut |key, record| visit(record.scan_row(key)));
        self.noting(scanned.map_err(ReadError::from))
    }

    /// The keys below `prefix` that carry `term` now, in key order, read from the index.
    pub fn keys_with_term(&self, term: &IndexTerm, prefix: &[u8]) -> Result<Vec<Bytes>, ReadError> {
        let found = self.keyspace().keys_with_term(term, prefix);
        self.noting(found.map_err(ReadError::from))
    }

    pub fn get(&self, key: &[u8], revision: Revision) -> Result<Option<KeyValue>, ReadError> {
        let keyspace = self.keyspace();
        let at = keyspace.resolve(revision)?;
        self.noting(keyspace.get(key, at).map_err(ReadError::from))
    }

    pub fn count(&self, range: &KeyRange, revision: Revision) -> Result<i64, ReadError> {
        let keyspace = self.keyspace();
        let at = keyspace.resolve(revision)?;
        self.noting(keyspace.count(range, at).map_err(ReadError::from))
    }

    /// Keys attached to a lease, in key order.
    pub fn lease_keys(&self, lease: LeaseId) -> Result<Vec<Bytes>, ReadError> {
        self.noting(self.keyspace().lease_keys(lease).map_err(ReadError::from))
    }

    /// Leases with their granted and remaining TTL in seconds, in id order.
    pub fn leases(&self) -> Result<Vec<(LeaseId, i64, i64)>, ReadError> {
        self.noting(self.keyspace().leases().map_err(ReadError::from))
    }

    /// etcd's HashKV at a revision: CRC-32C (Castagnoli) by etcd's own byte rule; and the compact revision.
    pub fn hash_kv(&self, revision: Revision) -> Result<(u32, Revision), ReadError> {
        self.noting(self.keyspace().hash_kv(revision))
    }

    /// The events of `range` from a revision (or a place inside of one) on, oldest first, stopping after about
    /// `max_bytes` or a bounded number of changes looked at (then there may be no event at all); with the place where to
    /// go on. Revisions are whole, but for one that is too large by itself: that is read in parts.
    pub fn history(
        &self,
        range: &KeyRange,
        from: impl Into<Place>,
        max_bytes: usize,
    ) -> Result<(Vec<Arc<Changes>>, Place), ReadError> {
        self.noting(self.keyspace().history(range, from.into(), false, max_bytes))
    }

    /// The versions before `events`, of those that were left in the store; `None` for one that is compacted by now,
    /// and where there is nothing to read.
    pub fn previous(&self, events: &[&Event]) -> Result<Vec<Option<KeyValue>>, StoreError> {
        let previous = self.keyspace().previous(events);
        previous.inspect_err(|error| self.damage.note(error))
    }
}
