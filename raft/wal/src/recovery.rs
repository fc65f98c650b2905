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

use bytes::Bytes;

use crate::{
    Recovered,
    files::Files,
    frame::{self, FrameType, Header, le64},
    index::{Change, EntryIndex},
    planted,
    segment::{self, HEADER_BYTES, START_FIXED, Segment, damaged},
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
    bytes: u64,
}

impl Found {
    /// Total length of the segments, in bytes.
    pub(crate) fn segments(&self) -> u64 {
        self.bytes
    }
}

pub(crate) fn recover(dir: &Path, files: &dyn Files, segment_bytes: u64) -> io::Result<Found> {
    files.create_dir_all(dir)?;
    if let Some(parent) = dir.parent().filter(|parent| !parent.as_os_str().is_empty()) {
        files.sync_dir(parent)?;
    }
    let (seqs, spares) = list(dir, files, segment_bytes)?;
    // A process that was killed may have left names that are visible but not durable.
    files.sync_dir(dir)?;
    if let Some(gap) = seqs.windows(2).find(|pair| pair[0] + 1 != pair[1]) {
        return Err(damaged(
            &segment::path(dir, gap[0] + 1),
            0,
            "the segment is missing",
        ));
    }
    let open = |seq: &u64| Segment::open(dir, files, *seq).map(Arc::new);
    let segments: Vec<Arc<Segment>> = seqs.iter().map(open).collect::<io::Result<_>>()?;
    let mut replay = Replay::default();
    let tail = read_stream(&segments, &mut replay)?;
    replay.check(segments.first())?;
    tail.repair()?;
    let bytes = segments.iter().map(|segment| segment.len).sum();
    let Replay {
        mut known,
        index,
        mut terms,
    } = replay;
    known.committed = known
        .committed
        .filter(|committed| known.last.is_some_and(|last| committed.1 <= last.1));
    if let Some((_, index)) = known.purged {
        terms.purge(index);
    }
    let (current, offset, next) = (tail.segment, tail.end, tail.next);
    Ok(Found {
        recovered: known,
        index,
        terms,
        current,
        offset,
        next,
        spares,
        bytes,
    })
}

/// Sequence numbers of the segments, sorted; removes what was never finished.
fn list(dir: &Path, files: &dyn Files, segment_bytes: u64) -> io::Result<(Vec<u64>, Vec<PathBuf>)> {
    let (mut seqs, mut spares) = (Vec::new(), Vec::new());
    for name in files.list(dir)? {
        let path = dir.join(&name);
        if let Some(seq) = segment::parse_name(&name) {
            seqs.push(seq);
        } else if name.ends_with(".spare")
            && spares.is_empty()
            && files.open(&path, false)?.len()? == segment_bytes
        {
            spares.push(path);
        } else if name.ends_with(".spare") || name.ends_with(".tmp") {
            files.remove(&path)?;
        }
    }
    seqs.sort_unstable();
    Ok((seqs, spares))
}

/// The end of the stream.
#[derive(Default)]
struct Tail {
    segment: Option<Arc<Segment>>,
    end: u64,
    /// Up to here, the torn batch left bytes that must not be read later.
    dirty_end: u64,
    next: Option<Arc<Segment>>,
    /// The last batch that was read: its segment and its bytes.
    last_batch: Option<(Arc<Segment>, u64, Vec<u8>)>,
}

fn read_stream(segments: &[Arc<Segment>], replay: &mut Replay) -> io::Result<Tail> {
    let mut tail = Tail {
        end: HEADER_BYTES,
        ..Tail::default()
    };
    for (position, segment) in segments.iter().enumerate() {
        let bytes = segment.read_all()?;
        if let Some(ended) = &tail.segment {
            if let Some(later) = leftovers(&bytes, segment.seq, HEADER_BYTES, HEADER_BYTES - 1).durable {
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
            tail.end_at(segment, read.end, &bytes)?;
        }
    }
    Ok(tail)
}

impl Tail {
    fn end_at(&mut self, segment: &Arc<Segment>, end: u64, bytes: &[u8]) -> io::Result<()> {
        let left = leftovers(bytes, segment.seq, end, end);
        if let Some(later) = left.durable.filter(|_| !planted("damage-taken-for-torn-end")) {
            let text = format!("the frame there is unreadable, but one written later is whole at {later}");
            return Err(damaged(&segment.path, end, &text));
        }
        (self.segment, self.end, self.dirty_end) = (Some(segment.clone()), end, left.end);
        Ok(())
    }

    /// The last batch may have been seen only in the kernel's memory (its writer was killed, or its sync
    /// failed): it is written once more. What is left of the torn batch is overwritten.
    fn repair(&self) -> io::Result<()> {
        const STEP: usize = 1 << 20;
        if let Some((segment, offset, bytes)) = &self.last_batch {
            segment.file.write_all_at(bytes, *offset)?;
            if !planted("repair-not-synced") {
                segment.file.sync()?;
            }
        }
        let Some(segment) = self.segment.as_ref().filter(|_| self.dirty_end > self.end) else {
            return Ok(());
        };
        let mut offset = self.end;
        while offset < self.dirty_end {
            let step = (self.dirty_end - offset).min(STEP as u64);
            segment.file.write_all_at(&vec![0u8; step as usize], offset)?;
            offset += step;
        }
        segment.file.sync()?;
        let torn = self.dirty_end - self.end;
        tracing::info!("raft log: dropped {torn} bytes of a batch that was never acknowledged");
        Ok(())
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
}

fn leftovers(bytes: &[u8], seq: u64, from: u64, ended: u64) -> Leftovers {
    let mut left = Leftovers {
        durable: None,
        end: from,
    };
    for at in
        (from as usize..bytes.len().saturating_sub(frame::HEADER_LEN - 1)).step_by(frame::ALIGN as usize)
    {
        let Some(header) = frame::header(&bytes[at..], seq, at as u64) else {
            continue;
        };
        let end = at as u64 + frame::frame_len(header.len as usize);
        left.end = left.end.max(end.min(bytes.len() as u64));
        let later = u64::from(header.batch) > ended && left.durable.is_none();
        if later && frame::decode(&bytes[at..], seq, at as u64).is_some() {
            left.durable = Some(at as u64);
        }
    }
    left
}

/// What the frames read so far say.
#[derive(Default)]
struct Replay {
    known: Recovered,
    index: EntryIndex,
    terms: Terms,
}

impl Replay {
    fn start(
        &mut self,
        segment: &Arc<Segment>,
        header: &Header,
        payload: &[u8],
        oldest: bool,
    ) -> Result<(), String> {
        let start = parse_start(header, payload).ok_or("the start frame is malformed")?;
        if oldest {
            self.known = start;
        } else if start != self.known {
            return Err(format!(
                "the segment starts from {start:?}, but the one before ends with {:?}",
                self.known
            ));
        }
        self.index.apply(Change::Segment(segment.clone()));
        Ok(())
    }

    fn frame(&mut self, ty: FrameType, header: &Header, payload: &[u8], offset: u64) -> Result<(), String> {
        let id = (header.term, header.index);
        match ty {
            FrameType::Entry => return self.entry(id, offset, payload.len()),
            FrameType::Vote => self.known.vote = Some(Bytes::copy_from_slice(payload)),
            FrameType::Committed if self.known.last.is_none_or(|last| last.1 < id.1) => {
                return Err(format!("the committed index {} is above the last entry", id.1));
            }
            FrameType::Committed => self.known.committed = Some(id),
            FrameType::Truncate => self.truncate((header.kind == 0).then_some(id)),
            FrameType::Purge => self.purge(id),
            FrameType::Bound => self.known.bound = Some(header.index),
            FrameType::Start | FrameType::Seal => {}
        }
        Ok(())
    }

    fn entry(&mut self, id: LogId, offset: u64, len: usize) -> Result<(), String> {
        let (term, index) = id;
        if let Some((_, last)) = self.known.last.filter(|last| last.1 + 1 != index) {
            return Err(format!("entry {index} follows entry {last}"));
        }
        self.index.apply(Change::Entry { index, offset, len });
        self.terms.push(index, term);
        self.known.last = Some(id);
        Ok(())
    }

    fn truncate(&mut self, last: Option<LogId>) {
        let from = last.map_or(0, |(_, index)| index + 1);
        self.index.apply(Change::Truncate { from });
        self.terms.truncate(from);
        self.known.committed = self.known.committed.filter(|committed| committed.1 < from);
        self.known.last = last;
    }

    fn purge(&mut self, to: LogId) {
        let jump = self.known.last.is_none_or(|(_, last)| last <= to.1);
        if jump {
            self.known.last = Some(to);
            self.terms = Terms::default();
        }
        self.known.purged = Some(to);
        self.index.apply(Change::Purge { index: to.1, jump });
    }

    /// Every entry that is not purged must have been found.
    fn check(&self, oldest: Option<&Arc<Segment>>) -> io::Result<()> {
        let Some(oldest) = oldest else { return Ok(()) };
        if self.index.segment_count() == 0 && oldest.seq > 1 {
            return Err(damaged(
                &oldest.path,
                HEADER_BYTES,
                "the frame there is unreadable, and nothing is before it",
            ));
        }
        let first = match (self.known.purged, self.known.last) {
            (Some((_, purged)), Some((_, last))) if last > purged => Some(purged + 1),
            (None, Some(_)) => self.index.first().or(Some(0)),
            _ => None,
        };
        if self.known.purged.is_none() && oldest.seq > 1 {
            return Err(damaged(
                &oldest.path,
                0,
                "nothing was purged, but the segments before are missing",
            ));
        }
        match first {
            Some(first) if self.index.position(first).is_none() => Err(damaged(
                &oldest.path,
                HEADER_BYTES,
                &format!("entry {first} was never purged, but is missing"),
            )),
            _ => Ok(()),
        }
    }
}

const HAS_LAST: u64 = 1;
const HAS_PURGED: u64 = 2;
const HAS_COMMITTED: u64 = 4;
const HAS_BOUND: u64 = 8;
const HAS_VOTE: u64 = 16;

/// Payload of a start frame: all that is known at the segment's start. The last log id is in the frame itself.
pub(crate) fn start_payload(known: &Recovered) -> Vec<u8> {
    let flags = [
        (HAS_LAST, known.last.is_some()),
        (HAS_PURGED, known.purged.is_some()),
        (HAS_COMMITTED, known.committed.is_some()),
        (HAS_BOUND, known.bound.is_some()),
        (HAS_VOTE, known.vote.is_some()),
    ];
    let flags: u64 = flags.iter().filter(|(_, set)| *set).map(|(flag, _)| flag).sum();
    let (purged, committed) = (
        known.purged.unwrap_or_default(),
        known.committed.unwrap_or_default(),
    );
    let numbers = [
        flags,
        purged.0,
        purged.1,
        committed.0,
        committed.1,
        known.bound.unwrap_or_default(),
    ];
    let mut payload: Vec<u8> = numbers.iter().flat_map(|number| number.to_le_bytes()).collect();
    payload.extend_from_slice(known.vote.as_deref().unwrap_or_default());
    payload
}

fn parse_start(header: &Header, payload: &[u8]) -> Option<Recovered> {
    let fixed = payload.get(..START_FIXED)?;
    let flags = le64(fixed, 0);
    let has = |flag| flags & flag != 0;
    Some(Recovered {
        last: has(HAS_LAST).then_some((header.term, header.index)),
        purged: has(HAS_PURGED).then_some((le64(fixed, 8), le64(fixed, 16))),
        committed: has(HAS_COMMITTED).then_some((le64(fixed, 24), le64(fixed, 32))),
        bound: has(HAS_BOUND).then_some(le64(fixed, 40)),
        vote: has(HAS_VOTE).then(|| Bytes::copy_from_slice(&payload[START_FIXED..])),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn golden_start_payload() {
        let known = Recovered {
            vote: Some(Bytes::from_static(b"v")),
            committed: Some((2, 9)),
            purged: Some((1, 5)),
            last: Some((3, 12)),
            bound: None,
        };
        let mut expected = [
            [22 + 1, 0, 0, 0, 0, 0, 0, 0],
            [1, 0, 0, 0, 0, 0, 0, 0],
            [5, 0, 0, 0, 0, 0, 0, 0],
        ]
        .concat();
        expected.extend([[2, 0, 0, 0, 0, 0, 0, 0], [9, 0, 0, 0, 0, 0, 0, 0], [0; 8]].concat());
        expected.push(b'v');
        assert_eq!(start_payload(&known), expected);
        let header = Header {
            len: 49,
            crc: 0,
            ty: 1,
            kind: 0,
            batch: 4096,
            term: 3,
            index: 12,
        };
        assert_eq!(parse_start(&header, &expected), Some(known));
        assert_eq!(parse_start(&header, &expected[..47]), None);
    }
}
