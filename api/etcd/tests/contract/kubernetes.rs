//! What a Kubernetes apiserver does to its etcd.

use barque_proto::etcd::{
    etcdserverpb::{
        CompactionRequest, PutRequest, RangeRequest, RequestOp, TxnRequest, TxnResponse, WatchCreateRequest,
        compare::{CompareResult, TargetUnion},
        request_op::Request,
        response_op::Response,
    },
    mvccpb::{KeyValue, event::EventType},
};
use bytes::Bytes;

use crate::{
    client::{Target, compare, names, op_delete, op_get, op_put, put, unchanged_since},
    operations::status,
    watch_stream::{WatchStream, everything, mod_revision},
};

async fn guarded(t: &Target, name: &str, revision: i64, change: RequestOp) -> TxnResponse {
    t.txn(TxnRequest {
        compare: vec![unchanged_since(t.key(name), revision)],
        success: vec![change],
        failure: vec![op_get(t.key(name))],
    })
    .await
}

fn found(response: &TxnResponse) -> Option<KeyValue> {
    match response.responses[0].response.as_ref().unwrap() {
        Response::ResponseRange(range) => range.kvs.first().cloned(),
        other => panic!("{other:?}"),
    }
}

pub async fn create_update_delete(t: Target) {
    let create = || TxnRequest {
        compare: vec![unchanged_since(t.key("pod"), 0)],
        success: vec![op_put(t.key("pod"), "1")],
        failure: vec![],
    };
    let created = t.txn(create()).await;
    assert!(created.succeeded);
    let revision = created.header.unwrap().revision;
    assert!(!t.txn(create()).await.succeeded, "it exists");

    let updated = guarded(&t, "pod", revision, op_put(t.key("pod"), "2")).await;
    assert!(updated.succeeded);
    let second = updated.header.unwrap().revision;
    let stale = guarded(&t, "pod", revision, op_put(t.key("pod"), "lost")).await;
    assert!(!stale.succeeded);
    let current = found(&stale).unwrap();
    assert_eq!((current.value, current.mod_revision), (Bytes::from("2"), second));

    assert!(
        !guarded(&t, "pod", revision, op_delete(t.key("pod")))
            .await
            .succeeded
    );
    let deleted = guarded(&t, "pod", second, op_delete(t.key("pod"))).await;
    assert!(deleted.succeeded && deleted.header.unwrap().revision == second + 1);
    assert_eq!(
        found(&guarded(&t, "pod", second, op_delete(t.key("pod"))).await),
        None
    );
}

pub async fn lists_in_pages(t: Target) {
    let all: Vec<String> = (0..25).map(|i| format!("pod-{i:02}")).collect();
    for name in &all {
        t.put(name, "v1").await;
    }
    let (mut key, range_end) = t.all();
    let mut request = RangeRequest {
        key: key.clone(),
        range_end: range_end.clone(),
        limit: 10,
        ..Default::default()
    };
    let mut listed = Vec::new();
    loop {
        let page = t.range(request.clone()).await;
        // The first page's revision is that of all others, whatever happens meanwhile.
        if request.revision == 0 {
            request.revision = page.header.unwrap().revision;
            t.put("pod-00a", "new").await;
            t.put("pod-15", "v2").await;
            t.delete("pod-20").await;
        }
        assert_eq!(page.count as usize, 25 - listed.len());
        assert!(page.kvs.iter().all(|kv| kv.value == "v1"));
        listed.extend(names(&t, &page.kvs));
        if !page.more {
            break;
        }
        key = [page.kvs.last().unwrap().key.as_ref(), b"\0"].concat().into();
        request.key = key.clone();
    }
    assert_eq!(listed, all);
    let count = t
        .list(RangeRequest {
            count_only: true,
            ..Default::default()
        })
        .await;
    assert_eq!(count.count, 25);
}

pub async fn watch_of_a_prefix(t: Target) {
    let revision = t.put("a", "1").await;
    let mut stream = WatchStream::open_with(&t, true);
    let request = WatchCreateRequest {
        start_revision: revision + 1,
        prev_kv: true,
        progress_notify: true,
        ..everything(&t)
    };
    stream.create(request).await;
    stream.created().await;
    let update = t.put("a", "2").await;
    let delete = t.delete("a").await;
    let mut events = stream.events().await;
    while events.len() < 2 {
        events.extend(stream.events().await);
    }
    assert_eq!(
        events.iter().map(mod_revision).collect::<Vec<_>>(),
        [update, delete]
    );
    assert_eq!(events[1].r#type(), EventType::Delete);
    assert_eq!(events[1].prev_kv.as_ref().unwrap().value, "2");
    // A consistent read from the watch cache: it asks until progress covers the store's revision.
    let elsewhere = t.revision().await;
    assert_eq!(stream.progress().await.header.unwrap().revision, elsewhere);
}

/// Each apiserver tries; the version of one key decides who compacts.
pub async fn compaction_by_one_of_many(t: Target) {
    let claim = |version: i64, revision: i64| TxnRequest {
        compare: vec![compare(
            t.key("compact_rev_key"),
            CompareResult::Equal,
            TargetUnion::Version(version),
        )],
        success: vec![op_put(t.key("compact_rev_key"), &revision.to_string())],
        failure: vec![op_get(t.key("compact_rev_key"))],
    };
    let old = t.put("pod", "1").await;
    let first = t.txn(claim(0, 0)).await;
    assert!(first.succeeded);
    let loser = t.txn(claim(0, 0)).await;
    assert!(!loser.succeeded);
    assert_eq!(found(&loser).unwrap().version, 1);
    assert!(t.txn(claim(1, old)).await.succeeded);
    t.kv()
        .compact(CompactionRequest {
            revision: old,
            physical: false,
        })
        .await
        .unwrap();
    assert_eq!(t.get("pod").await.unwrap().value, "1");
}

pub async fn leases_are_shared(t: Target) {
    let lease = t.grant(600).await;
    for name in ["event-1", "event-2"] {
        let change = RequestOp {
            request: Some(Request::RequestPut(PutRequest {
                lease,
                ..put(t.key(name), "e")
            })),
        };
        assert!(guarded(&t, name, 0, change).await.succeeded);
    }
    assert_eq!(t.get("event-2").await.unwrap().lease, lease);
    t.revoke(lease).await;
    assert_eq!(t.list(RangeRequest::default()).await.count, 0);
}

pub async fn health_and_size(t: Target) {
    let health = t
        .range(RangeRequest {
            key: "/registry/health".into(),
            ..Default::default()
        })
        .await;
    assert_eq!(health.count, 0);
    assert!(status(&t).await.db_size > 0);
}
