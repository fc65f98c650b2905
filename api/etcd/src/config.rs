//! What the etcd services need to be told; defaults and flag names are etcd's.

use std::time::Duration;

use bytes::Bytes;

/// What a gRPC message may be larger than the request in it, before it is refused unread.
const GRPC_OVERHEAD_BYTES: usize = 512 * 1024;

#[derive(Debug, Clone)]
pub struct EtcdConfig {
    /// `--max-txn-ops`.
    pub max_txn_ops: usize,
    /// `--max-request-bytes`.
    pub max_request_bytes: usize,
    /// `--watch-progress-notify-interval`.
    pub watch_progress_notify_interval: Duration,
    /// `--election-timeout`: the shortest lease and the patience with a missing leader derive from it.
    pub election_timeout: Duration,
    /// `--quota-backend-bytes`, for Status to report: the replica keeps to it. 0: no limit.
    pub quota_backend_bytes: u64,
    /// Keys below this belong to the Kubernetes API: writes through the etcd API are refused. `None` where
    /// there is no Kubernetes API, or where the operator allows such writes.
    pub protected_prefix: Option<Bytes>,
    /// How many large ranges (and hashes) may be read at once.
    pub large_reads: usize,
    /// How many watch streams may read history from disk at once.
    pub catch_ups: usize,
    /// How many watchers one stream may hold.
    pub max_watchers_per_stream: usize,
}

impl Default for EtcdConfig {
    fn default() -> Self {
        Self {
            max_txn_ops: 128,
            max_request_bytes: 3 * 1024 * 1024 / 2,
            watch_progress_notify_interval: Duration::from_secs(600),
            election_timeout: Duration::from_secs(1),
            quota_backend_bytes: 0,
            protected_prefix: None,
            large_reads: 4,
            catch_ups: 4,
            max_watchers_per_stream: 100_000,
        }
    }
}

impl EtcdConfig {
    /// The largest message read from a connection; also what a fragment of a watch response may measure.
    pub(crate) fn max_message_bytes(&self) -> usize {
        self.max_request_bytes + GRPC_OVERHEAD_BYTES
    }

    /// A lease must outlive an election: one and a half election timeouts, in whole seconds.
    pub(crate) fn min_lease_ttl_s(&self) -> i64 {
        let least_ms = self.election_timeout.as_millis() as i64 * 3 / 2;
        (least_ms + 999) / 1000
    }
}
