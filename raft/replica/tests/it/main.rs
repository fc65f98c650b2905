//! Several replicas in one process, over real sockets, logs and databases.

mod authority;
mod cluster;
mod crowded;
mod failover;
mod identity;
mod leases;
mod members;
mod reading;
mod snapshots;
mod tls;
