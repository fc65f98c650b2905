//! Several replicas in one process, over real sockets, logs and databases.

mod cluster;
mod deleting;
mod failover;
mod identity;
mod leases;
mod members;
mod reading;
mod snapshots;
mod tls;
