//! Several replicas in one process, over real sockets, logs and databases.

mod authority;
mod cluster;
mod crowded;
mod damage;
mod deleting;
mod divergence;
mod failover;
mod forwarding;
mod identity;
mod leases;
mod lost_files;
mod members;
mod promises;
mod reading;
mod snapshots;
mod tamper;
mod tls;
