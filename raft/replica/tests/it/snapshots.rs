//! A member that is behind the log that is kept gets the whole state.

use crate::cluster::{Cluster, count, within, write};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_left_behind_comes_back_by_snapshot() {
    let mut cluster = Cluster::new(3);
    cluster.snapshot_entries = 50;
    cluster.start_all().await;
    let follower = cluster.follower().await;
    write(cluster.replica(follower), "s/first", "v").await.unwrap();
    cluster.kill(follower).await;
    let leader = cluster.leader().await;
    for turn in 0..400 {
        write(cluster.replica(leader), &format!("s/{turn:03}"), "v")
            .await
            .unwrap();
    }
    assert!(
        cluster.replica(leader).status().purged_index > 100,
        "{:?}",
        cluster.replica(leader).status()
    );
    cluster.start(follower).await;
    cluster.ready(follower).await;
    cluster.caught_up(follower).await;
    assert_eq!(count(cluster.replica(follower), "s/"), 401);
    assert_eq!(cluster.replica(follower).metrics().snapshots_received, 1);
    within(write(cluster.replica(follower), "s/last", "v"))
        .await
        .unwrap();
    let hash = |number: usize| cluster.replica(number).store().state_hash();
    for number in 0..3 {
        cluster.caught_up(number).await;
    }
    assert!(hash(0) == hash(1) && hash(1) == hash(2));

    // And it opens again from what it was sent.
    cluster.kill(follower).await;
    cluster.start(follower).await;
    cluster.ready(follower).await;
    cluster.caught_up(follower).await;
    assert_eq!(count(cluster.replica(follower), "s/"), 402);
    let leftovers = std::fs::read_dir(cluster.data_dir(follower).join("snap"))
        .unwrap()
        .count();
    assert_eq!(leftovers, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_log_is_bounded_in_bytes_too() {
    let mut cluster = Cluster::new(1);
    cluster.snapshot_bytes = 4 << 20;
    cluster.start_all().await;
    let value = "x".repeat(1 << 20);
    let mut purged = 0;
    for turn in 0..40 {
        write(cluster.replica(0), &format!("big/{turn}"), &value)
            .await
            .unwrap();
        purged = cluster.replica(0).status().purged_index;
    }
    within(async {
        while purged < 20 {
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
            write(cluster.replica(0), "more", &value).await.unwrap();
            purged = cluster.replica(0).status().purged_index;
        }
    })
    .await;
    assert_eq!(count(cluster.replica(0), "big/"), 40);
}
