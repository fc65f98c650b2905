//! The etcd v3 services over one member's replica.
//!
//! [`EtcdServer`] holds them and gives the routes to mount. Requests become commands for
//! [`barque_replica::Replica`] or reads of its store; this crate keeps no state of the keyspace, and never
//! sends a proposal twice.

mod auth;
mod cluster;
mod compact;
mod config;
mod delete_range;
mod errors;
mod front;
mod health;
mod kv;
mod leaderless;
mod lease;
mod maintenance;
mod metrics;
mod overlap;
mod protect;
mod put;
mod range;
mod read_txn;
mod server;
#[cfg(test)]
mod service_tests;
mod translate;
mod txn;
mod validate;
mod watch;

use barque_planted::on as planted;

pub use config::EtcdConfig;
pub use errors::Error;
pub use metrics::{EtcdMetrics, Method};
pub use server::{ETCD_CLUSTER_VERSION, ETCD_VERSION, EtcdServer};
