//! What waits to be sent on one stream: one drain's worth of responses, and the revisions that come in parts.
//!
//! A client that did not ask for fragments gets a revision in one response. Where the subscriber hands one out in parts,
//! the response is put together here; nothing else of its watcher comes in between. With fragments each part leaves when
//! it is large enough. The last one is held back, for it must not say that more follows.

use std::collections::{HashMap, VecDeque};

use barque_proto::etcd::etcdserverpb::ResponseHeader;
use barque_store::watch::{Changes, Matched, WatchId};

use super::{
    frame::{Frame, encoded},
    registry::{Registry, Watcher},
};

/// Revisions join in one response until it measures this much; a revision is never split over two.
const COALESCE_BYTES: usize = 64 * 1024;

#[derive(Default)]
pub(super) struct Outbox {
    frames: VecDeque<Frame>,
    /// Scratch: where in `frames` a watcher's newest one of this drain is.
    newest: HashMap<WatchId, usize>,
    /// Responses that lack the rest of their revision.
    partial: HashMap<WatchId, Frame>,
}

/// One watcher's events of one revision, or of a part of it.
pub(super) struct Delivered<'d> {
    pub id: WatchId,
    pub watcher: Watcher,
    pub header: ResponseHeader,
    pub changes: &'d Changes,
    pub matched: &'d Matched,
    pub is_part: bool,
}

impl Outbox {
    pub fn push(&mut self, frame: Frame) {
        self.frames.push_back(frame);
    }

    pub fn pop(&mut self) -> Option<Frame> {
        self.frames.pop_front()
    }

    /// Bytes of responses that lack the rest of their revision.
    pub fn partial_bytes(&self) -> usize {
        self.partial.values().map(Frame::encoded_len).sum()
    }

    /// `joins`: the drain spans several revisions, which may share a response.
    pub fn add(&mut self, delivered: &Delivered<'_>, joins: bool, max_fragment_bytes: usize) {
        if delivered.is_part || self.partial.contains_key(&delivered.id) {
            self.add_part(delivered, max_fragment_bytes);
            return;
        }
        let newest = self.newest.get(&delivered.id).copied().filter(|_| joins);
        let at = match newest.filter(|at| self.frames[*at].encoded_len() < COALESCE_BYTES) {
            Some(at) => at,
            None => {
                self.frames.push_back(Frame::new(delivered.header, delivered.id));
                self.frames.len() - 1
            }
        };
        if joins {
            self.newest.insert(delivered.id, at);
        }
        self.frames[at].header = delivered.header;
        delivered.fill(&mut self.frames[at]);
    }

    fn add_part(&mut self, delivered: &Delivered<'_>, max_fragment_bytes: usize) {
        let id = delivered.id;
        let mut frame = self
            .partial
            .remove(&id)
            .unwrap_or_else(|| Frame::new(delivered.header, id));
        delivered.fill(&mut frame);
        self.newest.remove(&id);
        if !delivered.is_part {
            self.frames.push_back(frame);
            return;
        }
        if delivered.watcher.fragment {
            let mut fragments = frame.fragments(max_fragment_bytes);
            frame = fragments.pop().expect("at least the last");
            self.frames.extend(fragments);
        }
        self.partial.insert(id, frame);
    }

    /// The watcher is gone.
    pub fn forget(&mut self, id: WatchId) {
        self.newest.remove(&id);
        self.partial.remove(&id);
    }

    /// Ends a drain: splits the responses that are too large, for watchers that asked for it.
    pub fn finish(&mut self, registry: &Registry, max_fragment_bytes: usize) {
        self.newest.clear();
        if self
            .frames
            .iter()
            .all(|frame| frame.encoded_len() <= max_fragment_bytes)
        {
            return;
        }
        for frame in std::mem::take(&mut self.frames) {
            let is_last = !frame.fragment;
            if is_last
                && registry
                    .get(frame.watch_id)
                    .is_some_and(|watcher| watcher.fragment)
            {
                self.frames.extend(frame.fragments(max_fragment_bytes));
            } else {
                self.frames.push_back(frame);
            }
        }
    }
}

impl Delivered<'_> {
    fn fill(&self, frame: &mut Frame) {
        for event in self.matched.events(self.changes) {
            frame.push(encoded(event, self.watcher.prev_kv));
        }
    }
}
