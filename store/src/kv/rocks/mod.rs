//! The engine on RocksDB, without a write-ahead log of its own: the Raft log is replayed instead.
//!
//! [`RocksEngine`] lives in a numbered directory below a [`Home`], which says which one is current. Atomic
//! flush keeps the families together: what is found after a crash is the state at some batch's end.

mod errors;
mod options;
mod view;

use std::{
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use rocksdb::{
    Cache, ColumnFamily, ColumnFamilyDescriptor, CompactOptions, DB, FlushOptions, InfoLogger, LogLevel,
    Options, WriteBatch, WriteOptions, checkpoint::Checkpoint,
};

use self::{
    errors::{cannot_open, engine_error, named_in, unreadable},
    options::{MAX_OPEN_FILES, database_options, family_options},
    view::RocksView,
};
use super::{
    Batch, Engine, EngineSizes, Family, OnProgress, View, exit,
    manifest::{self, Manifest},
    verify,
};
use crate::{
    StoreError,
    home::{Home, StateDir},
};

/// As the size of the log from which on a checkpoint is flushed first.
const NEVER_FLUSH: u64 = u64::MAX;

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
            let dir = home.first()?;
            // A first start that was killed left a manifest only if there is a file that names it.
            let manifest = manifest::is_named(dir.path()).then(|| Manifest::read(dir.path()));
            let db = open_database(&dir, &cache, true, manifest.transpose()?)?;
            let engine = Self::new(home, cache, dir, db);
            engine.make_current()?;
            return Ok(engine);
        };
        let manifest = Manifest::read(dir.path())?;
        let kept = home.keep(&dir)?;
        match open_database(&dir, &cache, false, Some(manifest)) {
            Ok(db) => Ok(Self::new(home, cache, dir, db)),
            Err(error) => {
                if let Some(kept) = kept.filter(|_| error.is_in_use()) {
                    kept.let_go()?;
                }
                Err(error)
            }
        }
    }

    fn new(home: Home, cache: Cache, dir: StateDir, db: DB) -> Self {
        let dir = RetirableDir {
            dir,
            retired: AtomicBool::new(false),
        };
        Self {
            database: Arc::new(Database { db, dir }),
            home,
            cache,
        }
    }
}

/// Opens it as it is; without the torn end of its manifest if RocksDB refuses that, and only then.
fn open_database(
    dir: &StateDir,
    cache: &Cache,
    create: bool,
    manifest: Option<Manifest>,
) -> Result<DB, StoreError> {
    exit::without_destructors();
    let mut options = database_options().map_err(engine_error)?;
    options.create_if_missing(create);
    options.create_missing_column_families(create || is_of_before_ended(dir.path()));
    let is_whole = manifest.as_ref().is_some_and(Manifest::is_whole);
    let torn = manifest.and_then(Manifest::into_torn_end);
    let open = || {
        let families = Family::ALL
            .map(|family| ColumnFamilyDescriptor::new(family.name(), family_options(family, Some(cache))));
        let opened = DB::open_cf_descriptors(&options, dir.path(), families);
        opened.map_err(|error| (error.kind(), cannot_open(dir.path(), &error, is_whole)))
    };
    match (open(), torn) {
        (Ok(db), _) => Ok(db),
        (Err((rocksdb::ErrorKind::Corruption, _)), Some(torn)) => {
            let cut = torn.cut()?;
            open().map_err(|(_, error)| cut.undone_for(error))
        }
        (Err((_, error)), _) => Err(error),
    }
}

/// Whether `ended` is the one family that a database lacks: it was made before there was one. Whatever else is
/// missing is damage, and refused.
fn is_of_before_ended(dir: &Path) -> bool {
    let Ok(found) = DB::list_cf(&Options::default(), dir) else {
        return false;
    };
    let lacks = |family: &Family| !found.iter().any(|name| name == family.name());
    Family::ALL.into_iter().filter(lacks).eq([Family::Ended])
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
        Arc::new(RocksView::new(Arc::clone(&self.database)))
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
        open_copy(dir, Some(&self.cache)).map_err(engine_error)
    }

    /// An open database remembers blocks, and of every file its index: what is on the disk shows only to who opens
    /// the files anew. So links to them are made beside it, without a flush, and read in its place.
    fn verify(&self, on_progress: OnProgress<'_>) -> Result<(), StoreError> {
        let scratch = self.home.scratch()?;
        let links = scratch.path().join("links");
        let checkpoint = Checkpoint::new(&self.database.db).map_err(engine_error)?;
        checkpoint
            .create_checkpoint_with_log_size(&links, NEVER_FLUSH)
            .map_err(|error| unreadable(&links, &error))
            .and_then(|()| self.verify_copy(&links, on_progress))
            .map_err(|error| named_in(error, &links, self.database.dir.dir.path()))
    }

    fn verify_copy(&self, dir: &Path, on_progress: OnProgress<'_>) -> Result<(), StoreError> {
        Manifest::read(dir)?.whole()?;
        let view = open_copy(dir, None).map_err(|error| unreadable(dir, &error))?;
        verify::walk(&*view, on_progress)
    }

    fn stage(&self, dir: &Path) -> Result<Arc<dyn Engine>, StoreError> {
        let dir = self.home.adopt(dir)?;
        let read = Manifest::read(dir.path()).and_then(Manifest::whole);
        let opened = read.and_then(|manifest| open_database(&dir, &self.cache, false, Some(manifest)));
        match opened {
            Ok(db) => Ok(Arc::new(Self::new(
                self.home.clone(),
                self.cache.clone(),
                dir,
                db,
            ))),
            Err(error) => {
                dir.remove()?;
                Err(error)
            }
        }
    }

    fn make_current(&self) -> Result<(), StoreError> {
        self.home.make_current(&self.database.dir.dir)
    }

    fn clear_leftovers(&self) -> Result<(), StoreError> {
        self.home.clear_leftovers(&self.database.dir.dir)
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

/// Read-only, and without a cache when there is none. Not a file is changed or made.
fn open_copy(dir: &Path, cache: Option<&Cache>) -> Result<Arc<dyn View>, rocksdb::Error> {
    let mut options = Options::default();
    options.set_max_open_files(MAX_OPEN_FILES);
    options.set_info_logger(InfoLogger::new_callback_logger(LogLevel::Fatal, |_, _| {}));
    let families = Family::ALL.map(|family| (family.name(), family_options(family, cache)));
    let db = DB::open_cf_with_opts_for_read_only(&options, dir, families, false)?;
    let dir = RetirableDir {
        dir: StateDir::outside(dir),
        retired: AtomicBool::new(false),
    };
    Ok(Arc::new(RocksView::new(Arc::new(Database { db, dir }))))
}

#[cfg(test)]
mod tests;
