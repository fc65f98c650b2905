//! A batch that one member sends to another is meant for one term, and appended in no other.

use barque_proto::{
    command::CommandBatch,
    peer::{ForwardRequest, raft_client::RaftClient},
};
use prost::Message;
use tonic::Request;

use crate::cluster::{Cluster, local, put, read, within, write};

/// Calls as a member that nobody knows would: it is answered, and nothing of it is remembered.
async fn forward(
    cluster: &Cluster,
    batches: Vec<ForwardRequest>,
) -> tonic::Streaming<barque_proto::peer::ForwardRefusal> {
    let status = cluster.replica(0).status();
    let mut client = RaftClient::connect(cluster.members[0].peer_urls[0].clone())
        .await
        .unwrap();
    // It goes on: a stream that ends is given up.
    let batches = futures_util::StreamExt::chain(
        futures_util::stream::iter(batches),
        futures_util::stream::pending(),
    );
    let mut request = Request::new(batches);
    for (key, value) in [
        ("barque-cluster-id", status.cluster_id),
        ("barque-from", 0x1234),
        ("barque-to", status.member_id.0),
        ("barque-incarnation", 7),
    ] {
        let value = format!("{value:x}").parse().unwrap();
        request.metadata_mut().insert(key, value);
    }
    client.forward(request).await.unwrap().into_inner()
}

fn batch(sequence: u64, term: u64, key: &str) -> ForwardRequest {
    let batch = CommandBatch {
        origin: 99,
        sequence,
        commands: vec![put(key, "v")],
    };
    ForwardRequest {
        sequence,
        term,
        batch: batch.encode_to_vec().into(),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_batch_is_appended_in_no_other_term_than_it_was_meant_for() {
    let mut cluster = Cluster::started(1).await;
    write(cluster.replica(0), "a", "1").await.unwrap();
    cluster.kill(0).await;
    cluster.start(0).await;
    cluster.ready(0).await;
    // The same member leads again, in a later term.
    write(cluster.replica(0), "a", "2").await.unwrap();
    let term = cluster.replica(0).status().term;
    let batches = vec![
        batch(1, term - 1, "earlier"),
        batch(2, term + 1, "later"),
        batch(3, term, "now"),
    ];
    let mut refusals = forward(&cluster, batches).await;
    let mut refused = Vec::new();
    for _ in 0..2 {
        refused.push(within(refusals.message()).await.unwrap().unwrap().sequence);
    }
    refused.sort();
    assert_eq!(refused, [1, 2]);
    within(async {
        while local(cluster.replica(0), "now").is_none() {
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
    })
    .await;
    // Whatever was appended before is applied before.
    write(cluster.replica(0), "a", "3").await.unwrap();
    assert_eq!(read(cluster.replica(0), "earlier").await, None);
    assert_eq!(read(cluster.replica(0), "later").await, None);
}
