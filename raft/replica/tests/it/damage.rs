//! A member that finds its own files damaged: it says so and goes, if the others can do without it.

use std::time::Duration;

use barque_proto::command::alarm::Kind;
use barque_replica::{MemberId, Replica};
use barque_store::{Revision, kv::Family};
use bytes::Bytes;

use crate::{
    cluster::{Cluster, within, write, write_until_acknowledged},
    tamper::{alarmed, change_rows, flip_a_byte, stop},
};

/// Members with more history than anything else.
async fn with_history(size: usize) -> Cluster {
    let cluster = Cluster::started(size).await;
    write_history(&cluster, 0).await;
    for number in 0..size {
        cluster.caught_up(number).await;
    }
    cluster
}

async fn write_history(cluster: &Cluster, through: usize) {
    let mut noise = 1_u64;
    for _ in 0..60 {
        // Hardly compressible, so that the file is large.
        let value: String = (0..20_000)
            .map(|_| {
                noise = noise.wrapping_mul(6364136223846793005).wrapping_add(1);
                char::from(b'!' + (noise >> 33) as u8 % 90)
            })
            .collect();
        write_until_acknowledged(cluster.replica(through), "k", &value).await;
    }
}

/// Reads history until something is met that cannot be read.
fn read_history(replica: &Replica) -> Option<String> {
    let reader = replica.store().reader();
    let head = reader.head().revision.0;
    let read = |revision| reader.get(b"k", Revision(revision)).err();
    (2..head).find_map(read).map(|error| error.to_string())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_with_a_damaged_block_says_so_hands_over_and_stops() {
    let mut cluster = with_history(3).await;
    let damaged = cluster.leader().await;
    let id = cluster.id(damaged).0;
    stop(&mut cluster, damaged).await;
    let file = flip_a_byte(&cluster, damaged);
    cluster.start(damaged).await;
    cluster.ready(damaged).await;
    cluster.caught_up(damaged).await;
    // Unless a compaction of RocksDB's own meets the block before: then it stops as a follower.
    let lead = async {
        while cluster.leader().await != damaged {
            let leader = cluster.leader().await;
            // Not yet, as long as it has not caught up.
            drop(
                cluster
                    .replica(leader)
                    .transfer_leadership(Some(MemberId(id)))
                    .await,
            );
        }
    };
    within(async {
        tokio::select! {
            () = lead => {}
            _ = cluster.replica(damaged).failed() => {}
        }
    })
    .await;

    let error = read_history(cluster.replica(damaged)).expect("a block that cannot be read");
    assert!(error.contains("checksum"), "{error}");
    let reason = within(cluster.replica(damaged).failed()).await;
    let name = file.file_name().unwrap().to_str().unwrap();
    assert!(
        reason.contains("cannot be trusted") && reason.contains(name),
        "{reason} names {name}"
    );
    cluster.kill(damaged).await;
    for number in cluster.running() {
        alarmed(cluster.replica(number), Kind::Damaged, id).await;
        // Named, and nothing is refused.
        write_until_acknowledged(cluster.replica(number), "a", "1").await;
        assert_eq!(read_history(cluster.replica(number)), None);
    }
    let refused = cluster
        .try_start(damaged)
        .await
        .err()
        .map(|error| error.to_string());
    assert!(refused.is_some_and(|text| text.contains(name)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_damaged_state_is_not_sent_in_a_snapshot() {
    let mut cluster = Cluster::new(3);
    cluster.snapshot_entries = 20;
    cluster.start_all().await;
    let behind = cluster.follower().await;
    cluster.kill(behind).await;
    let damaged = cluster.leader().await;
    let id = cluster.id(damaged).0;
    write_history(&cluster, damaged).await;
    within(async {
        while cluster.replica(damaged).status().purged_index <= 20 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
    flip_a_byte(&cluster, damaged);
    cluster.start(behind).await;
    let reason = within(cluster.replica(damaged).failed()).await;
    assert!(reason.contains("checksum"), "{reason}");
    cluster.kill(damaged).await;
    // From another one, which is whole.
    cluster.ready(behind).await;
    cluster.caught_up(behind).await;
    assert_eq!(cluster.replica(behind).metrics().snapshots_received, 1);
    assert_eq!(read_history(cluster.replica(behind)), None);
    alarmed(cluster.replica(behind), Kind::Damaged, id).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_that_the_others_cannot_do_without_stays() {
    let mut cluster = with_history(1).await;
    let id = cluster.id(0).0;
    stop(&mut cluster, 0).await;
    flip_a_byte(&cluster, 0);
    cluster.start(0).await;
    cluster.ready(0).await;
    assert!(read_history(cluster.replica(0)).is_some());
    alarmed(cluster.replica(0), Kind::Damaged, id).await;
    // It goes on as long as RocksDB does, which takes no writes any more once a compaction of its own has met the block.
    let written = write(cluster.replica(0), "a", "1").await;
    let left = tokio::time::timeout(Duration::from_secs(1), cluster.replica(0).failed()).await;
    match left {
        Err(_) => assert!(written.is_ok(), "{written:?}"),
        Ok(reason) => assert!(reason.contains("block checksum mismatch"), "{reason}"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn index_rows_that_no_record_has_are_damage() {
    let mut cluster = Cluster::started(3).await;
    write_until_acknowledged(cluster.replica(0), "a", "1").await;
    let damaged = cluster.follower().await;
    let id = cluster.id(damaged).0;
    for number in 0..3 {
        stop(&mut cluster, number).await;
    }
    change_rows(&cluster, damaged, |_, batch| {
        batch.put(Family::Idx, Bytes::from_static(b"f\0\x01v\0\x01a"), Bytes::new());
    });
    cluster.scrub_every = Duration::from_millis(500);
    for number in 0..3 {
        cluster.start(number).await;
    }
    let reason = within(cluster.replica(damaged).failed()).await;
    assert!(
        reason.contains("corrupt rows: 1 faults: 1 rows of index where the records need 0"),
        "{reason}"
    );
    cluster.kill(damaged).await;
    for number in cluster.running() {
        alarmed(cluster.replica(number), Kind::Damaged, id).await;
        write(cluster.replica(number), "b", "2").await.unwrap();
    }
}
