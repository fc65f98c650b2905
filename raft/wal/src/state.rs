//! What the log holds once everything queued is done, and the queue itself; guarded by one lock.

use std::{collections::VecDeque, io, sync::Arc};

use bytes::Bytes;

use crate::{
    Completion, MAX_VOTE_BYTES, Recovered, WalEntry,
    cache::Cache,
    frame,
    index::{EntryIndex, Position},
    segment::Segment,
};

/// (term, index)
pub(crate) type LogId = (u64, u64);

/// What callers ask for.
pub(crate) enum Op {
    Append(Vec<WalEntry>),
    Vote(Bytes),
    Truncate(Option<u64>),
    Purge { term: u64, index: u64 },
    Bound(u64),
}

/// What the writer does: an [`Op`] that was checked against the state.
pub(crate) enum Work {
    Append(Vec<WalEntry>),
    Vote(Bytes),
    /// The new last entry; `None`: nothing is left and nothing was purged.
    Truncate(Option<LogId>),
    Purge(LogId),
    Bound(u64),
}

pub(crate) struct Queued {
    pub work: Work,
    /// Operations are counted from 1.
    pub number: u64,
    pub bytes: usize,
    pub done: Completion,
}

pub(crate) struct State {
    vote: Option<Bytes>,
    committed: Option<LogId>,
    purged: Option<LogId>,
    last: Option<LogId>,
    bound: Option<u64>,
    terms: Terms,
    /// Not yet handed to the writer, and the operation after which it may be written.
    committed_pending: Option<(LogId, u64)>,
    pub cache: Cache,
    /// Positions of what is durable.
    pub index: EntryIndex,
    pub queue: VecDeque<Queued>,
    pub queued_bytes: usize,
    operations: u64,
    max_payload: usize,
}

impl State {
    pub(crate) fn new(
        known: &Recovered,
        index: EntryIndex,
        terms: Terms,
        cache: usize,
        max_payload: usize,
    ) -> State {
        State {
            vote: known.vote.clone(),
            committed: known.committed,
            purged: known.purged,
            last: known.last,
            bound: known.bound,
            terms,
            committed_pending: None,
            cache: Cache::new(cache, known.last.map_or(0, |(_, index)| index + 1)),
            index,
            queue: VecDeque::new(),
            queued_bytes: 0,
            operations: 0,
            max_payload,
        }
    }

    pub(crate) fn known(&self) -> Recovered {
        Recovered {
            vote: self.vote.clone(),
            committed: self.committed,
            purged: self.purged,
            last: self.last,
            bound: self.bound,
            end: None,
        }
    }

    pub(crate) fn purged_index(&self) -> Option<u64> {
        self.purged.map(|(_, index)| index)
    }

    pub(crate) fn last_index(&self) -> Option<u64> {
        self.last.map(|(_, index)| index)
    }

    pub(crate) fn position(&self, index: u64) -> Option<Position> {
        self.index.position(index)
    }

    /// Checks the operation, makes it visible to readers and queues it. An error changes nothing.
    pub(crate) fn submit(&mut self, op: Op, done: Completion) -> io::Result<()> {
        let number = self.operations + 1;
        let work = match op {
            Op::Append(entries) => self.append(entries, number)?,
            Op::Vote(vote) => self.save_vote(vote)?,
            Op::Truncate(last) => self.truncate(last)?,
            Op::Purge { term, index } => self.purge((term, index))?,
            Op::Bound(bound) => {
                self.bound = Some(bound);
                Work::Bound(bound)
            }
        };
        self.operations = number;
        let bytes = work.bytes();
        self.queued_bytes += bytes;
        self.queue.push_back(Queued {
            work,
            number,
            bytes,
            done,
        });
        Ok(())
    }

    fn append(&mut self, entries: Vec<WalEntry>, op: u64) -> io::Result<Work> {
        let mut next = self.last_index().map(|index| index + 1);
        for entry in &entries {
            if entry.payload.len() > self.max_payload {
                let (len, max) = (entry.payload.len(), self.max_payload);
                return Err(invalid(format!(
                    "entry {} has {len} bytes, more than {max}",
                    entry.index
                )));
            }
            if next.is_some_and(|next| next != entry.index) || entry.index == u64::MAX {
                return Err(invalid(format!(
                    "entry {} does not follow the log's end {next:?}",
                    entry.index
                )));
            }
            next = Some(entry.index + 1);
        }
        for entry in &entries {
            self.cache.push(entry.clone(), op);
            self.terms.push(entry.index, entry.term);
            self.last = Some((entry.term, entry.index));
        }
        Ok(Work::Append(entries))
    }

    fn save_vote(&mut self, vote: Bytes) -> io::Result<Work> {
        if vote.len() > MAX_VOTE_BYTES {
            return Err(invalid(format!(
                "a vote of {} bytes, more than {MAX_VOTE_BYTES}",
                vote.len()
            )));
        }
        self.vote = Some(vote.clone());
        Ok(Work::Vote(vote))
    }

    fn truncate(&mut self, last: Option<u64>) -> io::Result<Work> {
        let last = match (last, self.purged) {
            (None, purged) => purged,
            (Some(last), Some(purged)) if last == purged.1 => Some(purged),
            (Some(last), Some(purged)) if last < purged.1 => {
                return Err(invalid(format!(
                    "truncation after {last}, which is purged up to {}",
                    purged.1
                )));
            }
            (Some(last), _) if self.last_index().is_none_or(|index| last >= index) => self.last,
            (Some(last), _) => match self.terms.term(last) {
                Some(term) => Some((term, last)),
                None => return Err(invalid(format!("truncation after {last}, below the first entry"))),
            },
        };
        let from = last.map_or(0, |(_, index)| index + 1);
        self.cache.truncate(from);
        self.terms.truncate(from);
        self.committed = self.committed.filter(|committed| committed.1 < from);
        self.committed_pending = self.committed_pending.filter(|(committed, _)| committed.1 < from);
        self.last = last;
        Ok(Work::Truncate(last))
    }

    fn purge(&mut self, to: LogId) -> io::Result<Work> {
        if to.1 == u64::MAX {
            return Err(invalid(format!("purge up to {}", to.1)));
        }
        let to = match self.purged {
            Some(purged) if purged.1 >= to.1 => purged,
            _ => to,
        };
        self.purged = Some(to);
        if self.last_index().is_none_or(|index| index <= to.1) {
            self.last = Some(to);
        }
        self.cache.purge(to.1);
        self.terms.purge(to.1);
        Ok(Work::Purge(to))
    }

    pub(crate) fn save_committed(&mut self, committed: LogId) {
        if self.last_index().is_some_and(|last| committed.1 <= last) {
            self.committed = Some(committed);
            self.committed_pending = Some((committed, self.operations));
        }
    }

    /// The committed index, when everything it may speak of is written by operation `written`.
    pub(crate) fn take_committed(&mut self, written: u64) -> Option<LogId> {
        Some(self.committed_pending.take_if(|(_, after)| *after <= written)?.0)
    }

    /// Number of the last operation that the writer was handed.
    pub(crate) fn handed_out(&self) -> u64 {
        self.queue.front().map_or(self.operations, |next| next.number - 1)
    }
}

impl Work {
    fn bytes(&self) -> usize {
        match self {
            Work::Append(entries) => entries
                .iter()
                .map(|entry| frame::frame_len(entry.payload.len()) as usize)
                .sum(),
            _ => frame::HEADER_LEN,
        }
    }
}

fn invalid(text: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, text)
}

/// The terms of the log's entries, as runs of entries with the same term.
#[derive(Default)]
pub(crate) struct Terms {
    /// First index of the run, and its term.
    runs: VecDeque<(u64, u64)>,
}

impl Terms {
    pub(crate) fn push(&mut self, index: u64, term: u64) {
        if self.runs.back().is_none_or(|run| run.1 != term) {
            self.runs.push_back((index, term));
        }
    }

    pub(crate) fn truncate(&mut self, from: u64) {
        while self.runs.pop_back_if(|run| run.0 >= from).is_some() {}
    }

    pub(crate) fn purge(&mut self, index: u64) {
        while self.runs.get(1).is_some_and(|run| run.0 <= index + 1) {
            self.runs.pop_front();
        }
    }

    pub(crate) fn term(&self, index: u64) -> Option<u64> {
        let after = self.runs.partition_point(|run| run.0 <= index);
        Some(self.runs[after.checked_sub(1)?].1)
    }
}

/// Segments that are of no more use, oldest first.
pub(crate) type Retired = Vec<Arc<Segment>>;
