//! A log without threads, for simulation: whoever holds the [`Driver`] decides when the writer works.

use std::{sync::Arc, task::Waker, time::Duration};

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

    /// For how long there must be nothing to do before [`Self::rest`] is due; `None`: it is not.
    pub fn pause(&self) -> Option<Duration> {
        self.writer.pause()
    }

    /// Makes durable how far the log is; `false` when it has failed.
    pub fn rest(&mut self) -> bool {
        let goes_on = self.writer.rest();
        if !goes_on {
            self.preparer.stop();
        }
        goes_on
    }
}

#[cfg(test)]
mod tests {
    use std::{path::Path, time::Instant};

    use super::*;
    use crate::{Wal, WalConfig, files::CutFiles};

    /// Writes on and on, and once as if half a minute had gone by since the mark.
    #[test]
    fn a_log_that_never_rests_is_marked_now_and_then() {
        let files = CutFiles::new(1);
        let config = WalConfig {
            segment_bytes: 16 << 10,
            cache_bytes: 1 << 10,
        };
        let (wal, _, mut driver) = Wal::open_driven(Path::new("/wal"), Arc::new(files), config).unwrap();
        let mut write = |ago: u64| {
            wal.save_vote("v".into(), Box::new(drop)).unwrap();
            let before = Instant::now().checked_sub(Duration::from_secs(ago));
            driver.writer.unmarked_since = before;
            assert!(driver.work());
            driver.pause()
        };
        assert!(write(1).is_some());
        assert!(write(29).is_some());
        assert_eq!(write(31), None, "it is marked");
    }
}
