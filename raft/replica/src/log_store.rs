//! Raft's log, vote and committed index over the WAL.
//!
//! [`LogStore`] is openraft's `RaftLogStorage` and `RaftLogReader`. It also publishes up to where the log is on
//! stable storage here ([`Durable`]): apply waits for that, so that a restarted member never finds itself with
//! a log shorter than what it had served.

use std::{
    fmt::Debug,
    io,
    ops::{Bound, RangeBounds},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use barque_wal::{Completion, Recovered, Wal, WalEntry};
use futures_util::Stream;
use openraft::{
    OptionalSend, RaftLogReader,
    storage::{IOFlushed, LogState, RaftLogStorage},
};
use parking_lot::Mutex;
use tokio::sync::{oneshot, watch};

use crate::{
    applied::{Applied, FlushedState},
    blocking::block,
    codec,
    installing::Installing,
    peer::agreement::gone_back,
    planted,
    types::{Entry, LogId, TypeConfig, Vote, log_id},
};

/// Bytes per message to a follower, and per chunk handed to apply.
const READ_BYTES: usize = 1 << 20;
/// Entries this close to the end are read from memory; older ones may come from disk.
const LIKELY_CACHED: u64 = 2048;

/// The index up to which the log is on stable storage. Goes back only when entries are truncated.
#[derive(Clone)]
pub struct Durable {
    tx: Arc<watch::Sender<Option<u64>>>,
}

impl Durable {
    fn new(last: Option<u64>) -> Self {
        Self {
            tx: Arc::new(watch::Sender::new(last)),
        }
    }

    fn advance(&self, index: u64) {
        self.tx.send_if_modified(|durable| {
            let forward = durable.is_none_or(|at| at < index);
            if forward {
                *durable = Some(index);
            }
            forward
        });
    }

    fn retreat(&self, index: Option<u64>) {
        self.tx.send_if_modified(|durable| {
            let back = *durable > index;
            if back {
                *durable = index;
            }
            back
        });
    }

    #[cfg(test)]
    pub fn set(&self, index: Option<u64>) {
        self.tx.send_replace(index);
    }

    pub async fn wait_for(&self, index: u64) -> io::Result<()> {
        if self.tx.borrow().is_some_and(|at| at >= index) {
            return Ok(());
        }
        let mut rx = self.tx.subscribe();
        let covered = rx.wait_for(|at| at.is_some_and(|at| at >= index)).await;
        covered
            .map(drop)
            .map_err(|_| io::Error::other("the log is closed"))
    }
}

#[derive(Clone)]
pub struct LogStore {
    wal: Wal,
    shared: Arc<Mutex<Shared>>,
    pub durable: Durable,
    flushed: FlushedState,
    applied: Arc<Applied>,
    installing: Installing,
    /// Set when the log may not be written any more: a purge would have lost entries.
    poisoned: Arc<AtomicBool>,
}

struct Shared {
    vote: Option<Vote>,
    committed: Option<LogId>,
    purged: Option<LogId>,
    /// The index of the first entry, when nothing was ever purged.
    first: u64,
    last: Option<LogId>,
}

impl LogStore {
    pub fn new(
        wal: Wal,
        recovered: Recovered,
        flushed: FlushedState,
        applied: Arc<Applied>,
        installing: Installing,
    ) -> io::Result<Self> {
        let id = |at: (u64, u64)| log_id(at.0, at.1);
        let shared = Shared {
            vote: recovered.vote.map(codec::decode_vote).transpose()?,
            committed: recovered.committed.map(id),
            purged: recovered.purged.map(id),
            first: 0,
            last: recovered.last.map(id).or(recovered.purged.map(id)),
        };
        let durable = Durable::new(shared.last.map(|id| id.index));
        Ok(Self {
            wal,
            shared: Arc::new(Mutex::new(shared)),
            durable,
            flushed,
            applied,
            installing,
            poisoned: Arc::default(),
        })
    }

    fn write_allowed(&self) -> io::Result<()> {
        match self.poisoned.load(Ordering::Acquire) {
            false => Ok(()),
            true => Err(io::Error::other("the log was stopped by a broken invariant")),
        }
    }

    /// What was applied here, or is known to be committed: it never changes any more.
    pub fn settled(&self) -> Option<LogId> {
        let applied = self.applied.position().map(codec::log_id_at);
        self.shared.lock().committed.max(applied)
    }

    /// Who leads or led in this term, as far as this member has accepted it.
    pub fn leader_of(&self, term: u64) -> Option<u64> {
        let vote = self.shared.lock().vote?;
        (vote.committed && vote.leader_id.term == term).then_some(vote.leader_id.voted_for)
    }

    /// The term of the entry at this index; `None`: it is purged, or cannot be read.
    pub fn term_at(&self, index: u64) -> Option<u64> {
        if let Some(purged) = self.shared.lock().purged.filter(|purged| index <= purged.index) {
            return (index == purged.index).then_some(purged.leader_id.term);
        }
        let read = self.read(index, index + 1, 1).ok()?;
        read.first().map(|entry| entry.term)
    }

    /// Whether what follows `last` may be removed: nothing of it is settled.
    fn check_may_go(&self, last: Option<LogId>) -> io::Result<()> {
        let first_removed = last.map_or(0, |id| id.index + 1);
        let Some(settled) = self.settled().filter(|settled| settled.index >= first_removed) else {
            return Ok(());
        };
        if planted("settled-entries-removed") {
            return Ok(());
        }
        self.poisoned.store(true, Ordering::Release);
        let text = format!("the leader takes back this member's log from entry {first_removed} on");
        Err(io::Error::other(gone_back(&text, settled.index)))
    }

    fn read(&self, start: u64, end: u64, max_bytes: usize) -> io::Result<Vec<WalEntry>> {
        let near_end = self
            .shared
            .lock()
            .last
            .is_none_or(|last| start + LIKELY_CACHED > last.index);
        if near_end {
            return self.wal.read(start..end, max_bytes);
        }
        block(|| self.wal.read(start..end, max_bytes))
    }

    /// The part of `range` that the log holds, as a half-open range.
    fn clip(&self, range: &impl RangeBounds<u64>) -> (u64, u64) {
        let start = match range.start_bound() {
            Bound::Included(at) => *at,
            Bound::Excluded(at) => at + 1,
            Bound::Unbounded => 0,
        };
        let end = match range.end_bound() {
            Bound::Included(at) => at + 1,
            Bound::Excluded(at) => *at,
            Bound::Unbounded => u64::MAX,
        };
        let shared = self.shared.lock();
        let first = shared.purged.map_or(shared.first, |id| id.index + 1);
        let next = shared.last.map_or(0, |id| id.index + 1);
        (start.max(first), end.min(next))
    }

    fn read_all(&self, mut start: u64, end: u64) -> io::Result<Vec<Entry>> {
        let mut entries = Vec::new();
        while start < end {
            let read = self.read(start, end, READ_BYTES)?;
            start = next_start(start, &read)?;
            for entry in read {
                entries.push(codec::entry_from_wal(entry)?);
            }
        }
        Ok(entries)
    }
}

/// Checks that a read began where it was asked to, without holes, and says where the next one begins.
fn next_start(start: u64, read: &[WalEntry]) -> io::Result<u64> {
    let consecutive = read
        .iter()
        .zip(start..)
        .all(|(entry, index)| entry.index == index);
    match read.last() {
        Some(last) if consecutive => Ok(last.index + 1),
        _ => Err(codec::corrupt(
            "log",
            format!("entries from index {start} on are missing"),
        )),
    }
}

/// A completion and the receiver that it answers.
fn completion() -> (Completion, oneshot::Receiver<io::Result<()>>) {
    let (tx, rx) = oneshot::channel();
    (Box::new(move |result| drop(tx.send(result))), rx)
}

async fn completed(rx: oneshot::Receiver<io::Result<()>>) -> io::Result<()> {
    rx.await
        .unwrap_or_else(|_| Err(io::Error::other("the log's writer has ended")))
}

impl RaftLogReader<TypeConfig> for LogStore {
    async fn try_get_log_entries<RB>(&mut self, range: RB) -> io::Result<Vec<Entry>>
    where
        RB: RangeBounds<u64> + Clone + Debug + OptionalSend,
    {
        let (start, end) = self.clip(&range);
        self.read_all(start, end)
    }

    async fn read_vote(&mut self) -> io::Result<Option<Vote>> {
        Ok(self.shared.lock().vote)
    }

    async fn limited_get_log_entries(&mut self, start: u64, end: u64) -> io::Result<Vec<Entry>> {
        if start >= end {
            return Ok(Vec::new());
        }
        let read = self.read(start, end, READ_BYTES)?;
        next_start(start, &read)?;
        read.into_iter().map(codec::entry_from_wal).collect()
    }

    async fn entries_stream<RB>(&mut self, range: RB) -> impl Stream<Item = io::Result<Entry>> + OptionalSend
    where
        RB: RangeBounds<u64> + Clone + Debug + OptionalSend,
    {
        let (start, end) = self.clip(&range);
        EntryStream {
            log: self.clone(),
            next: start,
            end,
            read: Vec::new().into_iter(),
        }
    }
}

/// Reads entries a chunk at a time as they are asked for.
struct EntryStream {
    log: LogStore,
    next: u64,
    end: u64,
    read: std::vec::IntoIter<WalEntry>,
}

impl EntryStream {
    fn next_entry(&mut self) -> io::Result<Option<Entry>> {
        if self.read.as_slice().is_empty() {
            if self.next >= self.end {
                return Ok(None);
            }
            let read = self.log.read(self.next, self.end, READ_BYTES)?;
            self.next = next_start(self.next, &read)?;
            self.read = read.into_iter();
        }
        self.read.next().map(codec::entry_from_wal).transpose()
    }
}

impl Stream for EntryStream {
    type Item = io::Result<Entry>;

    fn poll_next(
        mut self: std::pin::Pin<&mut Self>,
        _: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Self::Item>> {
        let next = self.next_entry();
        if next.is_err() {
            self.next = self.end;
        }
        std::task::Poll::Ready(next.transpose())
    }
}

impl RaftLogStorage<TypeConfig> for LogStore {
    type LogReader = Self;

    async fn get_log_state(&mut self) -> io::Result<LogState<TypeConfig>> {
        let shared = self.shared.lock();
        Ok(LogState {
            last_purged_log_id: shared.purged,
            last_log_id: shared.last,
        })
    }

    async fn get_log_reader(&mut self) -> Self {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &Vote) -> io::Result<()> {
        self.write_allowed()?;
        let (done, rx) = completion();
        self.wal.save_vote(codec::encode_vote(vote), done)?;
        completed(rx).await?;
        self.shared.lock().vote = Some(*vote);
        Ok(())
    }

    async fn save_committed(&mut self, committed: Option<LogId>) -> io::Result<()> {
        let Some(id) = committed.filter(|_| !planted("committed-not-saved")) else {
            return Ok(());
        };
        self.wal.save_committed(id.leader_id.term, id.index)?;
        self.shared.lock().committed = Some(id);
        Ok(())
    }

    async fn read_committed(&mut self) -> io::Result<Option<LogId>> {
        Ok(self.shared.lock().committed)
    }

    async fn append<I>(&mut self, entries: I, callback: IOFlushed<TypeConfig>) -> io::Result<()>
    where
        I: IntoIterator<Item = Entry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        self.write_allowed()?;
        let entries: Vec<WalEntry> = entries
            .into_iter()
            .map(|entry| codec::entry_to_wal(&entry))
            .collect();
        let Some(last) = entries.last() else {
            callback.io_completed(Ok(()));
            return Ok(());
        };
        let last = log_id(last.term, last.index);
        let first = entries.first().map_or(0, |entry| entry.index);
        let durable = self.durable.clone();
        let done: Completion = Box::new(move |result| {
            if result.is_ok() {
                durable.advance(last.index);
            }
            callback.io_completed(result);
        });
        self.wal.append(entries, done)?;
        let mut shared = self.shared.lock();
        if shared.last.is_none() {
            shared.first = first;
        }
        shared.last = Some(last);
        Ok(())
    }

    /// Waits until the truncation is durable: every earlier append has completed by then, so none can move
    /// the durable index over entries that are gone.
    async fn truncate_after(&mut self, last: Option<LogId>) -> io::Result<()> {
        self.write_allowed()?;
        self.check_may_go(last)?;
        let (done, rx) = completion();
        self.wal.truncate_after(last.map(|id| id.index), done)?;
        {
            // After an end beyond the log's own there is nothing to remove, and the log does not grow.
            let mut shared = self.shared.lock();
            if last.map(|id| id.index) < shared.last.map(|id| id.index) {
                shared.last = last;
            }
        }
        completed(rx).await?;
        self.durable.retreat(last.map(|id| id.index));
        Ok(())
    }

    async fn purge(&mut self, id: LogId) -> io::Result<()> {
        self.write_allowed()?;
        if !self.flushed.covers(codec::position(&id)) {
            self.poisoned.store(true, Ordering::Release);
            let text = format!("purge up to {id} asked for, but the state on disk does not cover it");
            return Err(io::Error::other(text));
        }
        let (done, rx) = completion();
        self.wal.purge(id.leader_id.term, id.index, done)?;
        {
            let mut shared = self.shared.lock();
            shared.purged = shared.purged.max(Some(id));
            if shared.last.is_none_or(|last| last.index <= id.index) {
                shared.last = Some(id);
            }
        }
        completed(rx).await?;
        self.durable.advance(id.index);
        block(|| self.installing.done())
    }
}
