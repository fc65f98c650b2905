//! openraft wired to the store: one member's replica of the keyspace.
//!
//! Everything above proposes commands and reads through a [`Replica`]; no openraft type leaves this crate.

mod alarm;
mod applied;
mod barrier;
mod batch;
mod blocking;
mod codec;
mod compactor;
mod config;
mod data_dir;
mod error;
mod host;
mod identity;
mod installing;
mod keeper;
mod known_peers;
mod leadership;
mod lessor;
mod lifecycle;
mod log_store;
mod membership;
mod metrics;
mod oversight;
mod peer;
mod proposals;
mod proposer;
mod quota;
mod raft_config;
mod rebuild;
mod refusal;
mod replica;
mod retention;
mod running;
mod sealed;
mod snapshot;
mod start;
mod state_machine;
#[cfg(test)]
mod storage_suite;
mod tasks;
mod types;
mod waiters;

use barque_planted::on as planted;

pub use barque_wal::{FSYNC_BUCKETS_S, WalConfig, WalStats};
pub use config::{LEASE_CHECKPOINT_INTERVAL, MemberConfig, PeerTls, ReplicaConfig};
pub use error::{ProposeError, ReadBarrierError, StartError};
pub use host::{Connection, Host, Listener, RealHost};
pub use lessor::KeepAlive;
pub use membership::MemberError;
pub use metrics::{APPLY_BUCKETS_S, ReplicaMetrics};
pub use proposals::MAX_TXN_DEPTH;
pub use rebuild::ask_for as ask_for_rebuild;
pub use replica::{Leadership, Member, MemberId, PeerLag, Replica, ReplicaStatus};
