//! A consistent picture of a RocksDB database, and the rows in it.

use std::sync::Arc;

use bytes::Bytes;
use rocksdb::{ColumnFamily, DB, DBRawIteratorWithThreadMode, ReadOptions, SnapshotWithThreadMode};
use self_cell::self_cell;

use super::{Database, errors::engine_error};
use crate::{
    StoreError,
    kv::{Bounds, Cursor, Family, View},
};

type Snapshot<'a> = SnapshotWithThreadMode<'a, DB>;

self_cell!(
    struct Pinned {
        owner: Arc<Database>,
        #[covariant]
        dependent: Snapshot,
    }
);

pub(super) struct RocksView {
    pinned: Pinned,
}

impl RocksView {
    pub fn new(database: Arc<Database>) -> Self {
        Self {
            pinned: Pinned::new(database, |database| database.db.snapshot()),
        }
    }

    fn family(&self, family: Family) -> &ColumnFamily {
        self.pinned.borrow_owner().family(family)
    }

    fn snapshot(&self) -> &Snapshot<'_> {
        self.pinned.borrow_dependent()
    }
}

impl View for RocksView {
    fn get(&self, family: Family, key: &[u8]) -> Result<Option<Bytes>, StoreError> {
        let found = self
            .snapshot()
            .get_pinned_cf(self.family(family), key)
            .map_err(engine_error)?;
        Ok(found.map(|value| Bytes::copy_from_slice(&value)))
    }

    fn multi_get(&self, family: Family, keys: &[Bytes]) -> Result<Vec<Option<Bytes>>, StoreError> {
        let mut options = ReadOptions::default();
        options.set_snapshot(self.snapshot());
        let db = &self.pinned.borrow_owner().db;
        let keys = keys.iter().map(AsRef::<[u8]>::as_ref);
        let found = db.batched_multi_get_cf_opt(self.family(family), keys, false, &options);
        let copy = |value: rocksdb::DBPinnableSlice<'_>| Bytes::copy_from_slice(&value);
        found
            .into_iter()
            .map(|value| Ok(value.map_err(engine_error)?.map(copy)))
            .collect()
    }

    fn floor(&self, family: Family, start: &[u8], last: &[u8]) -> Result<Option<(Bytes, Bytes)>, StoreError> {
        let mut options = ReadOptions::default();
        options.set_iterate_lower_bound(start);
        let mut rows = self.snapshot().raw_iterator_cf_opt(self.family(family), options);
        rows.seek_for_prev(last);
        rows.status().map_err(engine_error)?;
        Ok(rows
            .item()
            .map(|(key, value)| (Bytes::copy_from_slice(key), Bytes::copy_from_slice(value))))
    }

    fn cursor<'a>(&'a self, family: Family, bounds: Bounds<'_>) -> Result<Box<dyn Cursor + 'a>, StoreError> {
        let mut options = ReadOptions::default();
        if let Some(end) = bounds.end {
            // RocksDB wants an upper bound that is not below where it seeks to.
            options.set_iterate_upper_bound(end.max(bounds.start));
        }
        let mut rows = self.snapshot().raw_iterator_cf_opt(self.family(family), options);
        rows.seek(bounds.start);
        rows.status().map_err(engine_error)?;
        Ok(Box::new(RocksCursor { rows }))
    }
}

struct RocksCursor<'a> {
    rows: DBRawIteratorWithThreadMode<'a, DB>,
}

impl Cursor for RocksCursor<'_> {
    fn row(&self) -> Option<(&[u8], &[u8])> {
        self.rows.item()
    }

    fn advance(&mut self) -> Result<(), StoreError> {
        self.rows.next();
        if self.rows.valid() {
            Ok(())
        } else {
            self.rows.status().map_err(engine_error)
        }
    }

    fn seek(&mut self, key: &[u8]) -> Result<(), StoreError> {
        if self.rows.key().is_some_and(|at| at < key) {
            self.rows.seek(key);
            self.rows.status().map_err(engine_error)?;
        }
        Ok(())
    }
}
