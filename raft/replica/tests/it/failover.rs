//! A leader dies, hands over, comes back; nothing acknowledged is lost.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Instant,
};

use barque_replica::{ProposeError, ReadBarrierError, Replica};

use crate::cluster::{Cluster, count, read, within, write, write_until_acknowledged};

/// Writes numbered keys until told to stop; returns those that were acknowledged, and how many were not.
async fn writer(replica: Replica, name: usize, stop: Arc<AtomicBool>) -> (Vec<String>, usize) {
    let (mut acknowledged, mut failed) = (Vec::new(), 0);
    let mut turn = 0;
    while !stop.load(Ordering::Relaxed) {
        let key = format!("load/{name}/{turn}");
        turn += 1;
        match write(&replica, &key, "v").await {
            Ok(_) => acknowledged.push(key),
            Err(ProposeError::Refused(error)) => panic!("{error}"),
            Err(_) => failed += 1,
        }
    }
    (acknowledged, failed)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_leader_takes_no_acknowledged_write_along() {
    let mut cluster = Cluster::started(3).await;
    let mut kept = Vec::new();
    for _ in 0..3 {
        let leader = cluster.leader().await;
        let stop = Arc::new(AtomicBool::new(false));
        let others: Vec<_> = (0..3).filter(|number| *number != leader).collect();
        let mut writing = tokio::task::JoinSet::new();
        for name in 0..8 {
            writing.spawn(writer(
                cluster.replica(others[name % 2]).clone(),
                name,
                stop.clone(),
            ));
        }
        write(cluster.replica(others[0]), "before", "kill").await.unwrap();
        cluster.kill(leader).await;
        let killed = Instant::now();
        write_until_acknowledged(cluster.replica(others[1]), "after", "kill").await;
        println!(
            "from the kill to the next acknowledged write: {:?}",
            killed.elapsed()
        );
        stop.store(true, Ordering::Relaxed);
        for (acknowledged, failed) in within(writing.join_all()).await {
            println!("{} acknowledged, {failed} not", acknowledged.len());
            kept.extend(acknowledged);
        }
        cluster.start(leader).await;
        cluster.ready(leader).await;
        for number in 0..3 {
            cluster.caught_up(number).await;
            if let Some(key) = kept.first() {
                let found = read(cluster.replica(number), key).await;
                assert!(found.is_some(), "{key} is lost on {number}");
            }
            let reader = cluster.replica(number).store().reader();
            for key in &kept {
                let found = reader.get(key.as_bytes(), barque_store::Revision(0)).unwrap();
                assert!(found.is_some(), "{key} is lost on {number}");
            }
        }
    }
    assert!(!kept.is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_quorum_nothing_is_written_or_read_and_the_failure_is_definite_or_unknown() {
    let mut cluster = Cluster::started(3).await;
    write(cluster.replica(0), "a", "1").await.unwrap();
    cluster.kill(1).await;
    cluster.kill(2).await;
    let refused = write(cluster.replica(0), "b", "2").await.unwrap_err();
    assert!(
        matches!(
            refused,
            ProposeError::LeaderChanged | ProposeError::NoLeader | ProposeError::TimedOut
        ),
        "{refused:?}"
    );
    let unread = cluster.replica(0).read_barrier().await.unwrap_err();
    assert!(
        matches!(
            unread,
            ReadBarrierError::LeaderChanged | ReadBarrierError::NoLeader | ReadBarrierError::TimedOut
        ),
        "{unread:?}"
    );
    cluster.start(1).await;
    write_until_acknowledged(cluster.replica(0), "c", "3").await;
    assert_eq!(read(cluster.replica(1), "a").await.as_deref(), Some("1"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restarted_member_catches_up_and_a_restarted_cluster_has_everything() {
    let mut cluster = Cluster::started(3).await;
    let follower = cluster.follower().await;
    cluster.kill(follower).await;
    let leader = cluster.leader().await;
    for turn in 0..50 {
        write(cluster.replica(leader), &format!("k/{turn:03}"), "v")
            .await
            .unwrap();
    }
    cluster.start(follower).await;
    cluster.ready(follower).await;
    cluster.caught_up(follower).await;
    assert_eq!(count(cluster.replica(follower), "k/"), 50);

    for number in 0..3 {
        cluster.kill(number).await;
    }
    cluster.start_all().await;
    for number in 0..3 {
        cluster.caught_up(number).await;
        assert_eq!(count(cluster.replica(number), "k/"), 50);
    }
    write(cluster.replica(0), "k/more", "v").await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn leadership_is_handed_over_on_request_and_on_shutdown() {
    let mut cluster = Cluster::started(3).await;
    let leader = cluster.leader().await;
    let to = (leader + 1) % 3;
    let began = Instant::now();
    within(cluster.replica(leader).transfer_leadership(Some(cluster.id(to))))
        .await
        .unwrap();
    println!("handed over in {:?}", began.elapsed());
    assert_eq!(cluster.leader().await, to);
    let elsewhere = cluster.replica(leader).transfer_leadership(None).await;
    assert!(matches!(elsewhere, Err(ReadBarrierError::LeaderChanged)));

    let began = Instant::now();
    let stopping = cluster.replicas[to].take().unwrap();
    within(stopping.shutdown()).await;
    println!("shut down in {:?}", began.elapsed());
    drop(stopping);
    write(cluster.replica(leader), "after", "shutdown").await.unwrap();
    println!("written {:?} after the shutdown began", began.elapsed());
    cluster.start(to).await;
    cluster.ready(to).await;
    assert_eq!(
        read(cluster.replica(to), "after").await.as_deref(),
        Some("shutdown")
    );
}
