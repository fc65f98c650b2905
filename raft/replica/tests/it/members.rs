//! Members come and go.

use std::time::Duration;

use barque_replica::{MemberConfig, MemberError};

use crate::cluster::{Cluster, count, within, write};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_is_replaced() {
    let mut cluster = Cluster::new(4);
    let newcomer: MemberConfig = cluster.members.pop().unwrap();
    for number in 0..3 {
        cluster.start(number).await;
    }
    for turn in 0..20 {
        write(cluster.replica(0), &format!("k/{turn}"), "v")
            .await
            .unwrap();
    }
    let id = within(cluster.replica(0).add_learner(newcomer.peer_urls.clone()))
        .await
        .unwrap();
    assert!(matches!(
        cluster.replica(1).add_learner(newcomer.peer_urls.clone()).await,
        Err(MemberError::Exists)
    ));
    cluster.members.push(newcomer);
    cluster.new_cluster = false;
    cluster.start(3).await;
    cluster.ready(3).await;
    assert_eq!(cluster.id(3), id);
    assert!(cluster.replica(3).status().is_learner);
    assert_eq!(count(cluster.replica(3), "k/"), 20);

    within(async {
        while cluster.replica(1).promote(id).await.is_err() {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    })
    .await;
    let gone = cluster.id(0);
    cluster.kill(0).await;
    within(async { while cluster.replica(1).remove_member(gone).await.is_err() {} }).await;
    within(async {
        while cluster.replica(3).members().len() != 3 {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    })
    .await;
    assert!(matches!(
        cluster.replica(1).remove_member(gone).await,
        Err(MemberError::NotFound)
    ));
    write(cluster.replica(3), "k/new", "v").await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_removed_member_stops_and_does_not_come_back() {
    let mut cluster = Cluster::started(3).await;
    let leader = cluster.leader().await;
    let gone = (leader + 1) % 3;
    let id = cluster.id(gone);
    within(cluster.replica(leader).remove_member(id)).await.unwrap();
    let reason = within(cluster.replica(gone).failed()).await;
    assert_eq!(
        reason,
        format!("member {:x} has been permanently removed from the cluster", id.0)
    );
    cluster.kill(gone).await;
    cluster.wipe(gone);
    let refused = cluster.try_start(gone).await.unwrap_err().to_string();
    assert!(refused.contains("permanently removed"), "{refused}");
    write(cluster.replica(leader), "after", "removal").await.unwrap();
}
