//! The Raft log on disk: one stream for entries, vote and committed index.
//!
//! It knows nothing of Raft's rules: positions, opaque payloads, and the promise that a completion is called
//! only after the bytes are on stable storage. The format is written down in `docs/wal-format.md`.
//!
//! [`Wal`] is the handle. Behind it one writer thread drains what is queued, writes it, syncs once and calls
//! the completions in order; a second thread keeps the next segment ready. An error of a write or a sync is
//! final: nothing is retried, every later call fails, and only opening the log anew tells what survived.

use barque_planted::on as planted;
use std::{
    io,
    ops::Range,
    path::{Path, PathBuf},
    sync::Arc,
};

use bytes::Bytes;
use parking_lot::Mutex;

pub mod files;

mod cache;
mod driver;
mod frame;
mod index;
mod mark;
mod preparer;
mod read;
mod recovery;
mod replay;
mod segment;
mod shared;
mod state;
mod stats;
mod writer;

pub use driver::Driver;
pub use stats::{FSYNC_BUCKETS_S, WalStats};

use mark::{Mark, MarkFile};
use preparer::Preparer;
use shared::Shared;
use state::Op;
use writer::Writer;

/// One log entry; what `kind` and `payload` mean is the caller's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WalEntry {
    pub term: u64,
    pub index: u64,
    pub kind: u8,
    pub payload: Bytes,
}

/// Called once, from the writer's thread, after fdatasync returned (or failed: then the member must stop). It
/// is dropped uncalled when the call it was given to returned an error. It must not block.
pub type Completion = Box<dyn FnOnce(io::Result<()>) + Send>;

#[derive(Debug, Clone)]
pub struct WalConfig {
    /// A multiple of 4096, from 16 KiB to 1 GiB.
    pub segment_bytes: u64,
    /// Entries up to this many bytes are kept in memory for replication and apply.
    pub cache_bytes: usize,
}

impl Default for WalConfig {
    fn default() -> Self {
        WalConfig {
            segment_bytes: 64 << 20,
            cache_bytes: 64 << 20,
        }
    }
}

impl WalConfig {
    /// The largest payload that `append` takes.
    pub fn max_entry_bytes(&self) -> usize {
        segment::max_payload(self.segment_bytes)
    }

    fn check(&self) -> io::Result<()> {
        let bytes = self.segment_bytes;
        if segment::is_valid_len(bytes) {
            return Ok(());
        }
        let text = format!("segment_bytes is {bytes}: it must be a multiple of 4096, from 16 KiB to 1 GiB");
        Err(io::Error::new(io::ErrorKind::InvalidInput, text))
    }
}

/// The longest vote that `save_vote` takes, in bytes.
pub const MAX_VOTE_BYTES: usize = 256;

/// What a log knew when it was opened.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Recovered {
    pub vote: Option<Bytes>,
    /// (term, index); never above `last`.
    pub committed: Option<(u64, u64)>,
    pub purged: Option<(u64, u64)>,
    /// The last entry; `purged` when there is none.
    pub last: Option<(u64, u64)>,
    /// What `save_bound` was last given.
    pub bound: Option<u64>,
    /// `None` for a new log, and in [`Wal::state`].
    pub end: Option<LogEnd>,
}

/// Where a log's frames end in its files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogEnd {
    pub path: PathBuf,
    pub offset: u64,
    /// Bytes behind that place of a batch that was not whole. It is dropped, which was said; it may have been
    /// acknowledged, if damage and no crash is what became of it.
    pub torn_bytes: u64,
}

/// A handle to the log; cheap to clone. Dropping the last one closes the log.
#[derive(Clone)]
pub struct Wal {
    handle: Arc<Handle>,
}

struct Handle {
    shared: Arc<Shared>,
    preparer: Arc<Preparer>,
    threads: Mutex<Vec<std::thread::JoinHandle<()>>>,
}

impl Wal {
    /// Recovers what is in `dir` (made when missing). A torn end is cut off, with a warning; anything else that is
    /// wrong is an error that names file and offset, and leaves the files as they are.
    pub fn open(dir: &Path, files: Arc<dyn files::Files>, config: WalConfig) -> io::Result<(Wal, Recovered)> {
        let (wal, recovered, writer) = Self::recover(dir, files, config, false)?;
        let preparer = wal.handle.preparer.clone();
        let mut threads = vec![preparer::spawn(preparer.clone())?];
        threads.push(writer::spawn(writer).inspect_err(|_| preparer.stop())?);
        *wal.handle.threads.lock() = threads;
        Ok((wal, recovered))
    }

    /// As [`Self::open`], but without threads: nothing becomes durable until the [`Driver`] is told to work.
    pub fn open_driven(
        dir: &Path,
        files: Arc<dyn files::Files>,
        config: WalConfig,
    ) -> io::Result<(Wal, Recovered, Driver)> {
        let (wal, recovered, writer) = Self::recover(dir, files, config, true)?;
        let handle = &wal.handle;
        let driver = Driver::new(handle.shared.clone(), handle.preparer.clone(), writer);
        Ok((wal, recovered, driver))
    }

    fn recover(
        dir: &Path,
        files: Arc<dyn files::Files>,
        config: WalConfig,
        driven: bool,
    ) -> io::Result<(Wal, Recovered, Writer)> {
        config.check()?;
        let found = recovery::recover(dir, files.as_ref(), config.segment_bytes)?;
        let recovered = found.recovered.clone();
        let total = found.segments();
        let preparer = Arc::new(Preparer::new(
            dir,
            files.clone(),
            config.segment_bytes,
            found.spares,
            total,
            driven,
        ));
        let current = match found.current {
            Some(current) => current,
            None => preparer.first_segment()?,
        };
        preparer.expect(current.seq + 1, found.next);
        let end = Mark {
            seq: current.seq,
            offset: found.offset,
            last: recovered.last,
        };
        let marks = match found.marks {
            Some(mut marks) => marks.raise(end).map(|()| marks)?,
            None => MarkFile::create(dir, files.as_ref(), end)?,
        };
        let shared = Arc::new(Shared::new(config, &recovered, found.index, found.terms));
        let writer = Writer::new(
            shared.clone(),
            preparer.clone(),
            current,
            found.offset,
            marks,
            &recovered,
        );
        let handle = Arc::new(Handle {
            shared,
            preparer,
            threads: Mutex::default(),
        });
        Ok((Wal { handle }, recovered, writer))
    }

    /// The entries are readable when this returns; `done` is called once they are durable. The first index
    /// must follow the last entry (or the purge mark). Blocks while too much is queued.
    pub fn append(&self, entries: Vec<WalEntry>, done: Completion) -> io::Result<()> {
        self.handle.shared.submit(Op::Append(entries), done)
    }

    /// Ordered with appends.
    pub fn save_vote(&self, vote: Bytes, done: Completion) -> io::Result<()> {
        self.handle.shared.submit(Op::Vote(vote), done)
    }

    /// Written with the next synced batch, or when the log is closed; it is not worth an fsync of its own.
    /// An index above the last entry is not kept.
    pub fn save_committed(&self, term: u64, index: u64) -> io::Result<()> {
        self.handle.shared.save_committed(term, index)
    }

    /// A number that the caller wants back after a restart: the revision up to which it may serve reads.
    pub fn save_bound(&self, bound: u64, done: Completion) -> io::Result<()> {
        self.handle.shared.submit(Op::Bound(bound), done)
    }

    /// Removes entries with an index above `last` (`None`: all).
    pub fn truncate_after(&self, last: Option<u64>, done: Completion) -> io::Result<()> {
        self.handle.shared.submit(Op::Truncate(last), done)
    }

    /// Forgets entries up to and including `index`; whole segments are recycled. Also used to jump ahead after
    /// a snapshot install, when `index` may lie beyond the last entry.
    pub fn purge(&self, term: u64, index: u64, done: Completion) -> io::Result<()> {
        self.handle.shared.submit(Op::Purge { term, index }, done)
    }

    /// Entries with `range.start <= index < range.end`, at least one and then up to about `max_bytes`; fewer
    /// where the log ends, `NotFound` where `range.start` is purged.
    pub fn read(&self, range: Range<u64>, max_bytes: usize) -> io::Result<Vec<WalEntry>> {
        read::read(&self.handle.shared, range, max_bytes)
    }

    /// What the log knows now, queued operations included.
    pub fn state(&self) -> Recovered {
        self.handle.shared.lock().known()
    }

    /// Bytes on disk; fsyncs and their latencies since the start.
    pub fn stats(&self) -> WalStats {
        let mut stats = self.handle.shared.stats();
        (stats.bytes_on_disk, stats.out_of_space) = self.handle.preparer.space();
        stats
    }

    /// Waits for what is queued, then ends the writer. Calls made later fail.
    pub fn close(&self) {
        self.handle.close();
    }
}

impl Handle {
    fn close(&self) {
        self.shared.begin_close();
        let threads = std::mem::take(&mut *self.threads.lock());
        // A completion may hold, and drop, the last handle: the writer cannot wait for itself.
        if threads
            .iter()
            .any(|thread| thread.thread().id() == std::thread::current().id())
        {
            return;
        }
        // The writer first: it may still need a segment from the preparer, which it stops when it ends.
        for thread in threads.into_iter().rev() {
            if thread.join().is_err() {
                tracing::error!("a thread of the raft log panicked");
            }
        }
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.close();
    }
}
