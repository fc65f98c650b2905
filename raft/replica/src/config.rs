//! What a replica needs to be told at start.

use std::{net::TcpListener, path::PathBuf, sync::Arc, time::Duration};

use barque_store::StoreConfig;
use barque_wal::WalConfig;

use crate::Host;

/// One line of `--initial-cluster`, with the client URLs it advertises when it is ours.
#[derive(Debug, Clone)]
pub struct MemberConfig {
    pub name: String,
    /// `https://host:port`; etcd's `--initial-advertise-peer-urls`.
    pub peer_urls: Vec<String>,
}

/// Mutual TLS between peers; `None` in [`ReplicaConfig::tls`] means plain `http://` peer URLs.
#[derive(Clone)]
pub struct PeerTls {
    pub server: Arc<rustls::ServerConfig>,
    pub client: Arc<rustls::ClientConfig>,
}

pub struct ReplicaConfig {
    pub name: String,
    /// Holds `wal/`, `state/`, `snap/` and the member's identity file.
    pub data_dir: PathBuf,
    pub store: StoreConfig,
    /// Sizes of the Raft log's segments and cache.
    pub log: WalConfig,
    pub host: Arc<dyn Host>,
    pub initial_cluster: Vec<MemberConfig>,
    /// etcd's `--initial-cluster-token`; part of what the cluster and member IDs are derived from.
    pub initial_cluster_token: String,
    /// `false`: `--initial-cluster-state existing`.
    pub new_cluster: bool,
    pub advertise_client_urls: Vec<String>,
    /// Already bound by the caller, so that a busy port is an error at start.
    pub peer_listeners: Vec<TcpListener>,
    pub tls: Option<PeerTls>,
    /// etcd's `--heartbeat-interval` and `--election-timeout`. The election timeout bounds a failover as a whole:
    /// a follower stands for election after 0.45 to 0.6 of it without a word from the leader, a leader without
    /// its quorum stops taking writes after 0.3 of it, and heartbeats go out twice per interval. At least five
    /// heartbeat intervals.
    pub heartbeat_interval: Duration,
    pub election_timeout: Duration,
    /// Log entries and bytes kept for members that are behind; further behind, they get a snapshot.
    pub snapshot_entries: u64,
    pub snapshot_bytes: u64,
    /// Bound on sending snapshots, in bytes per second; 0: none.
    pub snapshot_bytes_per_second: u64,
    /// Largest encoded batch of commands in one log entry, in bytes. It must fit the log's segments and a message
    /// between members.
    pub max_batch_bytes: usize,
    /// How long a proposal may stay without an outcome before it is reported as timed out (unknown).
    pub request_timeout: Duration,
    /// How often the leader has all members check and compare all their rows; 0: never.
    pub scrub_every: Duration,
    /// How often the remaining TTLs of leases that live longer than this are written into the state, for the next leader
    /// to go on from.
    pub lease_checkpoint_interval: Duration,
}

/// As in etcd.
pub const LEASE_CHECKPOINT_INTERVAL: Duration = Duration::from_secs(300);

#[cfg(test)]
pub mod tests {
    use super::*;

    /// etcd's defaults, for a member that is never started.
    pub fn example() -> ReplicaConfig {
        ReplicaConfig {
            name: "m0".into(),
            data_dir: "/nonexistent".into(),
            store: StoreConfig {
                dir: "/nonexistent/state".into(),
                ring_bytes: 1 << 20,
                block_cache_bytes: 1 << 20,
                quota_backend_bytes: 0,
            },
            log: WalConfig::default(),
            host: Arc::new(crate::RealHost),
            initial_cluster: Vec::new(),
            initial_cluster_token: "etcd-cluster".into(),
            new_cluster: true,
            advertise_client_urls: Vec::new(),
            peer_listeners: Vec::new(),
            tls: None,
            heartbeat_interval: Duration::from_millis(100),
            election_timeout: Duration::from_millis(1000),
            snapshot_entries: 100_000,
            snapshot_bytes: 1 << 30,
            snapshot_bytes_per_second: 0,
            max_batch_bytes: 4 << 20,
            request_timeout: Duration::from_secs(5),
            scrub_every: Duration::ZERO,
            lease_checkpoint_interval: LEASE_CHECKPOINT_INTERVAL,
        }
    }
}
