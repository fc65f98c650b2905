//! What holds when members are lost: lines 16 and 28b, the `hasleader` metadata, and one hash everywhere.

use std::time::Duration;

use barque_chaos::cluster::{Cluster, Kind, MemberState, Options};
use barque_proto::etcd::etcdserverpb::{HashKvRequest, RangeRequest};
use tonic::Code;

use crate::{
    client::{Target, always, op_delete, op_delete_range, op_put, put},
    lease::{keep_alive, time_to_live},
    operations::status,
    suite::Side,
    watch_stream::{WatchStream, everything},
};

async fn target(cluster: &Cluster, index: usize) -> Target {
    let side = if cluster.kind() == Kind::Etcd {
        Side::Oracle
    } else {
        Side::Ours
    };
    Target::connect(&cluster.endpoint(index), side)
        .await
        .for_check("members")
}

async fn start(kind: Kind, members: usize) -> Cluster {
    Cluster::start(kind, members, Options::default()).await.unwrap()
}

/// A leader that is cut off says so to those who asked, names itself no more, times writes out as unknown, and still
/// reads its own state.
async fn without_a_leader(kind: Kind) {
    let mut cluster = start(kind, 3).await;
    let leader = cluster.leader().await.unwrap();
    let others = [(leader + 1) % 3, (leader + 2) % 3];
    let t = target(&cluster, leader).await;
    t.put("k", "v").await;
    t.range(RangeRequest {
        key: t.key("k"),
        ..Default::default()
    })
    .await;
    let mut stream = WatchStream::open_with(&t, true);
    stream.create(everything(&t)).await;
    stream.created().await;
    for other in others {
        cluster.kill9(other).unwrap();
    }

    let end = stream.try_next().await.expect_err("the stream ends");
    assert_eq!(
        (end.code(), end.message()),
        (Code::Unavailable, "etcdserver: no leader")
    );
    let told = status(&t).await;
    assert_eq!(
        (told.leader, told.errors),
        (0, vec!["etcdserver: no leader".to_owned()])
    );
    let write = t
        .try_put(put(t.key("lost"), "v"))
        .await
        .expect_err("nobody can accept it");
    let (code, text) = (write.code(), write.message());
    let unknown_outcome =
        text.starts_with("etcdserver: request timed out") || text == "etcdserver: no leader";
    let raw = t.differs("cut-off-write") && (code, text) == (Code::Unknown, "context deadline exceeded");
    assert!(
        raw || code == Code::Unavailable && unknown_outcome,
        "{code:?} {text}"
    );
    let own = RangeRequest {
        key: t.key("k"),
        serializable: true,
        ..Default::default()
    };
    assert_eq!(t.range(own).await.kvs[0].value, "v");

    cluster.restart(others[0]).unwrap();
    cluster.wait_healthy().await.unwrap();
    t.put("k", "again").await;
}

async fn a_lease_outlives_its_leader(kind: Kind) {
    let mut cluster = start(kind, 3).await;
    let leader = cluster.leader().await.unwrap();
    let t = target(&cluster, (leader + 1) % 3).await;
    let id = t.grant(300).await;
    t.put_leased("k", id).await;
    cluster.kill9(leader).unwrap();
    cluster.leader().await.unwrap();
    let left = time_to_live(&t, id, false).await;
    assert!(
        left.granted_ttl == 300 && (1..=300).contains(&left.ttl),
        "{left:?}"
    );
    assert_eq!(keep_alive(&t, id).await, 300);
    assert!(t.get("k").await.is_some());
}

/// Line 28b: under an ID that the cluster knows, an empty data directory must not vote.
async fn a_wiped_member_stops(kind: Kind) {
    let mut cluster = start(kind, 3).await;
    target(&cluster, 0).await.put("k", "v").await;
    let victim = (cluster.leader().await.unwrap() + 1) % 3;
    cluster.kill9(victim).unwrap();
    std::fs::remove_dir_all(cluster.data_dir(victim)).unwrap();
    cluster.restart(victim).unwrap();
    let status = cluster.exited(victim, Duration::from_secs(60)).await.unwrap();
    assert!(!status.success());
    assert!(
        cluster.log(victim).contains("has already been bootstrapped"),
        "{}",
        cluster.log(victim)
    );
    assert_eq!(cluster.state(victim), MemberState::Down);
    cluster.wait_healthy().await.unwrap();
}

/// The same writes on a new store; what etcd makes of them is what everybody must hash.
async fn fixed_history(t: &Target) {
    for i in 0..20 {
        t.put(&format!("k{}", i % 7), &format!("value {i}")).await;
    }
    t.txn(always(vec![
        op_put(t.key("a"), "1"),
        op_put(t.key("b"), "2"),
        op_delete(t.key("k3")),
    ]))
    .await;
    t.txn(always(vec![op_delete_range(t.key("k4"), t.key("k6"))]))
        .await;
    t.delete("a").await;
    t.put("a", "reborn").await;
}

async fn hashes(cluster: &Cluster, revision: i64) -> Vec<(u32, i64)> {
    let mut hashes = Vec::new();
    for index in 0..cluster.len() {
        let t = target(cluster, index).await;
        // A read through the leader first: the member has applied what was written.
        assert_eq!(t.revision().await, revision);
        let answer = t
            .maintenance()
            .hash_kv(HashKvRequest { revision })
            .await
            .unwrap()
            .into_inner();
        hashes.push((answer.hash, answer.compact_revision));
    }
    hashes
}

async fn hash_of_the_fixed_history(kind: Kind, members: usize) -> u32 {
    let cluster = start(kind, members).await;
    let t = target(&cluster, 0).await;
    fixed_history(&t).await;
    let hashes = hashes(&cluster, t.revision().await).await;
    assert!(hashes.iter().all(|hash| hash == &hashes[0]), "{hashes:?}");
    hashes[0].0
}

#[tokio::test]
async fn debians_etcd_without_a_leader() {
    without_a_leader(Kind::Etcd).await;
}

#[tokio::test]
async fn ours_without_a_leader() {
    without_a_leader(Kind::Barque).await;
}

#[tokio::test]
async fn debians_etcd_keeps_leases_over_failover() {
    a_lease_outlives_its_leader(Kind::Etcd).await;
}

#[tokio::test]
async fn ours_keeps_leases_over_failover() {
    a_lease_outlives_its_leader(Kind::Barque).await;
}

#[tokio::test]
async fn debians_etcd_stops_a_wiped_member() {
    a_wiped_member_stops(Kind::Etcd).await;
}

#[tokio::test]
async fn ours_stops_a_wiped_member() {
    a_wiped_member_stops(Kind::Barque).await;
}

#[tokio::test]
async fn ours_hashes_as_debians_etcd_does() {
    let theirs = hash_of_the_fixed_history(Kind::Etcd, 1).await;
    assert_eq!(hash_of_the_fixed_history(Kind::Barque, 3).await, theirs);
}
