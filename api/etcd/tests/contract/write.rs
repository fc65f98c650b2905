//! Lines 10 and 12: revisions, versions, and what a Put and a DeleteRange change.

use barque_proto::etcd::etcdserverpb::{
    DeleteRangeRequest, LeaseTimeToLiveRequest, PutRequest, RangeRequest,
};
use bytes::Bytes;
use tonic::Code;

use crate::client::{Target, assert_refused, names, put};

pub async fn an_empty_store_is_at_revision_1(t: Target) {
    assert_eq!(t.revision().await, 1);
    let before = t
        .list(RangeRequest {
            revision: 1,
            ..RangeRequest::default()
        })
        .await;
    assert_eq!((before.count, before.kvs.len()), (0, 0));
    assert_eq!(t.put("first", "").await, 2);
    let kv = t.get("first").await.unwrap();
    assert_eq!((kv.create_revision, kv.mod_revision, kv.version), (2, 2, 1));
}

pub async fn revisions_move_with_changes_only(t: Target) {
    let revision = t.put("k", "v").await;
    assert_eq!(t.delete("absent").await, revision, "a delete of nothing");
    let lease = t.grant(600).await;
    assert_eq!(t.revision().await, revision, "a grant");
    t.revoke(lease).await;
    assert_eq!(t.revision().await, revision, "a revoke of a lease without keys");
    assert_eq!(t.put("k", "v").await, revision + 1, "a put of the same value");
    t.compact(revision).await;
    assert_eq!(t.revision().await, revision + 1, "a compaction");
    assert_eq!(t.delete("k").await, revision + 2);
}

pub async fn versions_and_create_revisions(t: Target) {
    let create = t.put("k", "1").await;
    let second = t.put("k", "2").await;
    let kv = t.get("k").await.unwrap();
    assert_eq!(
        (kv.create_revision, kv.mod_revision, kv.version),
        (create, second, 2)
    );
    t.delete("k").await;
    assert!(t.get("k").await.is_none());
    let again = t.put("k", "3").await;
    let kv = t.get("k").await.unwrap();
    assert_eq!(
        (kv.create_revision, kv.mod_revision, kv.version),
        (again, again, 1)
    );
}

pub async fn ignore_value_and_ignore_lease(t: Target) {
    let not_found = "etcdserver: key not found";
    let keep_value = |name: &str| PutRequest {
        ignore_value: true,
        ..put(t.key(name), "")
    };
    let keep_lease = |name: &str| PutRequest {
        ignore_lease: true,
        ..put(t.key(name), "new")
    };
    assert_refused(
        t.try_put(keep_value("absent")).await,
        Code::InvalidArgument,
        not_found,
    );
    assert_refused(
        t.try_put(keep_lease("absent")).await,
        Code::InvalidArgument,
        not_found,
    );

    let with_value = PutRequest {
        value: "v".into(),
        ..keep_value("k")
    };
    assert_refused(
        t.try_put(with_value).await,
        Code::InvalidArgument,
        "etcdserver: value is provided",
    );
    let with_lease = PutRequest {
        lease: 1,
        ..keep_lease("k")
    };
    assert_refused(
        t.try_put(with_lease).await,
        Code::InvalidArgument,
        "etcdserver: lease is provided",
    );

    let lease = t.grant(600).await;
    t.put_leased("k", lease).await;
    t.try_put(keep_lease("k")).await.unwrap();
    let kv = t.get("k").await.unwrap();
    assert_eq!((kv.value, kv.lease, kv.version), (Bytes::from("new"), lease, 2));
    t.try_put(keep_value("k")).await.unwrap();
    let kv = t.get("k").await.unwrap();
    assert_eq!((kv.value, kv.lease, kv.version), (Bytes::from("new"), 0, 3));
    t.revoke(lease).await;
}

pub async fn leases_move_and_detach(t: Target) {
    let (first, second) = (t.grant(600).await, t.grant(600).await);
    t.put_leased("moved", first).await;
    t.put_leased("moved", second).await;
    t.put_leased("detached", first).await;
    t.put("detached", "free").await;
    t.put_leased("stays", first).await;
    assert_eq!(keys_of(&t, first).await, [t.key("stays")]);
    assert_eq!(keys_of(&t, second).await, [t.key("moved")]);
    t.revoke(first).await;
    assert_eq!(
        names(&t, &t.list(RangeRequest::default()).await.kvs),
        ["detached", "moved"]
    );
    t.revoke(second).await;
    assert_eq!(
        names(&t, &t.list(RangeRequest::default()).await.kvs),
        ["detached"]
    );
}

async fn keys_of(t: &Target, id: i64) -> Vec<Bytes> {
    let request = LeaseTimeToLiveRequest { id, keys: true };
    let mut keys = t
        .lease()
        .lease_time_to_live(request)
        .await
        .unwrap()
        .into_inner()
        .keys;
    keys.sort();
    keys
}

pub async fn prev_kv_of_put_and_delete(t: Target) {
    let with_previous = |value: &str| PutRequest {
        prev_kv: true,
        ..put(t.key("k"), value)
    };
    assert!(t.try_put(with_previous("1")).await.unwrap().prev_kv.is_none());
    let previous = t.try_put(with_previous("2")).await.unwrap().prev_kv.unwrap();
    assert_eq!((previous.value, previous.version), (Bytes::from("1"), 1));
    t.put("l", "other").await;

    let (key, range_end) = t.all();
    let all = DeleteRangeRequest {
        key,
        range_end,
        prev_kv: true,
    };
    let deleted = t.try_delete(all.clone()).await.unwrap();
    assert_eq!(deleted.deleted, 2);
    assert_eq!(names(&t, &deleted.prev_kvs), ["k", "l"]);
    assert_eq!(deleted.prev_kvs[0].value, "2");
    let nothing = t.try_delete(all).await.unwrap();
    assert_eq!((nothing.deleted, nothing.prev_kvs.len()), (0, 0));
}
