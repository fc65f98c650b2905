//! The table of codes and texts, and lines 8 and 14: what is refused for its size or for want of space.

use barque_proto::etcd::etcdserverpb::{
    AlarmRequest, AlarmType, CompactionRequest, DeleteRangeRequest, LeaseGrantRequest, LeaseRevokeRequest,
    PutRequest, RangeRequest, alarm_request::AlarmAction,
};
use tonic::{Code, Status};

use crate::client::{Target, always, assert_refused, op_delete, op_get, op_put, op_txn, put};

pub async fn codes_and_texts(t: Target) {
    let granted = t.grant(600).await;
    let key = t.key("k");
    let grant = async |ttl, id| {
        t.lease()
            .lease_grant(LeaseGrantRequest { ttl, id })
            .await
            .map(|_| ())
    };
    let refusals: Vec<(Result<(), Status>, Code, &str)> = vec![
        (
            t.try_put(PutRequest::default()).await.map(|_| ()),
            Code::InvalidArgument,
            "etcdserver: key is not provided",
        ),
        (
            t.try_delete(DeleteRangeRequest::default()).await.map(|_| ()),
            Code::InvalidArgument,
            "etcdserver: key is not provided",
        ),
        (
            t.try_put(PutRequest {
                lease: 0x7eed_0bad,
                ..put(key.clone(), "")
            })
            .await
            .map(|_| ()),
            Code::NotFound,
            "etcdserver: requested lease not found",
        ),
        (
            t.lease()
                .lease_revoke(LeaseRevokeRequest { id: 0x7eed_0bad })
                .await
                .map(|_| ()),
            Code::NotFound,
            "etcdserver: requested lease not found",
        ),
        (
            grant(600, granted).await,
            Code::FailedPrecondition,
            "etcdserver: lease already exists",
        ),
        (
            grant(9_000_000_001, 0).await,
            Code::OutOfRange,
            "etcdserver: too large lease TTL",
        ),
    ];
    for (outcome, code, text) in refusals {
        assert_refused(outcome, code, text);
    }
    t.revoke(granted).await;
    sort_options(&t).await;
}

async fn sort_options(t: &Target) {
    for (sort_order, sort_target) in [(9, 0), (0, 9)] {
        let request = RangeRequest {
            key: t.key("k"),
            sort_order,
            sort_target,
            ..RangeRequest::default()
        };
        if !t.differs("sort-option") {
            let outcome = t.try_range(request).await;
            assert_refused(outcome, Code::InvalidArgument, "etcdserver: invalid sort option");
        } else if sort_target == 0 {
            t.try_range(request).await.unwrap();
        }
    }
}

pub async fn requests_are_limited_in_size(t: Target) {
    let fits = put(t.key("fits"), &"x".repeat(1_500_000));
    t.try_put(fits).await.unwrap();
    let too_large = put(t.key("too-large"), &"x".repeat(1_600_000));
    assert_refused(
        t.try_put(too_large).await,
        Code::InvalidArgument,
        "etcdserver: request is too large",
    );
    t.delete("fits").await;
}

pub async fn the_space_alarm_stops_what_grows(t: Target) {
    let no_space = "etcdserver: mvcc: database space exceeded";
    t.put("k", "v").await;
    let keep = t.put("kept", "v").await;
    alarm(&t, AlarmAction::Activate).await;

    let put_refused = t.try_put(put(t.key("new"), "v")).await.map(|_| ());
    let grant_refused = t
        .lease()
        .lease_grant(LeaseGrantRequest { ttl: 600, id: 0 })
        .await
        .map(|_| ());
    let txn_refused = t
        .try_txn(always(vec![op_get(t.key("k")), op_put(t.key("new"), "v")]))
        .await
        .map(|_| ());
    let nested = always(vec![op_txn(always(vec![op_put(t.key("new"), "v")]))]);
    let nested_refused = t.try_txn(nested).await.map(|_| ());
    let read = t
        .try_range(RangeRequest {
            key: t.key("k"),
            ..RangeRequest::default()
        })
        .await;
    let read_txn = t
        .try_txn(always(vec![op_get(t.key("k")), op_delete(t.key("k"))]))
        .await;
    let delete = t
        .try_delete(DeleteRangeRequest {
            key: t.key("k"),
            ..DeleteRangeRequest::default()
        })
        .await
        .map(|_| ());
    t.compact(keep).await;
    // Lifted before the assertions, so that a failure here leaves the other checks a store that takes writes.
    alarm(&t, AlarmAction::Deactivate).await;

    for refused in [put_refused, grant_refused, txn_refused] {
        assert_refused(refused, Code::ResourceExhausted, no_space);
    }
    if t.differs("nested-space") {
        nested_refused.unwrap();
    } else {
        assert_refused(nested_refused, Code::ResourceExhausted, no_space);
    }
    assert_eq!(read.unwrap().count, 1);
    read_txn.unwrap();
    delete.unwrap();
    t.put("new", "v").await;
}

pub async fn the_corrupt_alarm_stops_what_changes(t: Target) {
    t.put("k", "v").await;
    let compact_at = t.put("k", "w").await;
    let lease = t.grant(600).await;
    raise(&t, AlarmType::Corrupt, AlarmAction::Activate).await;

    let writing = always(vec![op_put(t.key("new"), "v")]);
    let deleting = DeleteRangeRequest {
        key: t.key("k"),
        ..DeleteRangeRequest::default()
    };
    let compacting = CompactionRequest {
        revision: compact_at,
        physical: false,
    };
    let (mut kv, mut leases) = (t.kv(), t.lease());
    let refused = [
        t.try_put(put(t.key("new"), "v")).await.map(drop),
        t.try_delete(deleting).await.map(drop),
        t.try_txn(writing).await.map(drop),
        kv.compact(compacting).await.map(drop),
        leases
            .lease_grant(LeaseGrantRequest { ttl: 600, id: 0 })
            .await
            .map(drop),
        leases
            .lease_revoke(LeaseRevokeRequest { id: lease })
            .await
            .map(drop),
    ];
    let read = |serializable| {
        t.try_range(RangeRequest {
            key: t.key("k"),
            serializable,
            ..RangeRequest::default()
        })
    };
    let reads = [read(false).await, read(true).await];
    let read_txn = t.try_txn(always(vec![op_get(t.key("k"))])).await;
    let listed = t.maintenance().alarm(AlarmRequest::default()).await;
    // Lifted before the assertions, so that a failure here leaves the other checks a store that takes writes.
    raise(&t, AlarmType::Corrupt, AlarmAction::Deactivate).await;

    for refused in refused {
        assert_refused(refused, Code::DataLoss, "etcdserver: corrupt cluster");
    }
    for read in reads {
        assert_eq!(read.unwrap().kvs[0].value, "w");
    }
    assert!(read_txn.unwrap().succeeded);
    let alarms = listed.unwrap().into_inner().alarms;
    assert_eq!(alarms.len(), 1);
    assert_eq!(alarms[0].alarm(), AlarmType::Corrupt);
    t.put("new", "v").await;
    t.revoke(lease).await;
}

async fn alarm(t: &Target, action: AlarmAction) {
    raise(t, AlarmType::Nospace, action).await;
}

async fn raise(t: &Target, kind: AlarmType, action: AlarmAction) {
    let status = t
        .maintenance()
        .status(barque_proto::etcd::etcdserverpb::StatusRequest {})
        .await
        .unwrap();
    let member_id = status.into_inner().header.unwrap().member_id;
    let request = AlarmRequest {
        action: action as i32,
        member_id,
        alarm: kind as i32,
    };
    t.maintenance().alarm(request).await.unwrap();
}
