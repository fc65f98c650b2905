//! Lines 4 and 13: what Compact takes away, and what it must leave.

use barque_proto::etcd::etcdserverpb::{CompactionRequest, HashKvRequest, HashKvResponse, RangeRequest};
use tonic::Code;

use crate::{
    client::{Target, assert_refused},
    watch_stream::{WatchStream, from},
};

const COMPACTED: &str = "etcdserver: mvcc: required revision has been compacted";
const FUTURE: &str = "etcdserver: mvcc: required revision is a future revision";

pub async fn the_compact_revision_is_readable(t: Target) {
    let first = t.put("k", "1").await;
    let second = t.put("k", "2").await;
    let third = t.put("k", "3").await;
    t.compact(second).await;
    let at = |revision| RangeRequest {
        key: t.key("k"),
        revision,
        ..RangeRequest::default()
    };
    assert_eq!(t.range(at(second)).await.kvs[0].value, "2");
    assert_eq!(t.range(at(third)).await.kvs[0].value, "3");
    assert_refused(t.try_range(at(first)).await, Code::OutOfRange, COMPACTED);

    let compact = async |revision| {
        t.kv()
            .compact(CompactionRequest {
                revision,
                physical: false,
            })
            .await
    };
    assert_refused(compact(second).await, Code::OutOfRange, COMPACTED);
    assert_refused(compact(first).await, Code::OutOfRange, COMPACTED);
    assert_refused(compact(third + 1).await, Code::OutOfRange, FUTURE);
    compact(third).await.unwrap();
    assert_eq!(t.range(at(third)).await.kvs[0].value, "3");
}

pub async fn a_tombstone_at_the_compact_revision_is_kept(t: Target) {
    t.put("k", "v").await;
    let delete = t.delete("k").await;
    t.put("other", "").await;
    t.compact(delete).await;
    let (key, range_end) = t.all();
    let mut stream = WatchStream::open(&t).await;
    stream.create(from(key, range_end, delete)).await;
    stream.created().await;
    let events = stream.events().await;
    let revisions: Vec<i64> = events
        .iter()
        .map(|event| event.kv.as_ref().unwrap().mod_revision)
        .collect();
    if t.differs("tombstone") {
        assert_eq!(revisions, [delete + 1]);
    } else {
        assert_eq!(revisions[0], delete);
        assert_eq!(events[0].kv.as_ref().unwrap().key, t.key("k"));
    }
}

pub async fn hash_kv_is_the_same_on_repetition(t: Target) {
    let revision = t.put("k", "1").await;
    let hash = async |revision| -> HashKvResponse {
        t.maintenance()
            .hash_kv(HashKvRequest { revision })
            .await
            .unwrap()
            .into_inner()
    };
    let first = hash(revision).await;
    assert_eq!(first.header.as_ref().unwrap().revision, revision);
    assert_eq!(hash(0).await.hash, first.hash, "0 is the revision now");
    t.put("k", "2").await;
    assert_eq!(
        hash(revision).await.hash,
        first.hash,
        "later writes do not change what is hashed"
    );
    assert_ne!(hash(revision + 1).await.hash, first.hash);
    let future = t
        .maintenance()
        .hash_kv(HashKvRequest {
            revision: revision + 100,
        })
        .await;
    assert_refused(future, Code::OutOfRange, FUTURE);
}
