//! The engine on RocksDB, without a write-ahead log of its own: the Raft log is replayed instead.
//!
//! [`RocksEngine`] lives in a numbered directory below a [`Home`], which says which one is current. Atomic
//! flush keeps the families together: what is found after a crash is the state at some batch's end.

use std::{
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use bytes::Bytes;
use rocksdb::{
    BlockBasedOptions, Cache, ColumnFamily, ColumnFamilyDescriptor, CompactOptions, DB, DBCompressionType,
    DBRawIteratorWithThreadMode, Env, FlushOptions, Options, ReadOptions, SnapshotWithThreadMode, WriteBatch,
    WriteOptions, checkpoint::Checkpoint,
};
use self_cell::self_cell;

use super::{Batch, Bounds, Cursor, Engine, EngineSizes, Family, View, exit, manifest};
use crate::{
    StoreError,
    home::{Home, StateDir},
    planted,
};

/// All families are flushed together when one's buffer is full.
const WRITE_BUFFER_BYTES: usize = 64 << 20;
const SMALL_WRITE_BUFFER_BYTES: usize = 16 << 20;
const MAX_OPEN_FILES: i32 = 512;
const BLOOM_BITS_PER_KEY: f64 = 10.0;
const BLOCK_BYTES: usize = 16 << 10;

pub struct RocksEngine {
    database: Arc<Database>,
    home: Home,
    cache: Cache,
}

struct Database {
    // In this order: the directory may only be removed once its database is closed.
    db: DB,
    dir: RetirableDir,
}

/// A directory that is removed when it is dropped after it was retired.
struct RetirableDir {
    dir: StateDir,
    retired: AtomicBool,
}

impl Drop for RetirableDir {
    fn drop(&mut self) {
        if !self.retired.load(Ordering::SeqCst) {
            return;
        }
        if let Err(error) = self.dir.remove() {
            // Not worth stopping for: the next start removes leftovers.
            tracing::warn!(%error, "a replaced state directory could not be removed");
        }
    }
}

/// Opens the current database in `dir`, or makes the first one.
pub fn open(dir: &Path, block_cache_bytes: usize) -> Result<RocksEngine, StoreError> {
    RocksEngine::open(Home::new(dir)?, block_cache_bytes)
}

impl RocksEngine {
    fn open(home: Home, block_cache_bytes: usize) -> Result<Self, StoreError> {
        let cache = Cache::new_lru_cache(block_cache_bytes);
        let Some(dir) = home.current()? else {
            let dir = home.next()?;
            home.remove_all_but(&dir)?;
            let engine = Self::open_dir(home, cache, dir, true)?;
            engine.make_current()?;
            return Ok(engine);
        };
        let engine = Self::open_dir(home, cache, dir, false)?;
        // Only now: while another process has the database open, this one touches nothing.
        engine.home.remove_all_but(&engine.database.dir.dir)?;
        Ok(engine)
    }

    fn open_dir(home: Home, cache: Cache, dir: StateDir, create: bool) -> Result<Self, StoreError> {
        exit::without_destructors();
        let mut options = database_options().map_err(engine_error)?;
        options.create_if_missing(create);
        options.create_missing_column_families(create);
        let open = || {
            let families = Family::ALL
                .map(|family| ColumnFamilyDescriptor::new(family.name(), family_options(family, &cache)));
            DB::open_cf_descriptors(&options, dir.path(), families)
        };
        // As it is before: another process that has the database open by now does not write this one any more.
        let manifest = manifest::current(dir.path());
        let opened = open().or_else(|error| match is_mended(manifest, &error) {
            true => open(),
            false => Err(error),
        });
        let db = opened.map_err(|error| open_error(&dir, &error))?;
        let dir = RetirableDir {
            dir,
            retired: AtomicBool::new(false),
        };
        Ok(Self {
            database: Arc::new(Database { db, dir }),
            home,
            cache,
        })
    }
}

impl Database {
    fn family(&self, family: Family) -> &ColumnFamily {
        self.db
            .cf_handle(family.name())
            .expect("every family was opened with the database")
    }

    fn property(&self, name: &str) -> u64 {
        let of = |family| self.db.property_int_value_cf(self.family(family), name);
        Family::ALL
            .into_iter()
            .filter_map(|family| of(family).ok().flatten())
            .sum()
    }
}

impl Engine for RocksEngine {
    fn write(&self, batch: Batch) -> Result<(), StoreError> {
        let database = &self.database;
        let mut writes = WriteBatch::default();
        for (family, key, value) in &batch.rows {
            match value {
                Some(value) => writes.put_cf(database.family(*family), key, value),
                None => writes.delete_cf(database.family(*family), key),
            }
        }
        let mut options = WriteOptions::default();
        options.disable_wal(true);
        database.db.write_opt(writes, &options).map_err(engine_error)
    }

    fn view(&self) -> Arc<dyn View> {
        Arc::new(RocksView {
            pinned: Pinned::new(Arc::clone(&self.database), |database| database.db.snapshot()),
        })
    }

    fn flush(&self) -> Result<(), StoreError> {
        let families = Family::ALL.map(|family| self.database.family(family));
        let mut options = FlushOptions::default();
        options.set_wait(true);
        self.database
            .db
            .flush_cfs_opt(&families, &options)
            .map_err(engine_error)
    }

    /// What is in memory still holds what was deleted there, so it is written out first.
    fn defragment(&self) -> Result<(), StoreError> {
        self.flush()?;
        let mut options = CompactOptions::default();
        options.set_exclusive_manual_compaction(false);
        for family in Family::ALL {
            let family = self.database.family(family);
            self.database
                .db
                .compact_range_cf_opt(family, None::<&[u8]>, None::<&[u8]>, &options);
        }
        Ok(())
    }

    fn checkpoint(&self, dir: &Path) -> Result<(), StoreError> {
        let checkpoint = Checkpoint::new(&self.database.db).map_err(engine_error)?;
        checkpoint.create_checkpoint(dir).map_err(engine_error)
    }

    fn open_checkpoint(&self, dir: &Path) -> Result<Arc<dyn View>, StoreError> {
        let options = Options::default();
        let families = Family::ALL.map(|family| (family.name(), family_options(family, &self.cache)));
        let db = DB::open_cf_with_opts_for_read_only(&options, dir, families, false).map_err(engine_error)?;
        let dir = StateDir::outside(dir);
        let database = Database {
            db,
            dir: RetirableDir {
                dir,
                retired: AtomicBool::new(false),
            },
        };
        Ok(Arc::new(RocksView {
            pinned: Pinned::new(Arc::new(database), |database| database.db.snapshot()),
        }))
    }

    fn stage(&self, dir: &Path) -> Result<Arc<dyn Engine>, StoreError> {
        let dir = self.home.adopt(dir)?;
        let staged = Self::open_dir(self.home.clone(), self.cache.clone(), dir.clone(), false);
        match staged {
            Ok(engine) => Ok(Arc::new(engine)),
            Err(error) => {
                dir.remove()?;
                Err(error)
            }
        }
    }

    fn make_current(&self) -> Result<(), StoreError> {
        self.home.make_current(&self.database.dir.dir)
    }

    fn retire(&self) {
        self.database.dir.retired.store(true, Ordering::SeqCst);
    }

    fn sizes(&self) -> EngineSizes {
        let memtables = self.database.property("rocksdb.cur-size-all-mem-tables");
        EngineSizes {
            total_bytes: self.database.property("rocksdb.total-sst-files-size") + memtables,
            live_bytes: self.database.property("rocksdb.estimate-live-data-size") + memtables,
        }
    }
}

fn database_options() -> Result<Options, rocksdb::Error> {
    let mut env = Env::new()?;
    env.set_low_priority_background_threads(1);
    env.set_high_priority_background_threads(1);
    env.lower_thread_pool_io_priority();
    env.lower_thread_pool_cpu_priority();
    let mut options = Options::default();
    options.set_env(&env);
    options.set_atomic_flush(!planted("families-flushed-apart"));
    options.set_max_background_jobs(2);
    options.set_max_open_files(MAX_OPEN_FILES);
    options.set_bytes_per_sync(1 << 20);
    options.set_keep_log_file_num(2);
    options.set_max_log_file_size(4 << 20);
    options.set_stats_dump_period_sec(0);
    Ok(options)
}

fn family_options(family: Family, cache: &Cache) -> Options {
    let mut table = BlockBasedOptions::default();
    table.set_block_cache(cache);
    table.set_block_size(BLOCK_BYTES);
    table.set_format_version(5);
    if matches!(family, Family::Cur) {
        table.set_bloom_filter(BLOOM_BITS_PER_KEY, false);
    }
    let mut options = Options::default();
    options.set_block_based_table_factory(&table);
    options.set_compression_type(DBCompressionType::Lz4);
    options.set_bottommost_compression_type(DBCompressionType::Zstd);
    options.set_level_compaction_dynamic_level_bytes(true);
    options.set_write_buffer_size(match family {
        Family::Cur | Family::Hist | Family::Log => WRITE_BUFFER_BYTES,
        Family::Idx | Family::Lease | Family::LeaseKey | Family::Meta => SMALL_WRITE_BUFFER_BYTES,
    });
    options.set_max_write_buffer_number(3);
    options
}

fn engine_error(error: rocksdb::Error) -> StoreError {
    StoreError::Engine(one_line(&error))
}

/// Whether what a power cut left of the manifest was the cause, and is none any more.
fn is_mended(manifest: Option<PathBuf>, error: &rocksdb::Error) -> bool {
    let Some(manifest) = manifest.filter(|_| error.kind() == rocksdb::ErrorKind::Corruption) else {
        return false;
    };
    manifest::cut_torn_tail(&manifest).unwrap_or_else(|error| {
        tracing::warn!(%error, manifest = %manifest.display(), "the manifest cannot be looked at");
        false
    })
}

fn open_error(dir: &StateDir, error: &rocksdb::Error) -> StoreError {
    let text = one_line(error);
    if text.contains("lock") && text.contains("LOCK") {
        return StoreError::DataDir(format!("{} is in use by another process", dir.path().display()));
    }
    StoreError::DataDir(format!("cannot open {}: {text}", dir.path().display()))
}

fn one_line(error: &rocksdb::Error) -> String {
    error.to_string().replace('\n', " ")
}

type Snapshot<'a> = SnapshotWithThreadMode<'a, DB>;

self_cell!(
    struct Pinned {
        owner: Arc<Database>,
        #[covariant]
        dependent: Snapshot,
    }
);

struct RocksView {
    pinned: Pinned,
}

impl RocksView {
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
