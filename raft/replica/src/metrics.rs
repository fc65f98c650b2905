//! Counters of a running replica, as a plain struct for whoever renders them.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use barque_entrance::Figures;
use barque_wal::WalStats;

/// Upper bounds in seconds of the buckets of [`ReplicaMetrics::apply_buckets`].
pub const APPLY_BUCKETS_S: [f64; 10] = [0.0001, 0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.05, 0.2, 1.0];

/// A reading of a replica's counters; everything counts from the start of the process.
#[derive(Debug, Clone, Default)]
pub struct ReplicaMetrics {
    /// Commands answered with an outcome, refused by apply included.
    pub proposals_committed: u64,
    /// Commands queued or in flight now.
    pub proposals_pending: u64,
    /// Commands that ended without an outcome.
    pub proposals_failed: u64,
    pub leader_changes_seen: u64,
    pub has_leader: bool,
    pub is_leader: bool,
    pub read_indexes: u64,
    /// Read barriers served by those: several share one.
    pub read_barriers: u64,
    pub slow_applies: u64,
    pub applied_entries: u64,
    /// Counts per bucket of [`APPLY_BUCKETS_S`] and above, not cumulative.
    pub apply_buckets: Vec<u64>,
    pub apply_sum_s: f64,
    /// Committed entries that this member has yet to apply.
    pub apply_lag: u64,
    pub snapshots_sent: u64,
    pub snapshots_received: u64,
    pub snapshot_failures: u64,
    pub leases_expired: u64,
    /// Members found to have another state than this leader, itself included.
    pub divergences: u64,
    /// Walks through all rows that ended here, what they read, and when the last one ended (Unix time).
    pub scrubs: u64,
    pub scrub_bytes: u64,
    pub scrub_ended_s: u64,
    pub wal: WalStats,
    /// The peers' port.
    pub peer_port: Figures,
}

#[derive(Debug, Default)]
pub struct Counters {
    pub proposals_committed: AtomicU64,
    pub proposals_failed: AtomicU64,
    pub leader_changes_seen: AtomicU64,
    pub read_indexes: AtomicU64,
    pub read_barriers: AtomicU64,
    pub slow_applies: AtomicU64,
    pub applied_entries: AtomicU64,
    pub apply_buckets: [AtomicU64; APPLY_BUCKETS_S.len() + 1],
    pub apply_nanos: AtomicU64,
    pub snapshots_sent: AtomicU64,
    pub snapshots_received: AtomicU64,
    pub snapshot_failures: AtomicU64,
    pub leases_expired: AtomicU64,
    pub divergences: AtomicU64,
    pub scrubs: AtomicU64,
    pub scrub_bytes: AtomicU64,
    pub scrub_ended_s: AtomicU64,
}

pub fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

impl Counters {
    pub fn applied(&self, entries: usize, took: Duration) {
        let seconds = took.as_secs_f64();
        let bucket = APPLY_BUCKETS_S
            .iter()
            .position(|bound| seconds <= *bound)
            .unwrap_or(APPLY_BUCKETS_S.len());
        count(&self.apply_buckets[bucket]);
        self.apply_nanos
            .fetch_add(took.as_nanos() as u64, Ordering::Relaxed);
        self.applied_entries.fetch_add(entries as u64, Ordering::Relaxed);
        if took > Duration::from_millis(100) {
            count(&self.slow_applies);
        }
    }

    pub fn read(&self) -> ReplicaMetrics {
        let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        ReplicaMetrics {
            proposals_committed: get(&self.proposals_committed),
            proposals_failed: get(&self.proposals_failed),
            leader_changes_seen: get(&self.leader_changes_seen),
            read_indexes: get(&self.read_indexes),
            read_barriers: get(&self.read_barriers),
            slow_applies: get(&self.slow_applies),
            applied_entries: get(&self.applied_entries),
            apply_buckets: self.apply_buckets.iter().map(get).collect(),
            apply_sum_s: get(&self.apply_nanos) as f64 / 1e9,
            snapshots_sent: get(&self.snapshots_sent),
            snapshots_received: get(&self.snapshots_received),
            snapshot_failures: get(&self.snapshot_failures),
            leases_expired: get(&self.leases_expired),
            divergences: get(&self.divergences),
            scrubs: get(&self.scrubs),
            scrub_bytes: get(&self.scrub_bytes),
            scrub_ended_s: get(&self.scrub_ended_s),
            ..ReplicaMetrics::default()
        }
    }
}
