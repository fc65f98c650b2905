//! A member that was down for longer than the others keep their log comes back by a snapshot, while watches at old
//! revisions are opened on it.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use barque_chaos::cluster::{Access, Cluster, Options};
use etcd_client::{Client, WatchOptions};
use tokio::{task::JoinSet, time::timeout};

const PATIENCE: Duration = Duration::from_secs(90);
const PREFIX: &str = "behind/";

async fn put(client: &mut Client, number: u64) -> i64 {
    let put = client
        .put(format!("{PREFIX}{}", number % 50), number.to_string(), None)
        .await
        .unwrap();
    put.header().unwrap().revision()
}

/// Opens a watch as soon as the member takes one, and reads it up to `last`: the revisions of its events, or the
/// compact revision that it was refused with.
async fn watch(access: Access, start: i64, last: i64) -> Result<Vec<i64>, i64> {
    let deadline = Instant::now() + PATIENCE;
    let mut stream = loop {
        let options = WatchOptions::new().with_prefix().with_start_revision(start);
        let attempt = async {
            anyhow::Ok(
                access
                    .connect(PATIENCE)
                    .await?
                    .watch(PREFIX, Some(options))
                    .await?,
            )
        };
        match attempt.await {
            Ok(stream) => break stream,
            Err(error) => assert!(Instant::now() < deadline, "no watch was taken: {error:#}"),
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    };
    let mut revisions: Vec<i64> = Vec::new();
    while revisions.last().is_none_or(|&revision| revision < last) {
        let response = timeout(PATIENCE, stream.message())
            .await
            .expect("events come")
            .unwrap();
        let response = response.expect("the watch goes on");
        if response.canceled() {
            assert!(revisions.is_empty(), "cancelled after events: {response:?}");
            return Err(response.compact_revision());
        }
        revisions.extend(
            response
                .events()
                .iter()
                .map(|event| event.kv().expect("a kv").mod_revision()),
        );
    }
    Ok(revisions)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_member_comes_back_by_snapshot_under_old_watches() {
    let flags = ["--snapshot-count=200", "--snapshot-bytes=1048576"]
        .map(str::to_owned)
        .to_vec();
    let options = Options {
        extra_flags: flags,
        ..Options::default()
    };
    let mut cluster = Cluster::barque(3, options).await.unwrap();
    let leader = cluster.leader().await.unwrap();
    let (absent, mut client) = ((leader + 1) % 3, cluster.client(leader).await.unwrap());

    let mut writes: BTreeMap<i64, u64> = BTreeMap::new();
    for number in 0..300 {
        writes.insert(put(&mut client, number).await, number);
    }
    let seen_before = *writes.last_key_value().unwrap().0;
    cluster.kill9(absent).unwrap();
    for number in 300..5000 {
        writes.insert(put(&mut client, number).await, number);
    }
    let compacted = *writes.keys().nth(100).unwrap();
    client.compact(compacted, None).await.unwrap();
    let last = *writes.last_key_value().unwrap().0;

    cluster.restart(absent).unwrap();
    let mut watches = JoinSet::new();
    for start in [
        compacted,
        compacted + 1,
        seen_before,
        seen_before + 1,
        seen_before + 2000,
        last,
    ] {
        let access = cluster.access(absent);
        watches.spawn(async move { (start, watch(access, start, last).await) });
    }
    while let Some(watched) = watches.join_next().await {
        let (start, seen) = watched.unwrap();
        let expected: Vec<i64> = writes.range(start..).map(|(&revision, _)| revision).collect();
        assert!(seen == Ok(expected), "from {start}: {seen:?}");
    }
    // Only now: before the snapshot came, the member's own history still reached further back.
    let below = watch(cluster.access(absent), compacted - 50, last).await;
    assert_eq!(below, Err(compacted));
    cluster.wait_healthy().await.unwrap();
    assert!(
        came_by_snapshot(&cluster.log(absent)),
        "the log was long enough:\n{}",
        cluster.log(absent)
    );

    // And it takes part again: the two that were there are enough only together with it.
    cluster.kill9((leader + 2) % 3).unwrap();
    put(&mut client, 5000).await;
    cluster.restart((leader + 2) % 3).unwrap();
    cluster.wait_healthy().await.unwrap();
}

fn came_by_snapshot(log: &str) -> bool {
    log.lines()
        .any(|line| line.contains("snapshot") && line.contains("install"))
}
