//! Peers over mutual TLS, and who is kept out by it.

use barque_replica::ReadBarrierError;

use crate::{
    authority::Authority,
    cluster::{Cluster, local, read, write, write_until_acknowledged},
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn peers_of_one_authority_form_a_cluster_and_others_stay_outside() {
    let mut cluster = Cluster::with_scheme(3, "https");
    let (ours, theirs) = (Authority::new(), Authority::new());
    cluster.tls = vec![Some(ours.peer()), Some(ours.peer()), Some(ours.peer())];
    cluster.start_all().await;
    write(cluster.replica(0), "a", "1").await.unwrap();
    assert_eq!(read(cluster.replica(1), "a").await.as_deref(), Some("1"));

    cluster.kill(2).await;
    write_until_acknowledged(cluster.replica(0), "b", "2").await;
    cluster.tls[2] = Some(theirs.peer());
    cluster.start(2).await;
    let outside = cluster.replica(2).read_barrier().await;
    assert!(matches!(outside, Err(ReadBarrierError::NoLeader)), "{outside:?}");
    assert!(cluster.replica(2).leadership().borrow().leader.is_none());
    assert_eq!(local(cluster.replica(2), "b"), None);

    cluster.kill(2).await;
    cluster.tls[2] = Some(ours.peer());
    cluster.start(2).await;
    cluster.ready(2).await;
    assert_eq!(read(cluster.replica(2), "b").await.as_deref(), Some("2"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_with_the_certificate_of_another_is_not_heard() {
    let mut cluster = Cluster::with_scheme(3, "https");
    let authority = Authority::new();
    cluster.tls = (0..3).map(|number| Some(authority.peer_of(number))).collect();
    cluster.start_all().await;
    write(cluster.replica(0), "a", "1").await.unwrap();

    cluster.kill(2).await;
    write_until_acknowledged(cluster.replica(0), "b", "2").await;
    // Of the right authority, and for the right host.
    cluster.tls[2] = Some(authority.peer_of(1));
    cluster.start(2).await;
    let outside = cluster.replica(2).read_barrier().await;
    assert!(matches!(outside, Err(ReadBarrierError::NoLeader)), "{outside:?}");
    assert_eq!(local(cluster.replica(2), "b"), None);

    cluster.kill(2).await;
    // One for all, with the name of none, is as good as its own.
    cluster.tls[2] = Some(authority.peer());
    cluster.start(2).await;
    cluster.ready(2).await;
    assert_eq!(read(cluster.replica(2), "b").await.as_deref(), Some("2"));
}
