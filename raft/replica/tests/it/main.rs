//! Several replicas in one process, over real sockets, logs and databases.

mod cluster;
mod failover;
mod identity;
mod leases;
mod lost_files;
mod members;
mod reading;
mod snapshots;
mod tls;
