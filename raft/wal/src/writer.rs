//! The writer: drains the queue, writes once, syncs once, completes in order.

use std::{
    io,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;

use crate::{
    Completion, Recovered, WalEntry,
    frame::{self, Frame, FrameType, Place},
    index::Change,
    mark::{Mark, MarkFile},
    planted,
    preparer::Preparer,
    replay::start_payload,
    segment::{self, Segment},
    shared::{Batch, Next, Shared},
    state::{LogId, Queued, Work},
};

/// After the last batch, once nothing else came for so long, the mark is raised: at most once per pause.
const PAUSE: Duration = Duration::from_secs(1);
/// A log that never rests is marked this often, so that it is not unmarked for ever: one small sync among thousands.
const LONGEST_UNMARKED: Duration = Duration::from_secs(30);

pub(crate) struct Writer {
    shared: Arc<Shared>,
    preparer: Arc<Preparer>,
    segment: Arc<Segment>,
    /// Where the buffer goes: everything before is durable.
    batch: u64,
    buffer: Vec<u8>,
    /// What a reader of the stream knows after the last frame in the buffer.
    stream: Recovered,
    changes: Vec<Change>,
    marks: MarkFile,
    /// When the first batch that is beyond the mark became durable.
    pub(crate) unmarked_since: Option<Instant>,
}

pub(crate) fn spawn(writer: Writer) -> io::Result<std::thread::JoinHandle<()>> {
    std::thread::Builder::new()
        .name("wal-writer".into())
        .spawn(move || writer.run())
}

impl Writer {
    pub(crate) fn new(
        shared: Arc<Shared>,
        preparer: Arc<Preparer>,
        segment: Arc<Segment>,
        offset: u64,
        marks: MarkFile,
        known: &Recovered,
    ) -> Writer {
        let mut changes = Vec::new();
        if offset == segment::HEADER_BYTES {
            changes.push(Change::Segment(segment.clone()));
        }
        let stream = known.clone();
        Writer {
            shared,
            preparer,
            segment,
            batch: offset,
            buffer: Vec::new(),
            stream,
            changes,
            marks,
            unmarked_since: None,
        }
    }

    fn run(mut self) {
        let shared = self.shared.clone();
        let preparer = self.preparer.clone();
        let outcome = catch_unwind(AssertUnwindSafe(|| while self.serve_one() {}));
        preparer.stop();
        if outcome.is_err() {
            let error = io::Error::other("the writer panicked");
            complete(
                shared.fail(&error).into_iter().map(|queued| queued.done),
                Err(error),
            );
        }
    }

    /// Waits for something to do and does it; `false` when it was the last.
    pub(crate) fn serve_one(&mut self) -> bool {
        match self.shared.next(self.pause()) {
            Next::Batch(batch) => self.serve(batch),
            Next::Rest => self.rest(),
            Next::Ended => {
                self.rest();
                false
            }
        }
    }

    fn serve(&mut self, Batch { work, committed }: Batch) -> bool {
        let durable = work.last().map_or(0, |queued| queued.number);
        let (work, done): (Vec<Work>, Vec<Completion>) = work
            .into_iter()
            .map(|Queued { work, done, .. }| (work, done))
            .unzip();
        if let Err(error) = self.write(work, committed, durable) {
            self.fail(done, error);
            return false;
        }
        complete(done, Ok(()));
        let unmarked = *self.unmarked_since.get_or_insert_with(Instant::now);
        unmarked.elapsed() < LONGEST_UNMARKED || self.rest()
    }

    /// How long nothing must be asked for before the log is marked; `None`: it is.
    pub(crate) fn pause(&self) -> Option<Duration> {
        self.unmarked_since.map(|_| PAUSE)
    }

    /// Marks the log up to where it is durable. A disk that fails to keep the mark is trusted with nothing more.
    pub(crate) fn rest(&mut self) -> bool {
        if self.unmarked_since.take().is_none() {
            return true;
        }
        let end = Mark {
            seq: self.segment.seq,
            offset: self.batch,
            last: self.stream.last,
        };
        let marked = self.marks.raise(end);
        marked.map_err(|error| self.fail(Vec::new(), error)).is_ok()
    }

    /// Nothing more is written: what was under way fails, and then what is queued.
    fn fail(&self, done: Vec<Completion>, error: io::Error) {
        let queued = self.shared.fail(&error);
        let queued = queued.into_iter().map(|queued| queued.done);
        complete(done.into_iter().chain(queued), Err(error));
    }

    fn write(&mut self, work: Vec<Work>, committed: Option<LogId>, durable: u64) -> io::Result<()> {
        for work in work {
            self.encode(work)?;
        }
        if let Some(committed) = committed {
            self.record(FrameType::Committed, 0, committed, &[])?;
            self.stream.committed = Some(committed);
        }
        self.flush()?;
        let changes = std::mem::take(&mut self.changes);
        let purged = self.stream.purged.map(|(_, index)| index);
        let retired = self.shared.publish(durable, |index| {
            let purges = changes
                .iter()
                .any(|change| matches!(change, Change::Purge { .. }));
            changes.into_iter().for_each(|change| index.apply(change));
            purged
                .filter(|_| purges)
                .map(|purged| index.retire(purged))
                .unwrap_or_default()
        });
        self.preparer.retire(retired);
        Ok(())
    }

    fn encode(&mut self, work: Work) -> io::Result<()> {
        match work {
            Work::Append(entries) => entries.iter().try_for_each(|entry| self.entry(entry)),
            Work::Vote(vote) => self.vote(vote),
            Work::Truncate(last) => self.truncate(last),
            Work::Purge(to) => self.purge(to),
            Work::Bound(bound) => {
                self.record(FrameType::Bound, 0, (0, bound), &[])?;
                self.stream.bound = Some(bound);
                Ok(())
            }
        }
    }

    fn entry(&mut self, entry: &WalEntry) -> io::Result<()> {
        let offset = self.record(
            FrameType::Entry,
            entry.kind,
            (entry.term, entry.index),
            &entry.payload,
        )?;
        self.stream.last = Some((entry.term, entry.index));
        self.changes.push(Change::Entry {
            index: entry.index,
            offset,
            len: entry.payload.len(),
        });
        Ok(())
    }

    fn vote(&mut self, vote: Bytes) -> io::Result<()> {
        if planted("vote-forgotten") {
            return Ok(());
        }
        self.record(FrameType::Vote, 0, (0, 0), &vote)?;
        self.stream.vote = Some(vote);
        Ok(())
    }

    fn truncate(&mut self, last: Option<LogId>) -> io::Result<()> {
        if !planted("truncate-not-written") {
            let none_left = u8::from(last.is_none());
            self.record(FrameType::Truncate, none_left, last.unwrap_or_default(), &[])?;
        }
        self.stream.last = last;
        let from = last.map_or(0, |(_, index)| index + 1);
        self.stream.committed = self.stream.committed.filter(|committed| committed.1 < from);
        self.changes.push(Change::Truncate { from });
        Ok(())
    }

    fn purge(&mut self, to: LogId) -> io::Result<()> {
        self.record(FrameType::Purge, 0, to, &[])?;
        self.stream.purged = Some(to);
        let jump = self.stream.last.is_none_or(|(_, last)| last <= to.1);
        if jump {
            self.stream.last = Some(to);
        }
        self.changes.push(Change::Purge { index: to.1, jump });
        Ok(())
    }

    /// Puts a frame into the buffer and says at which offset it will lie.
    fn record(&mut self, ty: FrameType, kind: u8, (term, index): LogId, payload: &[u8]) -> io::Result<u64> {
        let seal = frame::frame_len(0);
        if self.end() + frame::frame_len(payload.len()) + self.start_len() + seal > self.segment.len {
            self.rotate()?;
        }
        self.start();
        let offset = self.end();
        self.push(Frame {
            ty,
            kind,
            term,
            index,
            payload,
        });
        Ok(offset)
    }

    fn end(&self) -> u64 {
        self.batch + self.buffer.len() as u64
    }

    fn push(&mut self, frame: Frame<'_>) {
        let place = Place {
            seq: self.segment.seq,
            offset: self.end(),
            batch: self.batch,
        };
        frame::encode(&mut self.buffer, place, &frame);
    }

    /// Bytes of the start frame, when it is still to be written.
    fn start_len(&self) -> u64 {
        let vote = self.stream.vote.as_ref().map_or(0, |vote| vote.len());
        if self.end() == segment::HEADER_BYTES {
            frame::frame_len(segment::START_FIXED + vote)
        } else {
            0
        }
    }

    fn start(&mut self) {
        if self.end() == segment::HEADER_BYTES {
            let payload = start_payload(&self.stream);
            let (term, index) = self.stream.last.unwrap_or_default();
            self.push(Frame {
                ty: FrameType::Start,
                kind: 0,
                term,
                index,
                payload: &payload,
            });
        }
    }

    /// Leaves this segment for the next. That one has its name before the seal is written, so that a seal
    /// without a next segment is damage; and the seal is durable before the next one is written.
    fn rotate(&mut self) -> io::Result<()> {
        let next = self.preparer.take(self.segment.seq + 1)?;
        self.start();
        self.push(Frame {
            ty: FrameType::Seal,
            kind: 0,
            term: 0,
            index: 0,
            payload: &[],
        });
        self.flush()?;
        self.preparer.expect(next.seq + 1, None);
        self.changes.push(Change::Segment(next.clone()));
        self.segment = next;
        self.batch = segment::HEADER_BYTES;
        Ok(())
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.buffer.is_empty() {
            return Ok(());
        }
        self.segment.write(&self.buffer, self.batch)?;
        let start = Instant::now();
        if !planted("ack-before-fsync") {
            let synced = self.segment.sync(self.batch);
            if !planted("sync-error-ignored") {
                synced?;
            }
        }
        self.shared.count_fsync(start.elapsed());
        self.batch += self.buffer.len() as u64;
        self.buffer.clear();
        self.buffer.shrink_to(1 << 20);
        Ok(())
    }
}

fn complete(done: impl IntoIterator<Item = Completion>, outcome: io::Result<()>) {
    for done in done {
        done(match &outcome {
            Ok(()) => Ok(()),
            Err(error) => Err(io::Error::new(error.kind(), error.to_string())),
        });
    }
}
