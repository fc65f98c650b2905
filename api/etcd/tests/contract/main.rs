//! What an etcd client may rely on, line by line, as functions that run against any server of the etcd v3 API.
//!
//! Debian's etcd is the oracle: a line that it does not pass as written is wrong, unless [`difference`] lists what
//! that older release does instead; then its run asserts exactly that. Ours runs alone and as three members, reached
//! through a follower.

mod client;
mod compaction;
mod difference;
mod errors;
mod etcdctl;
mod kubernetes;
mod lease;
mod library;
mod members;
mod operations;
mod quota;
mod range;
mod replace;
mod suite;
mod txn;
mod txn_checks;
mod watch;
mod watch_stream;
mod write;

use barque_chaos::cluster::{Cluster, Kind, Options};

use crate::{client::Target, suite::Side};

fn datastore() -> Options {
    Options::default()
}

#[tokio::test]
async fn debians_etcd_alone() {
    let cluster = Cluster::etcd(1).await.unwrap();
    suite::run(&cluster, 0, Side::Oracle).await;
}

#[tokio::test]
async fn debians_etcd_through_a_follower() {
    let cluster = Cluster::etcd(3).await.unwrap();
    let follower = (cluster.leader().await.unwrap() + 1) % 3;
    suite::run(&cluster, follower, Side::Oracle).await;
}

/// The interval's flag has the same name, and the same effect.
#[tokio::test]
async fn progress_comes_by_itself() {
    for (kind, side) in [(Kind::Etcd, Side::Oracle), (Kind::Barque, Side::Ours)] {
        let options = Options {
            extra_flags: vec!["--experimental-watch-progress-notify-interval=500ms".into()],
            ..Options::default()
        };
        let cluster = Cluster::start(kind, 1, options).await.unwrap();
        let target = Target::connect(&cluster.endpoint(0), side)
            .await
            .for_check("progress");
        watch::progress_comes_by_itself(target).await;
    }
}

#[tokio::test]
async fn ours_alone() {
    let cluster = Cluster::barque(1, datastore()).await.unwrap();
    suite::run(&cluster, 0, Side::Ours).await;
}

#[tokio::test]
async fn ours_through_a_follower() {
    let cluster = Cluster::barque(3, datastore()).await.unwrap();
    let follower = (cluster.leader().await.unwrap() + 1) % 3;
    suite::run(&cluster, follower, Side::Ours).await;
}
