//! Bounds the log that is kept, in bytes: openraft bounds it in entries.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::types::Raft;

/// How finely the log's size is known.
const STEP_BYTES: u64 = 1 << 20;
const BUILD_TIMEOUT: Duration = Duration::from_secs(600);

/// The size of the applied log, step by step.
#[derive(Debug, Default)]
pub struct LogSize {
    inner: Mutex<Steps>,
    /// The log has grown by a good part of what may be kept.
    pub grown: Notify,
    keep_bytes: u64,
}

#[derive(Debug, Default)]
struct Steps {
    total: u64,
    told: u64,
    /// Index, and the total up to and including it.
    steps: VecDeque<(u64, u64)>,
}

impl LogSize {
    pub fn new(keep_bytes: u64) -> Arc<Self> {
        Arc::new(Self {
            keep_bytes,
            ..Self::default()
        })
    }

    pub fn applied(&self, index: u64, bytes: u64) {
        let mut inner = self.inner.lock();
        inner.total += bytes;
        let total = inner.total;
        if inner.steps.back().is_none_or(|(_, at)| total >= at + STEP_BYTES) {
            inner.steps.push_back((index, total));
        }
        if total > self.keep_bytes && total - inner.told >= self.keep_bytes / 4 {
            inner.told = total;
            self.grown.notify_one();
        }
    }

    /// The last index whose entry, and all before it, are too much.
    fn too_old(&self) -> Option<u64> {
        let mut inner = self.inner.lock();
        let limit = inner.total.checked_sub(self.keep_bytes)?;
        let mut last = None;
        while let Some((index, at)) = inner.steps.front().copied() {
            if at > limit {
                break;
            }
            last = Some(index);
            inner.steps.pop_front();
        }
        last
    }
}

/// Flushes the state and purges the log before what is kept, whenever it has grown.
pub async fn keep_bounded(raft: Raft, size: Arc<LogSize>) {
    loop {
        size.grown.notified().await;
        let Some(index) = size.too_old() else { continue };
        if raft.trigger().snapshot().await.is_err() {
            return;
        }
        let covers = |metrics: &openraft::RaftMetrics<crate::types::TypeConfig>| {
            metrics.snapshot.is_some_and(|snapshot| snapshot.index >= index)
        };
        match raft
            .wait(Some(BUILD_TIMEOUT))
            .metrics(covers, "the state is flushed")
            .await
        {
            Ok(_) if raft.trigger().purge_log(index).await.is_ok() => {}
            Ok(_) => return,
            Err(error) => tracing::warn!(%error, index, "the log could not be purged"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_beyond_the_bound_is_too_old() {
        let size = LogSize::new(10 * STEP_BYTES);
        for index in 1..=10 {
            size.applied(index, STEP_BYTES);
        }
        assert_eq!(size.too_old(), None);
        for index in 11..=14 {
            size.applied(index, STEP_BYTES);
        }
        assert_eq!(size.too_old(), Some(4));
        assert_eq!(size.too_old(), None);
    }
}
