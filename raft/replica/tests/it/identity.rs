//! Who may take part: the right cluster, and never a member that has lost its data.

use crate::cluster::{Cluster, within, write};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wiped_member_is_refused_by_its_peers() {
    let mut cluster = Cluster::started(3).await;
    write(cluster.replica(0), "a", "1").await.unwrap();
    for number in 0..3 {
        cluster.caught_up(number).await;
    }
    let id = cluster.id(2);
    cluster.kill(2).await;
    cluster.wipe(2);
    let refused = cluster.try_start(2).await.unwrap_err().to_string();
    assert!(
        refused.contains(&format!("member {:x} has already been bootstrapped", id.0)),
        "{refused}"
    );
    assert!(
        refused.contains(&format!("etcdctl member remove {:x}", id.0)),
        "{refused}"
    );
    write(cluster.replica(0), "b", "2").await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wiped_member_that_started_alone_never_votes_and_stops() {
    let mut cluster = Cluster::started(3).await;
    write(cluster.replica(0), "a", "1").await.unwrap();
    for number in 0..3 {
        cluster.caught_up(number).await;
    }
    for number in 0..3 {
        cluster.kill(number).await;
    }
    cluster.wipe(2);
    // Nobody is there to tell it.
    cluster.start(2).await;
    cluster.start(1).await;
    let reason = within(cluster.replica(2).failed()).await;
    assert!(reason.contains("has already been bootstrapped"), "{reason}");
    // One of three and a wiped one are no quorum.
    // (It may still name the leader of before: that is what its own vote on disk says.)
    assert!(!cluster.replica(1).leadership().borrow().is_self);
    cluster.start(0).await;
    cluster.ready(0).await;
    assert_eq!(
        crate::cluster::read(cluster.replica(1), "a").await.as_deref(),
        Some("1")
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_of_another_cluster_does_not_start() {
    let mut cluster = Cluster::new(3);
    cluster.start(0).await;
    cluster.start(1).await;
    cluster.ready(0).await;
    cluster.token = "another".into();
    let refused = cluster.try_start(2).await.unwrap_err().to_string();
    assert!(
        refused.contains("is of cluster") && refused.contains("--initial-cluster-token"),
        "{refused}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_data_directory_in_parts_does_not_open() {
    let mut cluster = Cluster::started(1).await;
    write(cluster.replica(0), "a", "1").await.unwrap();
    cluster.kill(0).await;
    let (wal, identity) = (
        cluster.data_dir(0).join("wal"),
        cluster.data_dir(0).join("member"),
    );
    std::fs::rename(&identity, identity.with_extension("away")).unwrap();
    let refused = cluster.try_start(0).await.unwrap_err().to_string();
    assert!(refused.contains("identity.json is missing"), "{refused}");
    std::fs::rename(identity.with_extension("away"), &identity).unwrap();
    std::fs::rename(&wal, wal.with_extension("away")).unwrap();
    let refused = cluster.try_start(0).await.unwrap_err().to_string();
    assert!(
        refused.contains("the log of member") && refused.contains("is gone"),
        "{refused}"
    );
    std::fs::remove_dir_all(&wal).unwrap();
    std::fs::rename(wal.with_extension("away"), &wal).unwrap();
    cluster.start(0).await;
    cluster.ready(0).await;
    assert_eq!(
        crate::cluster::read(cluster.replica(0), "a").await.as_deref(),
        Some("1")
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn members_may_start_in_any_order_and_at_once() {
    let mut cluster = Cluster::new(3);
    let configs: Vec<_> = [2, 0, 1].map(|number| (number, cluster.config(number))).into();
    let starting = configs.into_iter().map(|(number, config)| async move {
        (number, barque_replica::Replica::start(config).await.unwrap())
    });
    for (number, replica) in futures_util::future::join_all(starting).await {
        cluster.replicas[number] = Some(replica);
    }
    for number in 0..3 {
        cluster.ready(number).await;
    }
    write(cluster.replica(1), "a", "1").await.unwrap();
}
