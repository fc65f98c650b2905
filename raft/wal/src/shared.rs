//! What handles and the writer share: the state behind its lock, and the two ways in which they wait.

use std::{
    collections::VecDeque,
    io,
    task::Waker,
    thread::ThreadId,
    time::{Duration, Instant},
};

use parking_lot::{Condvar, Mutex, MutexGuard};

use crate::{
    Completion, Recovered, WalConfig, WalStats,
    index::EntryIndex,
    state::{LogId, Op, Queued, State, Terms},
};

/// Callers wait when more than this is queued.
const MAX_QUEUED_BYTES: usize = 64 << 20;
const MAX_QUEUED: usize = 64 << 10;
/// One batch takes no more than this, so that the first in it does not wait for a long write.
const MAX_BATCH_BYTES: usize = 8 << 20;

pub(crate) struct Shared {
    inner: Mutex<Inner>,
    /// The writer waits for work.
    work: Condvar,
    /// Callers wait for room in the queue.
    room: Condvar,
}

struct Inner {
    state: State,
    stats: WalStats,
    end: Option<End>,
    writer: Option<ThreadId>,
    /// Of who drives the writer, when it has no thread of its own.
    driver: Option<Waker>,
}

/// Why nothing more is taken.
enum End {
    Closing,
    Failed(io::ErrorKind, String),
}

impl End {
    fn error(&self) -> io::Error {
        match self {
            End::Closing => io::Error::new(io::ErrorKind::BrokenPipe, "the raft log is closed"),
            End::Failed(kind, text) => io::Error::new(*kind, text.clone()),
        }
    }
}

/// The state under its lock, as readers see it.
pub(crate) struct Locked<'a>(MutexGuard<'a, Inner>);

impl std::ops::Deref for Locked<'_> {
    type Target = State;
    fn deref(&self) -> &State {
        &self.0.state
    }
}

/// What the writer takes at once.
pub(crate) struct Batch {
    pub work: Vec<Queued>,
    pub committed: Option<LogId>,
}

/// What the writer is to do next.
pub(crate) enum Next {
    Batch(Batch),
    /// Nothing was asked for during the pause.
    Rest,
    /// The log is closed, and all is written.
    Ended,
}

impl Shared {
    pub(crate) fn new(config: WalConfig, known: &Recovered, index: EntryIndex, terms: Terms) -> Shared {
        let state = State::new(known, index, terms, config.cache_bytes, config.max_entry_bytes());
        let inner = Inner {
            state,
            stats: WalStats::empty(),
            end: None,
            writer: None,
            driver: None,
        };
        Shared {
            inner: Mutex::new(inner),
            work: Condvar::new(),
            room: Condvar::new(),
        }
    }

    pub(crate) fn lock(&self) -> Locked<'_> {
        Locked(self.inner.lock())
    }

    /// The state, unless the log has failed.
    pub(crate) fn lock_healthy(&self) -> io::Result<Locked<'_>> {
        let inner = self.inner.lock();
        match &inner.end {
            Some(end @ End::Failed(..)) => Err(end.error()),
            _ => Ok(Locked(inner)),
        }
    }

    pub(crate) fn stats(&self) -> WalStats {
        self.inner.lock().stats.clone()
    }

    pub(crate) fn submit(&self, op: Op, done: Completion) -> io::Result<()> {
        let mut inner = self.inner.lock();
        // A completion may submit: the writer must not wait for itself.
        let from_writer = inner.writer == Some(std::thread::current().id());
        while inner.end.is_none() && inner.is_full() && !from_writer {
            self.room.wait(&mut inner);
        }
        inner.check_open()?;
        inner.state.submit(op, done)?;
        self.work.notify_one();
        inner.wake_driver();
        Ok(())
    }

    pub(crate) fn save_committed(&self, term: u64, index: u64) -> io::Result<()> {
        let mut inner = self.inner.lock();
        inner.check_open()?;
        inner.state.save_committed((term, index));
        Ok(())
    }

    pub(crate) fn begin_close(&self) {
        let mut inner = self.inner.lock();
        inner.end.get_or_insert(End::Closing);
        self.work.notify_all();
        self.room.notify_all();
        inner.wake_driver();
    }

    /// The calling thread writes; it never waits for room in the queue.
    pub(crate) fn write_here(&self) {
        self.inner.lock().writer = Some(std::thread::current().id());
    }

    /// Whether [`Self::next`] has an answer without waiting; otherwise the waker is told when it has.
    pub(crate) fn poll_batch(&self, waker: &Waker) -> bool {
        let mut inner = self.inner.lock();
        let ready = !inner.state.queue.is_empty() || inner.end.is_some();
        inner.driver = (!ready).then(|| waker.clone());
        ready
    }

    /// Waits for work, or until there was none for so long. After the close it returns what is left.
    pub(crate) fn next(&self, pause: Option<Duration>) -> Next {
        let rest_at = pause.map(|pause| Instant::now() + pause);
        let mut inner = self.inner.lock();
        inner.writer = Some(std::thread::current().id());
        while inner.state.queue.is_empty() {
            if inner.end.is_some() {
                return match inner.state.take_committed(u64::MAX) {
                    None => Next::Ended,
                    committed => Next::Batch(Batch {
                        work: Vec::new(),
                        committed,
                    }),
                };
            }
            match rest_at {
                Some(at) if at <= Instant::now() => return Next::Rest,
                Some(at) => drop(self.work.wait_until(&mut inner, at)),
                None => self.work.wait(&mut inner),
            }
        }
        let batch = inner.take_batch();
        self.room.notify_all();
        Next::Batch(batch)
    }

    /// A batch is durable: `change` updates the positions.
    pub(crate) fn publish<T>(&self, durable: u64, change: impl FnOnce(&mut EntryIndex) -> T) -> T {
        let mut inner = self.inner.lock();
        let out = change(&mut inner.state.index);
        inner.state.cache.evict(durable);
        inner.stats.batches += 1;
        inner.stats.operations = inner.stats.operations.max(durable);
        out
    }

    pub(crate) fn count_fsync(&self, took: std::time::Duration) {
        self.inner.lock().stats.fsync(took);
    }

    /// Ends the log for good and hands back what was queued, so that its completions can be called.
    pub(crate) fn fail(&self, error: &io::Error) -> VecDeque<Queued> {
        let mut inner = self.inner.lock();
        let text = format!("the raft log has failed: {error}");
        tracing::error!("{text}");
        inner.end = Some(End::Failed(error.kind(), text));
        self.room.notify_all();
        inner.state.queued_bytes = 0;
        std::mem::take(&mut inner.state.queue)
    }
}

impl Inner {
    fn wake_driver(&mut self) {
        if let Some(driver) = self.driver.take() {
            driver.wake();
        }
    }

    fn is_full(&self) -> bool {
        self.state.queued_bytes > MAX_QUEUED_BYTES || self.state.queue.len() > MAX_QUEUED
    }

    fn check_open(&self) -> io::Result<()> {
        self.end.as_ref().map_or(Ok(()), |end| Err(end.error()))
    }

    fn take_batch(&mut self) -> Batch {
        let mut bytes = 0;
        let mut work = Vec::new();
        while let Some(queued) = self
            .state
            .queue
            .pop_front_if(|next| work.is_empty() || bytes + next.bytes <= MAX_BATCH_BYTES)
        {
            bytes += queued.bytes;
            work.push(queued);
        }
        self.state.queued_bytes -= bytes;
        let written = self.state.handed_out();
        Batch {
            work,
            committed: self.state.take_committed(written),
        }
    }
}
