//! What large deletions leave behind is moved in the background, on every member.

use barque_proto::command::{Command, DeleteRange, command::Op};
use barque_store::Response;

use crate::cluster::{Cluster, count, within, write};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_rows_of_a_large_deletion_are_moved_on_every_member() {
    let cluster = Cluster::started(3).await;
    let leader = cluster.leader().await;
    let value = "v".repeat(64 << 10);
    for number in 0..32 {
        write(cluster.replica(leader), &format!("d/{number}"), &value)
            .await
            .unwrap();
    }
    let delete = DeleteRange {
        key: "d/".into(),
        range_end: "d0".into(),
        prev_kv: false,
    };
    let deleted = cluster.replica(leader).propose(Command {
        op: Some(Op::DeleteRange(delete)),
        ..Command::default()
    });
    assert!(matches!(deleted.await, Ok(Response::DeleteRange(response)) if response.deleted == 32));
    for number in 0..3 {
        cluster.caught_up(number).await;
        assert_eq!(count(cluster.replica(number), "d/"), 0);
        within(async {
            while cluster.replica(number).store().sizes().ended_keys > 0 {
                tokio::time::sleep(std::time::Duration::from_millis(5)).await;
            }
        })
        .await;
    }
    let hash = |number: usize| cluster.replica(number).store().state_hash();
    assert!(hash(0) == hash(1) && hash(1) == hash(2));
}
