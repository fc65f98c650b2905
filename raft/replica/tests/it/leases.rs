//! Leases expire by the leader's clock, live through a change of leader, and are renewed from anywhere.

use std::time::{Duration, Instant};

use barque_proto::command::{Command, LeaseGrant, Put, command::Op};
use barque_replica::{KeepAlive, Replica};
use barque_store::{LeaseId, Response};

use crate::cluster::{Cluster, local, read, within};

async fn grant(replica: &Replica, id: i64, ttl_s: i64) {
    let op = Op::LeaseGrant(LeaseGrant { id, ttl_s });
    let granted = replica
        .propose(Command {
            op: Some(op),
            ..Command::default()
        })
        .await
        .unwrap();
    assert!(matches!(granted, Response::LeaseGrant(grant) if grant.id == LeaseId(id)));
}

async fn attach(replica: &Replica, key: &'static str, lease: i64) {
    let put = Put {
        key: key.into(),
        value: "v".into(),
        lease,
        ..Put::default()
    };
    replica
        .propose(Command {
            op: Some(Op::Put(put)),
            ..Command::default()
        })
        .await
        .unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lease_expires_and_takes_its_keys_along() {
    let cluster = Cluster::started(3).await;
    let follower = cluster.follower().await;
    let replica = cluster.replica(follower);
    grant(replica, 1, 2).await;
    attach(replica, "leased", 1).await;
    let granted = Instant::now();
    assert_eq!(
        replica.keep_alive(LeaseId(1)).await.unwrap(),
        KeepAlive::Renewed { ttl_s: 2 }
    );
    let (ttl, remaining) = replica.time_to_live(LeaseId(1)).await.unwrap().unwrap();
    assert!(ttl == 2 && remaining <= 2);
    within(async {
        while local(replica, "leased").is_some() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
    assert!(
        granted.elapsed() >= Duration::from_secs(2),
        "expired early, after {:?}",
        granted.elapsed()
    );
    assert_eq!(replica.keep_alive(LeaseId(1)).await.unwrap(), KeepAlive::NotFound);
    assert_eq!(replica.time_to_live(LeaseId(1)).await.unwrap(), None);
    assert_eq!(
        replica.keep_alive(LeaseId(99)).await.unwrap(),
        KeepAlive::NotFound
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_leader_neither_forgets_nor_hastens_a_lease() {
    let mut cluster = Cluster::started(3).await;
    let leader = cluster.leader().await;
    grant(cluster.replica(leader), 1, 3).await;
    attach(cluster.replica(leader), "leased", 1).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    // Ending a replica takes a while, during which the others elect.
    let killed = Instant::now();
    cluster.kill(leader).await;
    let next = cluster.leader().await;
    assert_eq!(read(cluster.replica(next), "leased").await.as_deref(), Some("v"));
    within(async {
        while local(cluster.replica(next), "leased").is_some() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
    assert!(
        killed.elapsed() >= Duration::from_secs(3),
        "the new leader gave it {:?}",
        killed.elapsed()
    );
    assert_eq!(cluster.replica(next).metrics().leases_expired, 1);
}
