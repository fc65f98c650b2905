//! Reading entries: the newest from memory, older ones from the files, their checksums verified.

use std::{io, ops::Range};

use bytes::Bytes;

use crate::{
    WalEntry,
    frame::{self, FrameType},
    index::Position,
    segment,
    shared::{Locked, Shared},
};

/// Neighbouring entries are read together, up to this many bytes.
const MAX_READ: u64 = 1 << 20;

pub(crate) fn read(shared: &Shared, range: Range<u64>, max_bytes: usize) -> io::Result<Vec<WalEntry>> {
    let mut entries = Vec::new();
    let mut budget = Budget {
        left: max_bytes,
        any: false,
    };
    let mut next = range.start;
    loop {
        let positions = {
            let state = shared.lock_healthy()?;
            match plan(&state, next..range.end, &mut budget, &mut entries)? {
                Some(positions) => positions,
                None => return Ok(entries),
            }
        };
        match read_run(&positions) {
            Ok(read) => {
                next += read.len() as u64;
                entries.extend(read);
            }
            // A purge or a truncation may have taken the file while it was read.
            Err(error) if is_current(shared, next, &positions[0])? => return Err(error),
            Err(_) => {}
        }
    }
}

struct Budget {
    left: usize,
    any: bool,
}

impl Budget {
    /// Whether one more entry of this size may be taken; the first always may.
    fn take(&mut self, bytes: usize) -> bool {
        if self.any && bytes > self.left {
            self.left = 0;
            return false;
        }
        self.any = true;
        self.left = self.left.saturating_sub(bytes);
        true
    }
}

/// Takes what is cached, or says where the next run of entries lies; `None` at the end.
fn plan(
    state: &Locked<'_>,
    range: Range<u64>,
    budget: &mut Budget,
    entries: &mut Vec<WalEntry>,
) -> io::Result<Option<Vec<Position>>> {
    let end = range.end.min(state.last_index().map_or(0, |last| last + 1));
    if range.start >= end || (budget.any && budget.left == 0) {
        return Ok(None);
    }
    if state.purged_index().is_some_and(|purged| range.start <= purged) {
        return Err(io::Error::new(
            io::ErrorKind::NotFound,
            format!("entry {} is purged", range.start),
        ));
    }
    if range.start >= state.cache.first() {
        let cached = state
            .cache
            .from(range.start)
            .take_while(|entry| entry.index < end);
        for entry in cached {
            if !budget.take(entry.payload.len()) {
                break;
            }
            entries.push(entry.clone());
        }
        return Ok(None);
    }
    run(state, range.start..end.min(state.cache.first()), budget)
}

/// Positions that lie one behind the other in one file.
fn run(state: &Locked<'_>, range: Range<u64>, budget: &mut Budget) -> io::Result<Option<Vec<Position>>> {
    let mut positions: Vec<Position> = Vec::new();
    for index in range {
        let Some(position) = state.position(index) else {
            let text = format!("entry {index} is neither in memory nor in a file of the raft log");
            return Err(io::Error::new(io::ErrorKind::InvalidData, text));
        };
        let apart = positions.first().is_some_and(|first| {
            first.segment.seq != position.segment.seq || end_of(&position) - first.offset > MAX_READ
        });
        if apart || !budget.take(position.len) {
            break;
        }
        positions.push(position);
    }
    Ok((!positions.is_empty()).then_some(positions))
}

fn end_of(position: &Position) -> u64 {
    position.offset + frame::frame_len(position.len)
}

fn read_run(positions: &[Position]) -> io::Result<Vec<WalEntry>> {
    let (first, last) = (&positions[0], &positions[positions.len() - 1]);
    let segment = &first.segment;
    let mut bytes = vec![0u8; (end_of(last) - first.offset) as usize];
    segment::read_exact(segment.file.as_ref(), &mut bytes, first.offset)
        .map_err(|error| segment::at(&segment.path, first.offset, error))?;
    let bytes = Bytes::from(bytes);
    positions
        .iter()
        .map(|position| entry(&bytes, first.offset, position))
        .collect()
}

fn entry(bytes: &Bytes, start: u64, position: &Position) -> io::Result<WalEntry> {
    let at = (position.offset - start) as usize;
    match frame::decode(&bytes[at..], position.segment.seq, position.offset) {
        Some((header, payload)) if header.ty == FrameType::Entry as u8 => {
            let payload = bytes.slice_ref(payload);
            Ok(WalEntry {
                term: header.term,
                index: header.index,
                kind: header.kind,
                payload,
            })
        }
        _ => Err(segment::damaged(
            &position.segment.path,
            position.offset,
            "the entry there is not readable",
        )),
    }
}

fn is_current(shared: &Shared, index: u64, position: &Position) -> io::Result<bool> {
    let state = shared.lock_healthy()?;
    let alive = state.purged_index().is_none_or(|purged| index > purged);
    Ok(alive && index < state.cache.first() && state.position(index).is_some_and(|now| now == *position))
}
