//! Writes through any member, reads on any member.

use barque_proto::command::{Command, LeaseGrant, command::Op};
use barque_replica::{Member, ProposeError};

use crate::cluster::{Cluster, local, put, read, within, write};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_member_is_a_cluster() {
    let cluster = Cluster::started(1).await;
    let replica = cluster.replica(0);
    write(replica, "a", "1").await.unwrap();
    assert_eq!(read(replica, "a").await.as_deref(), Some("1"));
    replica.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_writes_reads_it_at_once_and_others_after_a_barrier() {
    let cluster = Cluster::started(3).await;
    for number in 0..3 {
        let key = format!("from-{number}");
        write(cluster.replica(number), &key, "x").await.unwrap();
        assert_eq!(local(cluster.replica(number), &key).as_deref(), Some("x"));
        for other in 0..3 {
            assert_eq!(
                read(cluster.replica(other), &key).await.as_deref(),
                Some("x"),
                "{key} on {other}"
            );
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_writers_everywhere_get_one_revision_each() {
    let cluster = Cluster::started(3).await;
    let mut writing = tokio::task::JoinSet::new();
    for writer in 0..30 {
        let replica = cluster.replica(writer % 3).clone();
        writing.spawn(async move {
            let mut revisions = Vec::new();
            for turn in 0..20 {
                revisions.push(write(&replica, &format!("w/{writer}/{turn}"), "v").await.unwrap());
            }
            assert!(revisions.is_sorted());
            revisions
        });
    }
    let mut revisions: Vec<_> = within(writing.join_all()).await.into_iter().flatten().collect();
    revisions.sort_unstable();
    let before = revisions.len();
    revisions.dedup();
    assert_eq!((before, revisions.len()), (600, 600));
    let hashes = async |number: usize| {
        cluster.caught_up(number).await;
        cluster.replica(number).store().state_hash()
    };
    let (a, b, c) = (hashes(0).await, hashes(1).await, hashes(2).await);
    assert!(a == b && b == c, "{a:?} {b:?} {c:?}");
    let metrics = cluster.replica(0).metrics();
    assert!(
        metrics.proposals_committed >= 200 && metrics.proposals_pending == 0,
        "{metrics:?}"
    );
    assert!(metrics.wal.fsyncs > 0 && metrics.has_leader);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn members_know_each_others_client_urls() {
    let cluster = Cluster::started(3).await;
    let complete = |members: &[Member]| {
        members.len() == 3
            && members
                .iter()
                .all(|member| member.client_urls.len() == 1 && !member.is_learner)
    };
    for number in 0..3 {
        within(async {
            while !complete(&cluster.replica(number).members()) {
                tokio::time::sleep(std::time::Duration::from_millis(50)).await;
            }
        })
        .await;
        let mut names: Vec<_> = cluster
            .replica(number)
            .members()
            .into_iter()
            .map(|m| m.name)
            .collect();
        names.sort();
        assert_eq!(names, ["m0", "m1", "m2"]);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_too_large_or_fenced_elsewhere_is_refused() {
    let cluster = Cluster::started(3).await;
    let follower = cluster.follower().await;
    let big = put("big", &"x".repeat(3 << 20));
    assert!(matches!(
        cluster.replica(follower).propose(big).await,
        Err(ProposeError::TooLarge)
    ));

    let leader = cluster.leader().await;
    let term = cluster.replica(leader).leadership().borrow().term;
    let fenced = |term| Command {
        fence_term: term,
        ..put("fenced", "1")
    };
    cluster.replica(leader).propose(fenced(term)).await.unwrap();
    for (member, term) in [(leader, term + 1), (leader, term - 1), (follower, term)] {
        let refused = cluster.replica(member).propose(fenced(term)).await;
        assert!(matches!(refused, Err(ProposeError::LeaderChanged)), "{refused:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refused_command_says_why() {
    let cluster = Cluster::started(3).await;
    let grant = || {
        let grant = LeaseGrant { id: 7, ttl_s: 60 };
        Command {
            op: Some(Op::LeaseGrant(grant)),
            ..Command::default()
        }
    };
    cluster.replica(0).propose(grant()).await.unwrap();
    let again = cluster.replica(1).propose(grant()).await;
    assert_eq!(again.unwrap_err().to_string(), "lease already exists");
}
