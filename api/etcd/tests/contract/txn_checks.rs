//! Lines 8 and 9: which Txns are refused before anything is changed.

use barque_proto::etcd::etcdserverpb::{
    PutRequest, RangeRequest, RequestOp, TxnRequest, request_op::Request,
};
use tonic::Code;

use crate::client::{
    Target, always, assert_refused, op_delete, op_delete_range, op_get, op_put, op_range, op_txn, put,
    unchanged_since,
};

const TOO_MANY: &str = "etcdserver: too many operations in txn request";
const DUPLICATE: &str = "etcdserver: duplicate key given in txn request";

pub async fn operations_are_limited(t: Target) {
    let puts = |count: usize| {
        (0..count)
            .map(|i| op_put(t.key(&format!("k{i}")), ""))
            .collect::<Vec<_>>()
    };
    let compares = |count: usize| vec![unchanged_since(t.key("c"), 0); count];
    t.txn(always(puts(128))).await;
    assert_refused(
        t.try_txn(always(puts(129))).await,
        Code::InvalidArgument,
        TOO_MANY,
    );
    // The largest of the three lists counts, not their sum.
    t.txn(TxnRequest {
        compare: compares(128),
        success: puts(128),
        failure: puts(128),
    })
    .await;
    let many_compares = TxnRequest {
        compare: compares(129),
        ..TxnRequest::default()
    };
    assert_refused(t.try_txn(many_compares).await, Code::InvalidArgument, TOO_MANY);
    let many_failures = TxnRequest {
        failure: puts(129),
        ..TxnRequest::default()
    };
    assert_refused(t.try_txn(many_failures).await, Code::InvalidArgument, TOO_MANY);
    // A nested txn has what its parent's own count leaves.
    t.txn(always(vec![op_txn(always(puts(127)))])).await;
    let nested = always(vec![op_txn(always(puts(128)))]);
    assert_refused(t.try_txn(nested).await, Code::InvalidArgument, TOO_MANY);
}

pub async fn duplicate_keys(t: Target) {
    let (a, b) = (t.key("a"), t.key("b"));
    let put_a = || op_put(a.clone(), "x");
    let delete_a = || op_delete(a.clone());
    let delete_all = || op_delete_range(a.clone(), t.key("z"));
    let sub = |operations: Vec<RequestOp>| op_txn(always(operations));
    let branches = |success: Vec<RequestOp>, failure: Vec<RequestOp>| TxnRequest {
        success,
        failure,
        ..TxnRequest::default()
    };
    let one_of = |success: Vec<RequestOp>, failure: Vec<RequestOp>| op_txn(branches(success, failure));

    let refused = [
        ("put and put", always(vec![put_a(), put_a()])),
        ("put and delete", always(vec![put_a(), delete_a()])),
        ("delete and put", always(vec![delete_a(), put_a()])),
        (
            "delete of a range and put in it",
            always(vec![op_put(b.clone(), ""), delete_all()]),
        ),
        (
            "put, put in a nested txn",
            always(vec![put_a(), sub(vec![put_a()])]),
        ),
        (
            "put in a nested txn, then put",
            always(vec![sub(vec![put_a()]), put_a()]),
        ),
        (
            "delete, put in a nested txn",
            always(vec![delete_a(), sub(vec![put_a()])]),
        ),
        (
            "put, delete in a nested txn",
            always(vec![put_a(), sub(vec![delete_a()])]),
        ),
        (
            "delete in a nested txn, then put",
            always(vec![sub(vec![delete_a()]), put_a()]),
        ),
        (
            "siblings put one key",
            always(vec![sub(vec![put_a()]), sub(vec![put_a()])]),
        ),
        (
            "siblings put one key in opposite branches",
            always(vec![one_of(vec![put_a()], vec![]), one_of(vec![], vec![put_a()])]),
        ),
        (
            "a sibling deletes, a later one puts",
            always(vec![sub(vec![delete_a()]), sub(vec![put_a()])]),
        ),
        ("in the failure branch", branches(vec![], vec![put_a(), put_a()])),
        (
            "two levels down",
            always(vec![sub(vec![sub(vec![put_a()])]), put_a()]),
        ),
    ];
    for (name, request) in refused {
        let outcome = t.try_txn(request).await;
        assert!(outcome.is_err(), "{name} was accepted");
        assert_refused(outcome, Code::InvalidArgument, DUPLICATE);
    }

    let accepted = [
        ("then and else of one txn", branches(vec![put_a()], vec![put_a()])),
        (
            "then and else of a nested txn",
            always(vec![one_of(vec![put_a()], vec![put_a(), op_put(b.clone(), "")])]),
        ),
        (
            "delete and delete",
            always(vec![delete_a(), delete_a(), delete_all()]),
        ),
        ("put and read", always(vec![put_a(), op_get(a.clone())])),
        ("two keys", always(vec![put_a(), op_put(b.clone(), "")])),
        (
            "a sibling puts, a later one deletes",
            always(vec![sub(vec![put_a()]), sub(vec![delete_a()])]),
        ),
    ];
    for (name, request) in accepted {
        let outcome = t.try_txn(request).await;
        assert!(outcome.is_ok(), "{name}: {outcome:?}");
    }
    assert!(t.get("a").await.is_none(), "the later sibling's delete came last");
}

pub async fn a_failing_operation_changes_nothing(t: Target) {
    let before = t.put("k", "v").await;
    let future = RangeRequest {
        key: t.key("k"),
        revision: before + 100,
        ..RangeRequest::default()
    };
    let missing_lease = PutRequest {
        lease: 0x7eed_0bad,
        ..put(t.key("l"), "")
    };
    let ignore_value = PutRequest {
        ignore_value: true,
        ..put(t.key("absent"), "")
    };
    let as_op = |request: PutRequest| RequestOp {
        request: Some(Request::RequestPut(request)),
    };
    let cases = [
        (
            op_range(future),
            Code::OutOfRange,
            "etcdserver: mvcc: required revision is a future revision",
        ),
        (
            as_op(missing_lease),
            Code::NotFound,
            "etcdserver: requested lease not found",
        ),
        (
            as_op(ignore_value),
            Code::InvalidArgument,
            "etcdserver: key not found",
        ),
    ];
    for (operation, code, text) in cases {
        let outcome = t.try_txn(always(vec![op_put(t.key("x"), ""), operation])).await;
        assert_refused(outcome, code, text);
    }
    let empty_key = t
        .try_txn(always(vec![op_put(t.key("x"), ""), op_get("".into())]))
        .await;
    assert_refused(
        empty_key,
        Code::InvalidArgument,
        "etcdserver: key is not provided",
    );
    assert!(t.get("x").await.is_none());
    assert_eq!(t.revision().await, before);
}
