//! Where each entry lies: eight bytes per entry, grouped by segment.

use std::{collections::VecDeque, sync::Arc};

use crate::segment::Segment;

/// Where one entry's frame lies.
#[derive(Clone)]
pub(crate) struct Position {
    pub segment: Arc<Segment>,
    pub offset: u64,
    /// Of the payload.
    pub len: usize,
}

impl PartialEq for Position {
    fn eq(&self, other: &Self) -> bool {
        (self.segment.seq, self.offset) == (other.segment.seq, other.offset)
    }
}

struct SegmentEntries {
    segment: Arc<Segment>,
    /// Index of the entry at `places[0]`.
    first: u64,
    /// Offset and payload length.
    places: Vec<(u32, u32)>,
}

impl SegmentEntries {
    fn end(&self) -> u64 {
        self.first + self.places.len() as u64
    }
}

/// The positions of the entries that are durable, by index, and the segments from the oldest to the current.
#[derive(Default)]
pub(crate) struct EntryIndex {
    segments: VecDeque<SegmentEntries>,
}

/// What a written batch changed; applied in order.
pub(crate) enum Change {
    Segment(Arc<Segment>),
    Entry {
        index: u64,
        offset: u64,
        len: usize,
    },
    /// Entries from this index on are gone.
    Truncate {
        from: u64,
    },
    /// Entries up to this index are gone, `jump`: and all others too.
    Purge {
        index: u64,
        jump: bool,
    },
}

impl EntryIndex {
    pub(crate) fn apply(&mut self, change: Change) {
        match change {
            Change::Segment(segment) => {
                self.segments.push_back(SegmentEntries {
                    segment,
                    first: 0,
                    places: Vec::new(),
                });
            }
            Change::Entry { index, offset, len } => self.push(index, offset, len),
            Change::Truncate { from } => self.truncate(from),
            Change::Purge { jump: true, .. } => self.truncate(0),
            Change::Purge { index, jump: false } => self.forget(index),
        }
    }

    fn push(&mut self, index: u64, offset: u64, len: usize) {
        let Some(last) = self.segments.back_mut() else {
            panic!("an entry is placed before any segment");
        };
        if last.places.is_empty() {
            last.first = index;
        }
        assert_eq!(
            last.end(),
            index,
            "entries are placed in the order of their index"
        );
        last.places.push((offset as u32, len as u32));
    }

    fn truncate(&mut self, from: u64) {
        for entries in self.segments.iter_mut().rev() {
            let keep = from.saturating_sub(entries.first) as usize;
            if entries.places.len() <= keep && !entries.places.is_empty() {
                return;
            }
            entries.places.truncate(keep);
        }
    }

    /// Drops the positions of whole segments that are purged; the segments stay until they are retired.
    fn forget(&mut self, index: u64) {
        for entries in self
            .segments
            .iter_mut()
            .take_while(|entries| entries.end() <= index + 1)
        {
            entries.places = Vec::new();
        }
    }

    /// Removes the oldest segments as long as nothing in them is above `purged`; never the current one.
    pub(crate) fn retire(&mut self, purged: u64) -> Vec<Arc<Segment>> {
        let mut retired = Vec::new();
        while self.segments.len() > 1 {
            let oldest = &self.segments[0];
            if !oldest.places.is_empty() && oldest.end() > purged + 1 {
                break;
            }
            retired.extend(self.segments.pop_front().map(|entries| entries.segment));
        }
        retired
    }

    pub(crate) fn position(&self, index: u64) -> Option<Position> {
        let found =
            self.segments.iter().rev().find(|entries| {
                !entries.places.is_empty() && entries.first <= index && index < entries.end()
            })?;
        let (offset, len) = found.places[(index - found.first) as usize];
        Some(Position {
            segment: found.segment.clone(),
            offset: offset.into(),
            len: len as usize,
        })
    }

    /// The lowest index that has a position.
    pub(crate) fn first(&self) -> Option<u64> {
        self.segments
            .iter()
            .find(|entries| !entries.places.is_empty())
            .map(|entries| entries.first)
    }

    pub(crate) fn segment_count(&self) -> usize {
        self.segments.len()
    }
}
