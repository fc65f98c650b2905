//! Opening a log: reads the stream, tells a torn end from damage, and makes the end safe to write behind.
//!
//! Every frame says where its batch began, and a batch is written only when the one before is durable. So when
//! a frame is unreadable at offset P, the crash explains it only if no later frame belongs to a batch that began
//! after P; otherwise something that had been durable is gone, which is an error and never a shorter log.

use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use crate::{
    LogEnd, Recovered,
    files::Files,
    frame::{self, FrameType},
    index::EntryIndex,
    mark::{self, MarkFile},
    planted, preparer,
    replay::Replay,
    segment::{self, HEADER_BYTES, Segment, damaged},
    state::{LogId, Terms},
};

/// An opened log.
pub(crate) struct Found {
    pub recovered: Recovered,
    pub index: EntryIndex,
    pub terms: Terms,
    /// Where writing goes on, and at which offset; `None`: a new log.
    pub current: Option<Arc<Segment>>,
    pub offset: u64,
    /// The segment after it, when it had been made already.
    pub next: Option<Arc<Segment>>,
    pub spares: Vec<PathBuf>,
    /// `None`: this log had none yet.
    pub marks: Option<MarkFile>,
    bytes: u64,
}

impl Found {
    /// Total length of the segments, in bytes.
    pub(crate) fn segments(&self) -> u64 {
        self.bytes
    }
}

/// Nothing is written, renamed or removed before everything has been read and found to be in order: a log that is
/// refused stays as it is.
pub(crate) fn recover(dir: &Path, files: &dyn Files, segment_bytes: u64) -> io::Result<Found> {
    files.create_dir_all(dir)?;
    if let Some(parent) = dir.parent().filter(|parent| !parent.as_os_str().is_empty()) {
        files.sync_dir(parent)?;
    }
    let listing = Listing::of(dir, files, segment_bytes)?;
    // A process that was killed may have left names that are visible but not durable.
    files.sync_dir(dir)?;
    listing.check(dir)?;
    let open = |seq: &u64| Segment::open(dir, files, *seq).map(Arc::new);
    let segments: Vec<Arc<Segment>> = listing.seqs.iter().map(open).collect::<io::Result<_>>()?;
    let mut replay = Replay::default();
    let tail = read_stream(&segments, &mut replay)?;
    replay.check(segments.first())?;
    let marks = listing.marked.then(|| MarkFile::open(dir, files)).transpose()?;
    if let Some(marks) = &marks {
        marks.check(tail.place(), dir)?;
    }
    tail.repair()?;
    listing.useless.iter().try_for_each(|path| files.remove(path))?;
    let recovered = known(&replay, &tail);
    tail.tell(&recovered, marks.is_some());
    let Replay { index, mut terms, .. } = replay;
    if let Some((_, index)) = recovered.purged {
        terms.purge(index);
    }
    Ok(Found {
        recovered,
        index,
        terms,
        current: tail.segment,
        offset: tail.end,
        next: tail.next,
        spares: listing.spares,
        marks,
        bytes: segments.iter().map(|segment| segment.len).sum(),
    })
}

fn known(replay: &Replay, tail: &Tail) -> Recovered {
    let last = replay.known.last;
    let is_held = |committed: &LogId| last.is_some_and(|last| committed.1 <= last.1);
    let end = tail.segment.as_ref().map(|segment| LogEnd {
        path: segment.path.clone(),
        offset: tail.end,
        torn_bytes: tail.torn_end - tail.end,
    });
    Recovered {
        committed: replay.known.committed.filter(is_held),
        end,
        ..replay.known.clone()
    }
}

/// The files of a log, by their names. Others are left alone.
#[derive(Default)]
struct Listing {
    /// Sequence numbers of the segments, sorted.
    seqs: Vec<u64>,
    spares: Vec<PathBuf>,
    marked: bool,
    /// What was never finished, and spares above their number.
    useless: Vec<PathBuf>,
}

impl Listing {
    fn of(dir: &Path, files: &dyn Files, segment_bytes: u64) -> io::Result<Listing> {
        let mut listing = Listing::default();
        for name in files.list(dir)? {
            let path = dir.join(&name);
            if let Some(seq) = segment::parse_name(&name, "wal") {
                listing.seqs.push(seq);
            } else if segment::parse_name(&name, "spare").is_some() {
                let fits = files.open(&path, false)?.len()? == segment_bytes;
                let kept = fits && listing.spares.is_empty();
                let place = if kept {
                    &mut listing.spares
                } else {
                    &mut listing.useless
                };
                place.push(path);
            } else if name == mark::NAME {
                listing.marked = true;
            } else if [mark::NEW_NAME, preparer::NEW_NAME].contains(&name.as_str()) {
                listing.useless.push(path);
            }
        }
        listing.seqs.sort_unstable();
        Ok(listing)
    }

    fn check(&self, dir: &Path) -> io::Result<()> {
        if let Some(gap) = self.seqs.windows(2).find(|pair| pair[0] + 1 != pair[1]) {
            let missing = segment::path(dir, gap[0] + 1);
            return Err(damaged(&missing, 0, "the segment is missing"));
        }
        // A segment becomes a spare when a later one is in use.
        let spare = self.spares.iter().chain(&self.useless).find(|path| {
            let spare = path.extension().is_some_and(|extension| extension == "spare");
            spare && self.seqs.is_empty()
        });
        match spare {
            Some(spare) => Err(damaged(spare, 0, "a spare is there, but no segment of its log")),
            None => Ok(()),
        }
    }
}

/// The end of the stream.
#[derive(Default)]
struct Tail {
    segment: Option<Arc<Segment>>,
    end: u64,
    /// Up to here, there are bytes that must not be read later.
    dirty_end: u64,
    /// Up to here, there are bytes of a batch that is not whole; `end` when there are none.
    torn_end: u64,
    next: Option<Arc<Segment>>,
    /// The last batch that was read: its segment and its bytes.
    last_batch: Option<(Arc<Segment>, u64, Vec<u8>)>,
}

fn read_stream(segments: &[Arc<Segment>], replay: &mut Replay) -> io::Result<Tail> {
    let mut tail = Tail {
        end: HEADER_BYTES,
        torn_end: HEADER_BYTES,
        ..Tail::default()
    };
    for (position, segment) in segments.iter().enumerate() {
        let bytes = segment.read_all()?;
        if let Some(ended) = &tail.segment {
            if let Some(later) = leftovers(&bytes, segment.seq, HEADER_BYTES, 0, HEADER_BYTES - 1).durable {
                let text = format!(
                    "the frame there is unreadable, but {} goes on at {later}",
                    segment.path.display()
                );
                return Err(damaged(&ended.path, tail.end, &text));
            }
            if tail.next.is_some() {
                return Err(damaged(
                    &ended.path,
                    tail.end,
                    "the segment is not sealed, but two more follow",
                ));
            }
            tail.next = Some(segment.clone());
            continue;
        }
        let read = scan(&bytes, segment, position == 0, replay)?;
        if read.end > HEADER_BYTES {
            let batch = bytes[read.batch as usize..read.end as usize].to_vec();
            tail.last_batch = Some((segment.clone(), read.batch, batch));
        }
        if read.sealed && position + 1 == segments.len() {
            return Err(damaged(
                &segment.path,
                read.end,
                "the segment is sealed, but the next one is missing",
            ));
        }
        if !read.sealed {
            tail.end_at(segment, &read, &bytes)?;
        }
    }
    Ok(tail)
}

impl Tail {
    fn end_at(&mut self, segment: &Arc<Segment>, read: &Scan, bytes: &[u8]) -> io::Result<()> {
        let end = read.end;
        let left = leftovers(bytes, segment.seq, end, read.batch, end);
        if let Some(later) = left.durable.filter(|_| !planted("damage-taken-for-torn-end")) {
            let text = format!("the frame there is unreadable, but one written later is whole at {later}");
            return Err(damaged(&segment.path, end, &text));
        }
        let (dirty_end, torn_end) = match segment.zeroed {
            // Whatever is there was of this log, readable or not.
            true => (left.end.max(behind_last(bytes, end)), behind_last(bytes, end)),
            false => (left.end, left.torn_end),
        };
        self.segment = Some(segment.clone());
        (self.end, self.dirty_end, self.torn_end) = (end, dirty_end, torn_end);
        Ok(())
    }

    fn place(&self) -> Option<(&Segment, u64)> {
        Some((self.segment.as_ref()?, self.end))
    }

    /// The last batch may have been seen only in the kernel's memory (its writer was killed, or its sync
    /// failed): it is written once more. What is left of the torn batch is overwritten.
    fn repair(&self) -> io::Result<()> {
        const STEP: usize = 1 << 20;
        if let Some((segment, offset, bytes)) = &self.last_batch {
            segment.write(bytes, *offset)?;
            if !planted("repair-not-synced") {
                segment.sync(*offset)?;
            }
        }
        let Some(segment) = self.segment.as_ref().filter(|_| self.dirty_end > self.end) else {
            return Ok(());
        };
        let mut offset = self.end;
        while offset < self.dirty_end {
            let step = (self.dirty_end - offset).min(STEP as u64);
            segment.write(&vec![0u8; step as usize], offset)?;
            offset += step;
        }
        segment.sync(self.end)
    }

    /// Says what is known of the end, and no more: a crash in the middle of a write leaves the same bytes as damage
    /// to a batch that was acknowledged since the last mark.
    fn tell(&self, known: &Recovered, marked: bool) {
        let Some((segment, offset)) = self.place() else {
            return;
        };
        let file = segment.path.display();
        let bytes = self.torn_end - self.end;
        if bytes > 0 {
            let last = known
                .last
                .map_or("none".into(), |(term, index)| format!("{index} of term {term}"));
            tracing::warn!(
                %file, offset, bytes, last_entry = last,
                "the raft log's last batch is not whole and is dropped; it may have been acknowledged"
            );
        }
        if !marked && (offset > HEADER_BYTES || segment.seq > 1) {
            tracing::warn!(
                %file, offset,
                "the raft log has no mark yet that says up to where it was durable: whether it ends early cannot be told"
            );
        }
    }
}

struct Scan {
    /// Behind the last readable frame.
    end: u64,
    /// Where the batch of the last frame began.
    batch: u64,
    sealed: bool,
}

fn scan(bytes: &[u8], segment: &Arc<Segment>, oldest: bool, replay: &mut Replay) -> io::Result<Scan> {
    let mut scan = Scan {
        end: HEADER_BYTES,
        batch: HEADER_BYTES,
        sealed: false,
    };
    while let Some((header, payload)) = frame::decode(&bytes[scan.end as usize..], segment.seq, scan.end) {
        let Some(ty) = FrameType::of(header.ty) else {
            let text = format!("frame type {} is not known to this program", header.ty);
            return Err(damaged(&segment.path, scan.end, &text));
        };
        let first = scan.end == HEADER_BYTES;
        if first != (ty == FrameType::Start) {
            return Err(damaged(
                &segment.path,
                scan.end,
                "a start frame is missing or out of place",
            ));
        }
        let applied = match ty {
            FrameType::Start => replay.start(segment, &header, payload, oldest),
            _ => replay.frame(ty, &header, payload, scan.end),
        };
        applied.map_err(|what| damaged(&segment.path, scan.end, &what))?;
        scan.batch = header.batch.into();
        scan.end += frame::frame_len(payload.len());
        if ty == FrameType::Seal {
            scan.sealed = true;
            break;
        }
        if scan.end + frame::HEADER_LEN as u64 > segment.len {
            break;
        }
    }
    Ok(scan)
}

struct Leftovers {
    /// Offset of a whole frame whose batch began after `ended`: what lay at `ended` was durable then.
    durable: Option<u64>,
    /// Behind the last bytes that a frame of this segment may cover.
    end: u64,
    /// Behind the last bytes of a frame that belongs to the batch that is not whole. The header's own check has 16
    /// bits, which among an older log's frames are right by chance now and then; the batch field has 32 more.
    torn_end: u64,
}

/// Looks at what is behind `from`: the frame there is not whole, the one before it is of `batch`.
fn leftovers(bytes: &[u8], seq: u64, from: u64, batch: u64, ended: u64) -> Leftovers {
    let mut left = Leftovers {
        durable: None,
        end: from,
        torn_end: from,
    };
    for at in
        (from as usize..bytes.len().saturating_sub(frame::HEADER_LEN - 1)).step_by(frame::ALIGN as usize)
    {
        let Some(header) = frame::header(&bytes[at..], seq, at as u64) else {
            continue;
        };
        let end = at as u64 + frame::frame_len(header.len as usize);
        let end = end.min(bytes.len() as u64);
        left.end = left.end.max(end);
        if [from, batch].contains(&header.batch.into()) {
            left.torn_end = left.torn_end.max(end);
        }
        let later = u64::from(header.batch) > ended && left.durable.is_none();
        if later && frame::decode(&bytes[at..], seq, at as u64).is_some() {
            left.durable = Some(at as u64);
        }
    }
    left
}

/// Behind the last byte from `from` on that is not zero, padded as a frame is.
fn behind_last(bytes: &[u8], from: u64) -> u64 {
    let last = bytes[from as usize..].iter().rposition(|byte| *byte != 0);
    last.map_or(from, |last| {
        (from + last as u64 + 1).next_multiple_of(frame::ALIGN)
    })
}
