//! A log without threads, for simulation: whoever holds the [`Driver`] decides when the writer works.

use std::{sync::Arc, task::Waker};

use crate::{preparer::Preparer, shared::Shared, writer::Writer};

/// Writes what is queued when it is told to. Dropping it leaves everything queued without a completion, as a crash
/// does.
pub struct Driver {
    shared: Arc<Shared>,
    preparer: Arc<Preparer>,
    writer: Writer,
}

impl Driver {
    pub(crate) fn new(shared: Arc<Shared>, preparer: Arc<Preparer>, writer: Writer) -> Driver {
        shared.write_here();
        Driver {
            shared,
            preparer,
            writer,
        }
    }

    /// Whether there is something to do; otherwise the waker is told when there is.
    pub fn poll_work(&self, waker: &Waker) -> bool {
        self.shared.poll_batch(waker)
    }

    /// Prepares what is asked for, then writes, syncs and completes one batch; `false` when the log is closed or
    /// has failed. Only to be called when there is something to do.
    pub fn work(&mut self) -> bool {
        self.preparer.work();
        let goes_on = self.writer.serve_one();
        if !goes_on {
            self.preparer.stop();
        }
        goes_on
    }
}
