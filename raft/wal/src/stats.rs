//! Counts for `/metrics`: how many syncs, and how long they took.

use std::time::Duration;

#[derive(Debug, Clone, Default)]
pub struct WalStats {
    pub bytes_on_disk: u64,
    /// The disk had no room for the next segment: the log ends when the current one is full.
    pub out_of_space: bool,
    /// Operations whose completion was called, and the batches they were written in.
    pub operations: u64,
    pub batches: u64,
    /// Of the writer: those that something waited for.
    pub fsyncs: u64,
    /// Counts per bucket of [`FSYNC_BUCKETS_S`] (not cumulative), one more at the end for longer ones; and the
    /// sum in seconds.
    pub fsync_buckets: Vec<u64>,
    pub fsync_sum_s: f64,
}

/// etcd's own buckets for `wal_fsync_duration_seconds`: 1 ms doubling to 8.192 s.
pub const FSYNC_BUCKETS_S: [f64; 14] = [
    0.001, 0.002, 0.004, 0.008, 0.016, 0.032, 0.064, 0.128, 0.256, 0.512, 1.024, 2.048, 4.096, 8.192,
];

impl WalStats {
    pub(crate) fn empty() -> WalStats {
        WalStats {
            fsync_buckets: vec![0; FSYNC_BUCKETS_S.len() + 1],
            ..WalStats::default()
        }
    }

    pub(crate) fn fsync(&mut self, took: Duration) {
        let seconds = took.as_secs_f64();
        self.fsyncs += 1;
        self.fsync_buckets[FSYNC_BUCKETS_S.partition_point(|bound| *bound < seconds)] += 1;
        self.fsync_sum_s += seconds;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_holds_what_is_at_most_its_bound() {
        let mut stats = WalStats::empty();
        for micros in [1, 1000, 1001, 8_192_000, 9_000_000] {
            stats.fsync(Duration::from_micros(micros));
        }
        let filled: Vec<_> = stats
            .fsync_buckets
            .iter()
            .enumerate()
            .filter(|(_, count)| **count > 0)
            .collect();
        assert_eq!(filled, [(0, &2), (1, &1), (13, &1), (14, &1)]);
        assert_eq!(stats.fsyncs, 5);
    }
}
