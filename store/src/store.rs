//! The store's shared side: opening, the published head, views for readers.
//!
//! [`Store`] is what everybody but the writer holds. Head, view and counts are published together as one
//! value after each apply; a reader takes all of them. Nothing is changed through it.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
    sync::Arc,
};

use arc_swap::ArcSwap;
use barque_proto::command::alarm::Kind;
use parking_lot::Mutex;

use crate::{
    Applier, KeyRange, KeyValue, LeaseId, LogPosition, ReadError, Reader, Revision, StoreError,
    applier::Opened,
    counts::Counts,
    damage::Damage,
    kv::{Engine, OnProgress, View, rocks},
    state::{Alarm, AlarmKind},
    state_hash::{Mark, StateHash, Trail},
    watch::{Changes, Event, HistorySource, Hub, Place},
};

#[derive(Debug, Clone)]
pub struct StoreConfig {
    /// The member's data directory for the state; made when missing.
    pub dir: PathBuf,
    /// How many bytes of events the ring keeps in memory.
    pub ring_bytes: usize,
    /// Size of RocksDB's block cache.
    pub block_cache_bytes: usize,
    /// How many bytes may be in use: the replica proposes nothing that grows beyond; 0: no limit.
    pub quota_backend_bytes: u64,
}

/// Revision, compact revision and what was applied, published together after each apply.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Head {
    pub revision: Revision,
    pub compact_revision: Revision,
    pub applied: Option<LogPosition>,
    /// Goes up when a snapshot replaced the whole state.
    pub epoch: u64,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct StoreSizes {
    /// Bytes on disk.
    pub total_bytes: u64,
    /// Bytes of live data, estimated.
    pub in_use_bytes: u64,
    pub live_keys: u64,
    /// Keys whose deletion has left a row to be moved.
    pub ended_keys: u64,
}

/// A handle for readers and watchers; cheap to clone.
#[derive(Clone)]
pub struct Store {
    inner: Arc<Inner>,
}

pub(crate) struct Inner {
    published: Arc<ArcSwap<Published>>,
    /// For sizes and defragmenting alone; replaced by a snapshot install.
    engine: ArcSwap<Arc<dyn Engine>>,
    pub(crate) hub: Hub,
    pub(crate) trail: Mutex<Trail>,
    pub(crate) damage: Arc<Damage>,
}

/// What readers see, as one value.
pub(crate) struct Published {
    pub head: Arc<Head>,
    pub view: Arc<dyn View>,
    /// Rows of `cur` in `view` that a deletion has ended.
    pub ended: u64,
    pub counts: Arc<Counts>,
    pub state_hash: StateHash,
    pub alarms: BTreeSet<Alarm>,
}

impl Inner {
    pub(crate) fn publish(&self, published: Published) {
        self.published.store(Arc::new(published));
    }

    pub(crate) fn replace_engine(&self, engine: Arc<dyn Engine>) {
        self.engine.store(Arc::new(engine));
    }
}

/// The hub's way to what its ring no longer holds. It knows the published state, not the hub.
struct PublishedHistory(Arc<ArcSwap<Published>>, Arc<Damage>);

impl HistorySource for PublishedHistory {
    fn history(
        &self,
        range: &KeyRange,
        from: Place,
        prev_kv: bool,
        max_bytes: usize,
    ) -> Result<(Vec<Arc<Changes>>, Place), ReadError> {
        let reader = Reader::new(self.0.load_full(), Arc::clone(&self.1));
        let read = reader.keyspace().history(range, from, prev_kv, max_bytes);
        reader.noting(read)
    }

    fn previous(&self, events: &[&Event]) -> Result<Vec<Option<KeyValue>>, StoreError> {
        Reader::new(self.0.load_full(), Arc::clone(&self.1)).previous(events)
    }
}

impl Store {
    /// Opens or creates the store in `config.dir` on RocksDB.
    pub fn open(config: StoreConfig) -> Result<(Store, Applier), StoreError> {
        let engine = rocks::open(&config.dir, config.block_cache_bytes)?;
        Self::open_with(Arc::new(engine), config.ring_bytes)
    }

    /// Opens the store that `engine` holds.
    pub fn open_with(engine: Arc<dyn Engine>, ring_bytes: usize) -> Result<(Store, Applier), StoreError> {
        let opened = Opened::new(Arc::clone(&engine))?;
        let published = opened.published(0);
        let trail = opened.trail();
        let damage = Arc::new(Damage::default());
        let head = Arc::clone(&published.head);
        let published = Arc::new(ArcSwap::from_pointee(published));
        let hub = Hub::new(
            head,
            ring_bytes,
            Arc::new(PublishedHistory(Arc::clone(&published), Arc::clone(&damage))),
        );
        let inner = Arc::new(Inner {
            published,
            engine: ArcSwap::from_pointee(engine),
            hub,
            trail: Mutex::new(trail),
            damage,
        });
        let applier = Applier::new(opened, Arc::clone(&inner));
        Ok((Store { inner }, applier))
    }

    pub fn head(&self) -> Arc<Head> {
        Arc::clone(&self.inner.published.load().head)
    }

    /// A consistent view of everything, at the head as published.
    pub fn reader(&self) -> Reader {
        Reader::new(self.inner.published.load_full(), Arc::clone(&self.inner.damage))
    }

    /// The rows below the keyspace, as published: to compare members by. It pins old files on disk.
    pub fn rows(&self) -> Arc<dyn View> {
        Arc::clone(&self.inner.published.load().view)
    }

    pub fn hub(&self) -> &Hub {
        &self.inner.hub
    }

    pub fn sizes(&self) -> StoreSizes {
        let sizes = self.inner.engine.load().sizes();
        let published = self.inner.published.load();
        StoreSizes {
            total_bytes: sizes.total_bytes,
            in_use_bytes: sizes.live_bytes,
            live_keys: published.counts.live(),
            ended_keys: published.ended,
        }
    }

    /// Gives back the space of what was deleted or removed by compaction. Blocks, for long when there is much.
    pub fn defragment(&self) -> Result<(), StoreError> {
        let engine = self.inner.engine.load_full();
        engine.defragment()
    }

    /// Reads all that is on the disk of this store once and compares every block's checksum, past all caches.
    ///
    /// `on_progress` is called after about every MiB, with the bytes read since the last call: it may sleep, and it
    /// stops the walk with `false` (then `Ok` says nothing of the rest). [`StoreError::Corrupt`] names the damaged file;
    /// nothing is changed or removed. Blocks for as long as it takes, and keeps replaced files on the disk meanwhile.
    pub fn verify_blocks(&self, on_progress: OnProgress<'_>) -> Result<(), StoreError> {
        let engine = self.inner.engine.load_full();
        engine.verify(on_progress)
    }

    /// The same of a copy that [`Applier::checkpoint`] wrote, here or on another member.
    pub fn verify_dir(&self, dir: &Path, on_progress: OnProgress<'_>) -> Result<(), StoreError> {
        let engine = self.inner.engine.load_full();
        engine.verify_copy(dir, on_progress)
    }

    /// Leases with their granted and remaining TTL in seconds, in id order.
    ///
    /// # Panics
    /// When the storage engine cannot read them: the member cannot go on. [`Reader::leases`] returns the error.
    pub fn leases(&self) -> Result<Vec<(LeaseId, i64, i64)>, ReadError> {
        self.reader().leases()
    }

    /// The alarms that are active, by member.
    pub fn alarms(&self) -> Vec<(u64, Kind)> {
        let published = self.inner.published.load();
        let mut alarms: Vec<_> = published
            .alarms
            .iter()
            .map(|alarm| (alarm.member_id, kind(alarm.kind)))
            .collect();
        alarms.sort();
        alarms
    }

    /// Whether an alarm of this kind is active, for whichever member.
    pub fn has_alarm(&self, of: Kind) -> bool {
        let published = self.inner.published.load();
        published.alarms.iter().any(|alarm| kind(alarm.kind) == of)
    }

    /// The chained hash over applied events, and the log position that it stands for.
    pub fn state_hash(&self) -> (LogPosition, [u8; 32]) {
        let published = self.inner.published.load();
        (published.head.applied.unwrap_or_default(), published.state_hash.0)
    }

    /// Calls `listener` once, with the first error that says that data of this member is damaged; at once, if there
    /// was one already.
    pub fn on_damage(&self, listener: impl FnOnce(String) + Send + 'static) {
        self.inner.damage.listen(Box::new(listener));
    }

    /// Takes note of an error that was met outside of reads and apply.
    pub fn note_damage(&self, error: &StoreError) {
        self.inner.damage.note(error);
    }

    /// What was found damaged first.
    pub fn damage(&self) -> Option<String> {
        self.inner.damage.what()
    }

    /// The state after the last applied entry; `None` while nothing was ever applied.
    pub fn newest_mark(&self) -> Option<Mark> {
        self.inner.trail.lock().newest()
    }

    /// The state after the entry at `index`; `None` when it is not applied yet, or not remembered.
    pub fn mark_at(&self, index: u64) -> Option<Mark> {
        self.inner.trail.lock().at(index)
    }
}

fn kind(kind: AlarmKind) -> Kind {
    match kind {
        AlarmKind::NoSpace => Kind::Nospace,
        AlarmKind::Corrupt => Kind::Corrupt,
        AlarmKind::Damaged => Kind::Damaged,
    }
}
