//! Raft's state machine: committed entries into the store's one writer, outcomes to whoever waits.
//!
//! [`StateMachine`] owns the [`Applier`]. An entry is applied only once the local log holds it durably, so that
//! after a restart the log always reaches at least as far as what was ever served. A storage error is
//! returned, which stops the member; nothing is skipped.

use std::{
    io,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Instant,
};

use barque_store::{Applier, EntryBody, LogPosition, Outcome, Response, StoreError};
use bytes::Bytes;
use futures_util::{Stream, StreamExt};
use openraft::{
    EntryPayload, OptionalSend, RaftSnapshotBuilder,
    storage::{ApplyResponder, EntryResponder, RaftStateMachine},
};
use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::{
    applied::{Applied, FlushedState},
    batch::{batch_header, lease_events},
    blocking::block,
    codec,
    installing::Installing,
    lessor::Lessor,
    log_store::Durable,
    metrics::{Counters, count},
    oversight::damaged::GRACE,
    planted,
    retention::LogSize,
    snapshot::{SnapshotData, SnapshotDir},
    types::{Entry, LogId, Snapshot, SnapshotMeta, StoredMembership, TypeConfig},
    waiters::Waiters,
};

/// Bytes and entries applied as one atomic write at most.
const CHUNK_BYTES: usize = 1 << 20;
const CHUNK_ENTRIES: usize = 1024;
/// The state is flushed at least this often, so that a restart replays no more of the log.
const FLUSH_ENTRIES: u64 = 100_000;
const FLUSH_BYTES: u64 = 256 << 20;

#[derive(Clone)]
pub struct StateMachine {
    shared: Arc<Shared>,
}

struct Shared {
    applier: Mutex<Applier>,
    flushed: FlushedState,
    durable: Durable,
    applied: Arc<Applied>,
    waiters: Arc<Waiters>,
    lessor: Arc<Lessor>,
    counters: Arc<Counters>,
    compaction: Arc<Notify>,
    log_size: Arc<LogSize>,
    snapshot_dir: PathBuf,
    installing: Installing,
    next_snapshot: AtomicU64,
    /// Names the life of this database to receivers of its files.
    source: AtomicU64,
    /// While openraft starts, the state opened is itself the current snapshot.
    starting: AtomicBool,
    unflushed: Mutex<(u64, u64)>,
}

pub struct Parts {
    pub applier: Applier,
    pub flushed: FlushedState,
    pub durable: Durable,
    pub applied: Arc<Applied>,
    pub waiters: Arc<Waiters>,
    pub lessor: Arc<Lessor>,
    pub counters: Arc<Counters>,
    /// Told when there is something to remove or to move physically.
    pub compaction: Arc<Notify>,
    pub log_size: Arc<LogSize>,
    pub snapshot_dir: PathBuf,
    pub installing: Installing,
}

fn storage_error(error: StoreError) -> io::Error {
    match error {
        StoreError::Io(error) => error,
        other => io::Error::other(other),
    }
}

impl StateMachine {
    pub fn new(parts: Parts) -> Self {
        let shared = Shared {
            applier: Mutex::new(parts.applier),
            flushed: parts.flushed,
            durable: parts.durable,
            applied: parts.applied,
            waiters: parts.waiters,
            lessor: parts.lessor,
            counters: parts.counters,
            compaction: parts.compaction,
            log_size: parts.log_size,
            snapshot_dir: parts.snapshot_dir,
            installing: parts.installing,
            next_snapshot: AtomicU64::new(0),
            source: AtomicU64::new(rand::random()),
            starting: AtomicBool::new(true),
            unflushed: Mutex::new((0, 0)),
        };
        Self {
            shared: Arc::new(shared),
        }
    }

    /// From here on snapshots are made to be sent.
    pub fn started(&self) {
        self.shared.starting.store(false, Ordering::Release);
    }

    pub fn applied(&self) -> Arc<Applied> {
        self.shared.applied.clone()
    }

    /// Makes the state durable; returns what is then on disk.
    pub fn flush(&self) -> io::Result<Option<LogPosition>> {
        block(|| self.shared.flush())
    }

    /// One bounded step of physical compaction; `true` while there is more to do.
    pub fn compact_step(&self) -> io::Result<bool> {
        block(|| self.shared.applier.lock().compact_step().map_err(storage_error))
    }

    /// One bounded step of moving rows that deletions have ended; `true` while there is more to do.
    pub fn move_step(&self) -> io::Result<bool> {
        block(|| self.shared.applier.lock().move_step().map_err(storage_error))
    }
}

/// Entries of one chunk, ready for the applier, with what each owes to openraft.
#[derive(Default)]
struct Chunk {
    entries: Vec<barque_store::Entry>,
    responders: Vec<ApplyResponder<TypeConfig>>,
    bytes: usize,
}

impl Chunk {
    fn push(&mut self, entry: Entry, responder: Option<ApplyResponder<TypeConfig>>) {
        if let EntryPayload::Normal(batch) = &entry.payload {
            self.bytes += batch.0.len();
        }
        self.entries.push(codec::entry_to_store(entry));
        self.responders.extend(responder);
    }

    fn is_full(&self) -> bool {
        self.bytes >= CHUNK_BYTES || self.entries.len() >= CHUNK_ENTRIES
    }
}

impl Shared {
    async fn apply_chunk(&self, chunk: Chunk) -> io::Result<()> {
        let Some(last) = chunk.entries.last().map(|entry| entry.position) else {
            return Ok(());
        };
        if !planted("apply-before-durable") {
            self.durable.wait_for(last.index).await?;
        }
        let began = Instant::now();
        let awaited = |entry: &barque_store::Entry| self.is_awaited(entry);
        let applied = block(|| {
            let mut applier = self.applier.lock();
            let outcomes = applier.apply_for(&chunk.entries, awaited)?;
            Ok((outcomes, applier.has_ended_rows()))
        });
        let (outcomes, has_ended_rows) = match applied {
            Ok(applied) => applied,
            Err(error) => return Err(self.cannot_apply(error).await),
        };
        if has_ended_rows {
            self.compaction.notify_one();
        }
        self.counters.applied(chunk.entries.len(), began.elapsed());
        for (entry, outcomes) in chunk.entries.iter().zip(outcomes) {
            self.settle(entry, outcomes)?;
        }
        self.applied.set(last);
        self.log_size.applied(last.index, chunk.bytes as u64);
        chunk
            .responders
            .into_iter()
            .for_each(|responder| responder.send(()));
        self.flush_when_due(chunk.entries.len(), chunk.bytes)
    }

    /// Ends this member. If its files are damaged, it first has the time to say so: see `oversight::damaged`.
    async fn cannot_apply(&self, error: StoreError) -> io::Error {
        if error.is_damage() {
            tokio::time::sleep(GRACE).await;
        }
        storage_error(error)
    }

    /// Whether somebody waits here for what its commands read.
    fn is_awaited(&self, entry: &barque_store::Entry) -> bool {
        match &entry.body {
            EntryBody::Commands(bytes) => {
                batch_header(bytes).is_ok_and(|(origin, _)| origin == self.waiters.origin)
            }
            _ => false,
        }
    }

    /// Tells those who wait for this entry.
    fn settle(&self, entry: &barque_store::Entry, outcomes: Vec<Outcome>) -> io::Result<()> {
        if let EntryBody::Commands(bytes) = &entry.body {
            let (origin, sequence) = batch_header(bytes)?;
            if self.lessor.is_leading() {
                self.lessor.applied(lease_events(bytes, &outcomes)?);
            }
            if outcomes
                .iter()
                .any(|outcome| matches!(outcome, Ok(Response::Compact { .. })))
            {
                self.compaction.notify_one();
            }
            if origin == self.waiters.origin {
                self.counters
                    .proposals_committed
                    .fetch_add(outcomes.len() as u64, Ordering::Relaxed);
                self.waiters.complete(sequence, outcomes);
            }
        }
        self.waiters.applied_term(entry.position.term);
        Ok(())
    }

    fn flush_when_due(&self, entries: usize, bytes: usize) -> io::Result<()> {
        let due = {
            let mut unflushed = self.unflushed.lock();
            unflushed.0 += entries as u64;
            unflushed.1 += bytes as u64;
            unflushed.0 >= FLUSH_ENTRIES || unflushed.1 >= FLUSH_BYTES
        };
        if due {
            block(|| self.flush())?;
        }
        Ok(())
    }

    fn flush(&self) -> io::Result<Option<LogPosition>> {
        let mut applier = self.applier.lock();
        let position = applier.flush().map_err(storage_error)?;
        self.flushed.set(position);
        *self.unflushed.lock() = (0, 0);
        Ok(position)
    }

    /// Flushes, and describes the state on disk: openraft's idea of building a snapshot. Files are only copied
    /// (linked, rather) when there is somebody to send them to.
    fn build(&self) -> io::Result<SnapshotMeta> {
        if planted("purge-before-flush") {
            self.flushed.set(self.applier.lock().applied());
        } else {
            self.flush()?;
        }
        let applier = self.applier.lock();
        self.meta(self.flushed_position(), applier.membership())
    }

    fn flushed_position(&self) -> Option<LogPosition> {
        self.flushed.get()
    }

    fn meta(
        &self,
        position: Option<LogPosition>,
        membership: Option<(LogPosition, Bytes)>,
    ) -> io::Result<SnapshotMeta> {
        let last_membership = codec::stored_membership(membership)?;
        Ok(SnapshotMeta {
            last_log_id: position.map(codec::log_id_at),
            last_membership,
        })
    }

    fn checkpoint(&self) -> io::Result<Option<Snapshot>> {
        let number = self.next_snapshot.fetch_add(1, Ordering::Relaxed);
        let dir = SnapshotDir::new(self.snapshot_dir.join(format!("out-{number}")));
        let mut applier = self.applier.lock();
        if applier.applied().is_none() {
            return Ok(None);
        }
        let made = applier.checkpoint(dir.path()).map_err(storage_error)?;
        self.flushed.set(applier.flushed());
        drop(applier);
        let meta = self.meta(made.applied, made.membership)?;
        let source = self.source.load(Ordering::Relaxed);
        Ok(Some(Snapshot {
            meta,
            snapshot: SnapshotData {
                dir: Some(Arc::new(dir)),
                source,
            },
        }))
    }

    fn current_snapshot(&self) -> io::Result<Option<Snapshot>> {
        if !self.starting.load(Ordering::Acquire) {
            return self.checkpoint();
        }
        let applier = self.applier.lock();
        let Some(applied) = applier.applied() else {
            return Ok(None);
        };
        let meta = self.meta(Some(applied), applier.membership())?;
        Ok(Some(Snapshot {
            meta,
            snapshot: SnapshotData { dir: None, source: 0 },
        }))
    }

    fn install(&self, meta: &SnapshotMeta, data: SnapshotData) -> io::Result<()> {
        let dir = data
            .dir
            .ok_or_else(|| io::Error::other("a snapshot without files cannot be installed"))?;
        let mut applier = self.applier.lock();
        if let Some(last) = &meta.last_log_id {
            self.installing.begin(codec::position(last))?;
        }
        applier.install(dir.path()).map_err(storage_error)?;
        let (applied, flushed) = (applier.applied(), applier.flushed());
        drop(applier);
        if applied.map(codec::log_id_at) != meta.last_log_id {
            let text = format!(
                "its state is at {applied:?}, its sender said {:?}",
                meta.last_log_id
            );
            return Err(codec::corrupt("snapshot", text));
        }
        self.flushed.set(flushed);
        *self.unflushed.lock() = (0, 0);
        self.source.store(rand::random(), Ordering::Relaxed);
        count(&self.counters.snapshots_received);
        self.compaction.notify_one();
        if let Some(position) = applied {
            self.waiters.jumped(position.term);
            self.applied.set(position);
        }
        Ok(())
    }
}

impl RaftSnapshotBuilder<TypeConfig> for StateMachine {
    type SnapshotData = SnapshotData;

    async fn build_snapshot(&mut self) -> io::Result<Snapshot> {
        let meta = block(|| self.shared.build())?;
        tracing::info!(at = ?meta.last_log_id, "the state is flushed; the log before it may be purged");
        Ok(Snapshot {
            meta,
            snapshot: SnapshotData { dir: None, source: 0 },
        })
    }
}

impl RaftStateMachine<TypeConfig> for StateMachine {
    type SnapshotData = SnapshotData;
    type SnapshotBuilder = Self;

    async fn applied_state(&mut self) -> io::Result<(Option<LogId>, StoredMembership)> {
        let applier = self.shared.applier.lock();
        let membership = codec::stored_membership(applier.membership())?;
        Ok((applier.applied().map(codec::log_id_at), membership))
    }

    async fn apply<Strm>(&mut self, mut entries: Strm) -> io::Result<()>
    where
        Strm: Stream<Item = io::Result<EntryResponder<TypeConfig>>> + Unpin + OptionalSend,
    {
        let mut chunk = Chunk::default();
        while let Some(next) = entries.next().await {
            let (entry, responder) = next?;
            chunk.push(entry, responder);
            if chunk.is_full() {
                self.shared.apply_chunk(std::mem::take(&mut chunk)).await?;
            }
        }
        self.shared.apply_chunk(chunk).await
    }

    async fn get_snapshot_builder(&mut self) -> Self {
        self.clone()
    }

    async fn install_snapshot(&mut self, meta: &SnapshotMeta, snapshot: SnapshotData) -> io::Result<()> {
        block(|| self.shared.install(meta, snapshot))
    }

    async fn get_current_snapshot(&mut self) -> io::Result<Option<Snapshot>> {
        block(|| self.shared.current_snapshot())
    }
}
