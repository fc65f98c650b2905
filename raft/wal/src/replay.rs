//! What the frames of the stream say, read one after the other; and the start frame, in which a segment says it all.
//!
//! A whole frame is believed only where the writer could have written it: an index that leaps or overflows is damage
//! (or another program's work), and is told as such before it is counted with.

use std::{io, sync::Arc};

use bytes::Bytes;

use crate::{
    MAX_VOTE_BYTES, Recovered,
    frame::{FrameType, Header, le64},
    index::{Change, EntryIndex},
    segment::{HEADER_BYTES, START_FIXED, Segment, damaged},
    state::{LogId, Terms},
};

/// What the frames read so far say.
#[derive(Default)]
pub(crate) struct Replay {
    pub known: Recovered,
    pub index: EntryIndex,
    pub terms: Terms,
}

impl Replay {
    pub(crate) fn start(
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

    pub(crate) fn frame(
        &mut self,
        ty: FrameType,
        header: &Header,
        payload: &[u8],
        offset: u64,
    ) -> Result<(), String> {
        let id = (header.term, header.index);
        if ty != FrameType::Bound && !is_index(id) {
            return Err(format!("no entry has index {}", id.1));
        }
        match ty {
            FrameType::Entry => return self.entry(id, offset, payload.len()),
            FrameType::Vote if payload.len() > MAX_VOTE_BYTES => {
                return Err(format!("a vote of {} bytes", payload.len()));
            }
            FrameType::Vote => self.known.vote = Some(Bytes::copy_from_slice(payload)),
            FrameType::Committed if self.known.last.is_none_or(|last| last.1 < id.1) => {
                return Err(format!("the committed index {} is above the last entry", id.1));
            }
            FrameType::Committed => self.known.committed = Some(id),
            FrameType::Truncate => return self.truncate((header.kind == 0).then_some(id)),
            FrameType::Purge => return self.purge(id),
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

    fn truncate(&mut self, last: Option<LogId>) -> Result<(), String> {
        let index = |id: Option<LogId>| id.map(|(_, index)| index);
        if index(last) > index(self.known.last) || index(last) < index(self.known.purged) {
            return Err(format!(
                "a truncation after {last:?} of a log from {:?} to {:?}",
                self.known.purged, self.known.last
            ));
        }
        let from = last.map_or(0, |(_, index)| index + 1);
        self.index.apply(Change::Truncate { from });
        self.terms.truncate(from);
        self.known.committed = self.known.committed.filter(|committed| committed.1 < from);
        self.known.last = last;
        Ok(())
    }

    fn purge(&mut self, to: LogId) -> Result<(), String> {
        if let Some(purged) = self.known.purged.filter(|purged| purged.1 > to.1) {
            return Err(format!("a purge up to {} after one up to {}", to.1, purged.1));
        }
        let jump = self.known.last.is_none_or(|(_, last)| last <= to.1);
        if jump {
            self.known.last = Some(to);
            self.terms = Terms::default();
        }
        self.known.purged = Some(to);
        self.index.apply(Change::Purge { index: to.1, jump });
        Ok(())
    }

    /// Every entry that is not purged must have been found.
    pub(crate) fn check(&self, oldest: Option<&Arc<Segment>>) -> io::Result<()> {
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
    let (fixed, vote) = payload.split_at_checked(START_FIXED)?;
    let flags = le64(fixed, 0);
    let has = |flag| flags & flag != 0;
    let start = Recovered {
        last: has(HAS_LAST).then_some((header.term, header.index)),
        purged: has(HAS_PURGED).then_some((le64(fixed, 8), le64(fixed, 16))),
        committed: has(HAS_COMMITTED).then_some((le64(fixed, 24), le64(fixed, 32))),
        bound: has(HAS_BOUND).then_some(le64(fixed, 40)),
        vote: has(HAS_VOTE).then(|| Bytes::copy_from_slice(vote)),
        end: None,
    };
    let indexes = [start.last, start.purged, start.committed];
    let is_possible = vote.len() <= MAX_VOTE_BYTES && indexes.into_iter().flatten().all(is_index);
    is_possible.then_some(start)
}

/// The largest number is no index: what follows it could not be counted.
fn is_index(id: LogId) -> bool {
    id.1 != u64::MAX
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
            end: None,
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

    fn header(term: u64, index: u64) -> Header {
        Header {
            len: 0,
            crc: 0,
            ty: 0,
            kind: 0,
            batch: 4096,
            term,
            index,
        }
    }

    /// Whole frames that no log of this program holds; each would be counted with, or believed.
    #[test]
    fn frames_that_cannot_be_are_damage() {
        let wrong: [(FrameType, Header, usize); 9] = [
            (FrameType::Entry, header(2, 7), 0),
            (FrameType::Entry, header(2, 5), 0),
            (FrameType::Entry, header(2, u64::MAX), 0),
            (FrameType::Vote, header(0, 0), MAX_VOTE_BYTES + 1),
            (FrameType::Committed, header(2, 6), 0),
            (FrameType::Truncate, header(2, 6), 0),
            (FrameType::Truncate, header(2, 2), 0),
            (FrameType::Purge, header(2, 2), 0),
            (FrameType::Purge, header(2, u64::MAX), 0),
        ];
        for (ty, header, len) in wrong {
            let mut replay = Replay::default();
            replay.known.purged = Some((1, 3));
            replay.known.last = Some((2, 5));
            let before = replay.known.clone();
            let payload = vec![0; len];
            assert!(
                replay.frame(ty, &header, &payload, 4176).is_err(),
                "{ty:?} {header:?}"
            );
            assert_eq!(replay.known, before);
        }
        let known = Recovered {
            purged: Some((1, u64::MAX)),
            ..Recovered::default()
        };
        assert_eq!(parse_start(&header(0, 0), &start_payload(&known)), None);
        let known = Recovered {
            vote: Some(vec![1; MAX_VOTE_BYTES + 1].into()),
            ..Recovered::default()
        };
        assert_eq!(parse_start(&header(0, 0), &start_payload(&known)), None);
    }
}
