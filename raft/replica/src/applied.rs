//! How far this member is: what is applied, for those who wait for it, and what of that is flushed.

use std::sync::Arc;

use barque_store::LogPosition;
use parking_lot::Mutex;
use tokio::sync::watch;

/// The position that the state on disk covers; the log may be purged up to it.
#[derive(Debug, Clone, Default)]
pub struct FlushedState(Arc<Mutex<Option<LogPosition>>>);

impl FlushedState {
    pub fn set(&self, position: Option<LogPosition>) {
        *self.0.lock() = position;
    }

    pub fn get(&self) -> Option<LogPosition> {
        *self.0.lock()
    }

    pub fn covers(&self, position: LogPosition) -> bool {
        self.0
            .lock()
            .is_some_and(|flushed| flushed.index >= position.index)
    }
}

/// What is applied here, for those who wait for it.
#[derive(Debug)]
pub struct Applied {
    position: Mutex<Option<LogPosition>>,
    /// The index of the next entry to apply: 0 while nothing is applied.
    next: watch::Sender<u64>,
    term: watch::Sender<u64>,
}

impl Applied {
    pub fn new(at: Option<LogPosition>) -> Self {
        let term = at.map_or(0, |position| position.term);
        let next = at.map_or(0, |position| position.index + 1);
        Self {
            position: Mutex::new(at),
            next: watch::Sender::new(next),
            term: watch::Sender::new(term),
        }
    }

    pub fn set(&self, position: LogPosition) {
        *self.position.lock() = Some(position);
        self.next.send_replace(position.index + 1);
        self.term.send_if_modified(|term| {
            let changed = *term != position.term;
            *term = position.term;
            changed
        });
    }

    pub fn position(&self) -> Option<LogPosition> {
        *self.position.lock()
    }

    pub fn index(&self) -> u64 {
        self.next.borrow().saturating_sub(1)
    }

    /// Whether the entry at this position is applied. The index alone does not say so: with data that went back in time
    /// somewhere, another history may reach as far, in an earlier term.
    pub fn has(&self, at: LogPosition) -> bool {
        self.position()
            .is_some_and(|applied| applied.index >= at.index && applied.term >= at.term)
    }

    /// Returns when the entry at this position is applied; `false` when the member stops before.
    pub async fn wait_for(&self, at: LogPosition) -> bool {
        self.next.subscribe().wait_for(|_| self.has(at)).await.is_ok()
    }

    /// Returns when the entry at `index` is applied; `false` when the member stops before.
    pub async fn wait_for_index(&self, index: u64) -> bool {
        self.next.subscribe().wait_for(|next| *next > index).await.is_ok()
    }

    /// Returns when nothing of a log that ended at `last` can be missing any more: everything up to its end is
    /// applied, or an entry of a later term, before which whatever of it was committed must lie. `false` when the
    /// member stops before.
    pub async fn wait_to_cover(&self, last: LogPosition) -> bool {
        let (mut next, mut term) = (self.next.subscribe(), self.term.subscribe());
        tokio::select! {
            reached = next.wait_for(|next| *next > last.index) => reached.is_ok(),
            later = term.wait_for(|term| *term > last.term) => later.is_ok(),
        }
    }

    pub fn term(&self) -> watch::Receiver<u64> {
        self.term.subscribe()
    }
}
