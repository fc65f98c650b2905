//! Members come and go.

use std::time::Duration;

use barque_replica::{MemberConfig, MemberError, MemberId};

use crate::cluster::{Cluster, count, read, within, write, write_until_acknowledged};

/// Three members, and the address of a fourth.
async fn with_a_newcomer() -> (Cluster, MemberConfig) {
    let mut cluster = Cluster::new(4);
    let newcomer: MemberConfig = cluster.members.pop().unwrap();
    cluster.start_together(&[0, 1, 2]).await;
    for turn in 0..20 {
        write(cluster.replica(0), &format!("k/{turn}"), "v")
            .await
            .unwrap();
    }
    (cluster, newcomer)
}

/// Repeated while the leader has not heard of everybody yet.
async fn once_healthy<T>(change: impl AsyncFn() -> Result<T, MemberError>) -> Result<T, MemberError> {
    within(async {
        loop {
            match change().await {
                Err(MemberError::Unhealthy | MemberError::NoLeader) => {
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
                done => return done,
            }
        }
    })
    .await
}

async fn is_voter(cluster: &Cluster, at: usize, id: MemberId) {
    within(async {
        let votes = || {
            let members = cluster.replica(at).members();
            members.iter().any(|member| member.id == id && !member.is_learner)
        };
        while !votes() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_learner_is_added_promoted_and_takes_the_place_of_another() {
    let (mut cluster, newcomer) = with_a_newcomer().await;
    let urls = || newcomer.peer_urls.clone();
    let id = once_healthy(async || cluster.replica(0).add_learner(urls()).await)
        .await
        .unwrap();
    let again = once_healthy(async || cluster.replica(1).add_learner(urls()).await).await;
    assert_eq!(again, Err(MemberError::Exists));
    let second = async || {
        cluster
            .replica(1)
            .add_learner(vec!["http://127.0.0.1:1".into()])
            .await
    };
    assert_eq!(once_healthy(second).await, Err(MemberError::TooManyLearners));
    let early = once_healthy(async || cluster.replica(1).promote(id).await).await;
    assert_eq!(early, Err(MemberError::LearnerNotReady));

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
    let again = once_healthy(async || cluster.replica(1).remove_member(gone).await).await;
    assert_eq!(again, Err(MemberError::NotFound));
    write(cluster.replica(3), "k/new", "v").await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wiped_member_is_replaced_at_its_own_address_and_the_new_one_is_as_good() {
    let mut cluster = Cluster::started(3).await;
    for turn in 0..20 {
        write(cluster.replica(0), &format!("k/{turn}"), "v")
            .await
            .unwrap();
    }
    let lost = cluster.follower().await;
    let (other, old) = ((lost + 1) % 3, cluster.id(lost));
    cluster.introduced().await;
    cluster.kill(lost).await;
    cluster.wipe(lost);
    let refused = cluster.try_start(lost).await.unwrap_err().to_string();
    assert!(refused.contains("has already been bootstrapped"), "{refused}");

    once_healthy(async || cluster.replica(other).remove_member(old).await)
        .await
        .unwrap();
    let urls = cluster.members[lost].peer_urls.clone();
    let id = once_healthy(async || cluster.replica(other).add_voter(urls.clone()).await)
        .await
        .unwrap();
    assert_ne!(id, old);
    // A member that has not started takes nothing from the quorum.
    write(cluster.replica(other), "k/meanwhile", "v").await.unwrap();
    cluster.new_cluster = false;
    cluster.start(lost).await;
    cluster.ready(lost).await;
    assert_eq!(cluster.id(lost), id);
    is_voter(&cluster, lost, id).await;
    assert_eq!(count(cluster.replica(lost), "k/"), 21);

    // It survives the loss of another.
    cluster.kill(other).await;
    write_until_acknowledged(cluster.replica(lost), "k/after", "v").await;
    // And when it is wiped in its turn, it is refused like any other.
    cluster.start(other).await;
    cluster.ready(other).await;
    cluster.kill(lost).await;
    cluster.wipe(lost);
    let refused = cluster.try_start(lost).await.unwrap_err().to_string();
    assert!(
        refused.contains(&format!("member {:x} has already been bootstrapped", id.0)),
        "{refused}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_that_never_starts_costs_no_quorum() {
    let cluster = Cluster::started(1).await;
    let nobody = vec!["http://127.0.0.1:1".to_string()];
    let id = once_healthy(async || cluster.replica(0).add_voter(nobody.clone()).await)
        .await
        .unwrap();
    write(cluster.replica(0), "a", "1").await.unwrap();
    let status = cluster.replica(0).members();
    assert!(status.iter().any(|member| member.id == id && member.is_learner));
    // As in etcd nobody else is added meanwhile.
    let third = vec!["http://127.0.0.1:2".to_string()];
    assert_eq!(
        cluster.replica(0).add_voter(third).await,
        Err(MemberError::NotEnoughStarted)
    );
    cluster.replica(0).remove_member(id).await.unwrap();
    let last = cluster.replica(0).remove_member(cluster.id(0)).await;
    assert_eq!(last, Err(MemberError::NotEnoughStarted));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_is_needed_for_the_quorum_is_not_removed() {
    let mut cluster = Cluster::started(3).await;
    let leader = cluster.leader().await;
    let (down, needed) = ((leader + 1) % 3, (leader + 2) % 3);
    let (down_id, needed_id) = (cluster.id(down), cluster.id(needed));
    cluster.kill(down).await;
    // Until the leader has noticed, adding is still allowed as far as it knows; so the URL is one that is taken.
    let taken = cluster.members[needed].peer_urls.clone();
    let add = async || cluster.replica(leader).add_voter(taken.clone()).await;
    assert_eq!(add().await, Err(MemberError::Exists));
    within(async {
        let nobody = vec!["http://127.0.0.1:1".to_string()];
        while let Ok(id) = cluster.replica(leader).add_learner(nobody.clone()).await {
            cluster.replica(leader).remove_member(id).await.unwrap();
        }
    })
    .await;
    assert_eq!(
        cluster.replica(leader).remove_member(needed_id).await,
        Err(MemberError::Unhealthy)
    );
    cluster.replica(leader).remove_member(down_id).await.unwrap();
    write(cluster.replica(needed), "after", "removal").await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_is_found_at_its_new_address() {
    let mut cluster = Cluster::started(3).await;
    let moved = cluster.follower().await;
    let (other, id) = ((moved + 1) % 3, cluster.id(moved));
    let urls = cluster.relocate(moved);
    once_healthy(async || cluster.replica(other).update_member(id, urls.clone()).await)
        .await
        .unwrap();
    let taken = async || {
        cluster
            .replica(other)
            .update_member(cluster.id(other), urls.clone())
            .await
    };
    assert_eq!(once_healthy(taken).await, Err(MemberError::Exists));
    let unknown = async || {
        cluster
            .replica(other)
            .update_member(MemberId(1), urls.clone())
            .await
    };
    assert_eq!(once_healthy(unknown).await, Err(MemberError::NotFound));

    cluster.kill(moved).await;
    write(cluster.replica(other), "while", "away").await.unwrap();
    cluster.start(moved).await;
    cluster.ready(moved).await;
    assert_eq!(
        read(cluster.replica(moved), "while").await.as_deref(),
        Some("away")
    );
    // Both directions: two of three are enough only with it.
    cluster.kill(other).await;
    write_until_acknowledged(cluster.replica(moved), "two", "left").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_removed_member_stops_and_does_not_come_back() {
    let mut cluster = Cluster::started(3).await;
    let leader = cluster.leader().await;
    let gone = (leader + 1) % 3;
    let id = cluster.id(gone);
    once_healthy(async || cluster.replica(leader).remove_member(id).await)
        .await
        .unwrap();
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
