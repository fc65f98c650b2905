//! What the etcd services count, for `/metrics` to show; plain atomics, read at any time.

use std::sync::atomic::{AtomicI64, AtomicU64, Ordering::Relaxed};

use tonic::Code;

/// Every RPC, in the order of [`METHODS`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(usize)]
pub enum Method {
    Range,
    Put,
    DeleteRange,
    Txn,
    Compact,
    Watch,
    LeaseGrant,
    LeaseRevoke,
    LeaseKeepAlive,
    LeaseTimeToLive,
    LeaseLeases,
    MemberAdd,
    MemberRemove,
    MemberUpdate,
    MemberList,
    MemberPromote,
    Alarm,
    Status,
    Defragment,
    Hash,
    HashKv,
    Snapshot,
    MoveLeader,
    Downgrade,
    Auth,
}

/// Service and method as gRPC spells them, in the order of [`Method`].
const METHODS: [(&str, &str); 25] = [
    ("etcdserverpb.KV", "Range"),
    ("etcdserverpb.KV", "Put"),
    ("etcdserverpb.KV", "DeleteRange"),
    ("etcdserverpb.KV", "Txn"),
    ("etcdserverpb.KV", "Compact"),
    ("etcdserverpb.Watch", "Watch"),
    ("etcdserverpb.Lease", "LeaseGrant"),
    ("etcdserverpb.Lease", "LeaseRevoke"),
    ("etcdserverpb.Lease", "LeaseKeepAlive"),
    ("etcdserverpb.Lease", "LeaseTimeToLive"),
    ("etcdserverpb.Lease", "LeaseLeases"),
    ("etcdserverpb.Cluster", "MemberAdd"),
    ("etcdserverpb.Cluster", "MemberRemove"),
    ("etcdserverpb.Cluster", "MemberUpdate"),
    ("etcdserverpb.Cluster", "MemberList"),
    ("etcdserverpb.Cluster", "MemberPromote"),
    ("etcdserverpb.Maintenance", "Alarm"),
    ("etcdserverpb.Maintenance", "Status"),
    ("etcdserverpb.Maintenance", "Defragment"),
    ("etcdserverpb.Maintenance", "Hash"),
    ("etcdserverpb.Maintenance", "HashKV"),
    ("etcdserverpb.Maintenance", "Snapshot"),
    ("etcdserverpb.Maintenance", "MoveLeader"),
    ("etcdserverpb.Maintenance", "Downgrade"),
    ("etcdserverpb.Auth", "*"),
];

/// gRPC's codes by number, as `grpc_code` labels spell them.
const CODES: [&str; 17] = [
    "OK",
    "Canceled",
    "Unknown",
    "InvalidArgument",
    "DeadlineExceeded",
    "NotFound",
    "AlreadyExists",
    "PermissionDenied",
    "ResourceExhausted",
    "FailedPrecondition",
    "Aborted",
    "OutOfRange",
    "Unimplemented",
    "Internal",
    "Unavailable",
    "DataLoss",
    "Unauthenticated",
];

#[derive(Debug)]
pub struct EtcdMetrics {
    handled: [[AtomicU64; CODES.len()]; METHODS.len()],
    /// Open watch streams, and the watchers in them.
    pub watch_streams: AtomicI64,
    pub watchers: AtomicI64,
    /// Events and responses handed to watch streams.
    pub events_sent: AtomicU64,
    pub watch_responses_sent: AtomicU64,
    /// Reads of the history on disk on behalf of watchers that had fallen behind.
    pub watch_catch_up_reads: AtomicU64,
    pub watchers_compacted: AtomicU64,
    /// Leases renewed through this member.
    pub lease_keep_alives: AtomicU64,
}

impl Default for EtcdMetrics {
    fn default() -> Self {
        Self {
            handled: std::array::from_fn(|_| std::array::from_fn(|_| AtomicU64::new(0))),
            watch_streams: AtomicI64::new(0),
            watchers: AtomicI64::new(0),
            events_sent: AtomicU64::new(0),
            watch_responses_sent: AtomicU64::new(0),
            watch_catch_up_reads: AtomicU64::new(0),
            watchers_compacted: AtomicU64::new(0),
            lease_keep_alives: AtomicU64::new(0),
        }
    }
}

impl EtcdMetrics {
    pub(crate) fn handled(&self, method: Method, code: Code) {
        self.handled[method as usize][code as usize].fetch_add(1, Relaxed);
    }

    /// Requests answered, as (service, method, code, count); those never seen are left out.
    pub fn requests(&self) -> Vec<(&'static str, &'static str, &'static str, u64)> {
        let mut seen = Vec::new();
        for ((service, method), by_code) in METHODS.iter().zip(&self.handled) {
            for (code, count) in CODES.iter().zip(by_code) {
                let count = count.load(Relaxed);
                if count > 0 {
                    seen.push((*service, *method, *code, count));
                }
            }
        }
        seen
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_stand_in_the_order_of_the_enum() {
        let metrics = EtcdMetrics::default();
        metrics.handled(Method::Range, Code::Ok);
        metrics.handled(Method::HashKv, Code::OutOfRange);
        metrics.handled(Method::Auth, Code::Unauthenticated);
        assert_eq!(
            metrics.requests(),
            vec![
                ("etcdserverpb.KV", "Range", "OK", 1),
                ("etcdserverpb.Maintenance", "HashKV", "OutOfRange", 1),
                ("etcdserverpb.Auth", "*", "Unauthenticated", 1),
            ]
        );
    }
}
