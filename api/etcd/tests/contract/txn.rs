//! Lines 5–7, 10 and 11: how a Txn compares, chooses, and runs.

use barque_proto::etcd::{
    etcdserverpb::{
        Compare, RangeRequest, ResponseOp, TxnRequest,
        compare::{CompareResult, TargetUnion},
        response_op::Response,
    },
    mvccpb::KeyValue,
};

use crate::client::{
    Target, always, compare, names, op_delete, op_delete_range, op_get, op_put, op_range, op_txn, prefix_end,
    unchanged_since,
};

use CompareResult::{Equal, Greater, Less, NotEqual};
use TargetUnion::{CreateRevision, Lease, ModRevision, Value, Version};

async fn holds(t: &Target, compares: Vec<Compare>) -> bool {
    t.txn(TxnRequest {
        compare: compares,
        ..TxnRequest::default()
    })
    .await
    .succeeded
}

pub async fn compares_of_missing_keys(t: Target) {
    let value = |text: &'static str| Value(text.into());
    let cases = [
        (Equal, value(""), false),
        (NotEqual, value("x"), false),
        (Less, value("x"), false),
        (Equal, Version(0), true),
        (Equal, CreateRevision(0), true),
        (Equal, ModRevision(0), true),
        (Equal, Lease(0), true),
        (NotEqual, Version(0), false),
        (Greater, ModRevision(0), false),
        (Less, ModRevision(1), true),
        (NotEqual, CreateRevision(3), true),
    ];
    for (result, target, expected) in cases {
        let one = compare(t.key("absent"), result, target.clone());
        assert_eq!(
            holds(&t, vec![one.clone()]).await,
            expected,
            "{result:?} {target:?}"
        );
        let range = Compare {
            range_end: prefix_end(&t.key("absent")),
            ..one
        };
        assert_eq!(
            holds(&t, vec![range]).await,
            expected,
            "an empty range, {result:?} {target:?}"
        );
    }
}

pub async fn compares_over_a_range(t: Target) {
    t.put("a", "same").await;
    t.put("b", "same").await;
    let last = t.put("c", "other").await;
    let (key, range_end) = t.all();
    let over = |result, target| Compare {
        range_end: range_end.clone(),
        ..compare(key.clone(), result, target)
    };
    assert!(holds(&t, vec![over(Equal, Version(1))]).await);
    assert!(
        holds(
            &t,
            vec![over(Greater, ModRevision(0)), over(Less, ModRevision(last + 1))]
        )
        .await
    );
    assert!(
        !holds(&t, vec![over(Less, ModRevision(last))]).await,
        "the last key fails"
    );
    assert!(!holds(&t, vec![over(Equal, Value("same".into()))]).await);
    assert!(holds(&t, vec![over(NotEqual, Value("absent".into()))]).await);
}

pub async fn compares_of_every_target(t: Target) {
    let lease = t.grant(600).await;
    let create = t.put("k", "m").await;
    let modified = t.put_leased("k", lease).await;
    let cases = [
        (Version(2), Version(1), Version(3)),
        (
            CreateRevision(create),
            CreateRevision(create - 1),
            CreateRevision(create + 1),
        ),
        (
            ModRevision(modified),
            ModRevision(create),
            ModRevision(modified + 1),
        ),
        (
            Value("leased".into()),
            Value("leasec".into()),
            Value("leased\0".into()),
        ),
        (Lease(lease), Lease(lease - 1), Lease(lease + 1)),
    ];
    for (same, smaller, larger) in cases {
        let outcomes = [
            (Equal, &same, true),
            (NotEqual, &same, false),
            (Greater, &same, false),
            (Less, &same, false),
            (Greater, &smaller, true),
            (Less, &smaller, false),
            (Less, &larger, true),
            (Greater, &larger, false),
            (NotEqual, &larger, true),
            (Equal, &larger, false),
        ];
        for (result, target, expected) in outcomes {
            let got = holds(&t, vec![compare(t.key("k"), result, target.clone())]).await;
            assert_eq!(got, expected, "{result:?} {target:?}");
        }
    }
    t.revoke(lease).await;
}

pub async fn compares_come_before_operations(t: Target) {
    // The inner compare asks whether the key is absent: it is, before the txn, although the txn puts it first.
    let inner = TxnRequest {
        compare: vec![unchanged_since(t.key("k"), 0)],
        success: vec![op_put(t.key("inner"), "absent")],
        failure: vec![op_put(t.key("inner"), "present")],
    };
    let response = t.txn(always(vec![op_put(t.key("k"), "v"), op_txn(inner)])).await;
    assert!(nested(&response.responses[1]).succeeded);
    assert_eq!(t.get("inner").await.unwrap().value, "absent");
}

pub async fn a_range_sees_the_txns_own_operations(t: Target) {
    t.put("a", "before").await;
    t.put("x", "before").await;
    let (key, range_end) = t.all();
    let list = || {
        op_range(RangeRequest {
            key: key.clone(),
            range_end: range_end.clone(),
            ..RangeRequest::default()
        })
    };
    let operations = vec![
        list(),
        op_put(t.key("b"), "own"),
        list(),
        op_delete(t.key("a")),
        list(),
        op_txn(always(vec![op_put(t.key("c"), "nested"), list()])),
        op_delete_range(t.key("w"), t.key("z")),
        list(),
    ];
    let response = t.txn(always(operations)).await;
    let seen = |at: usize| names(&t, &listed(&response.responses[at]));
    assert_eq!(seen(0), ["a", "x"]);
    assert_eq!(seen(2), ["a", "b", "x"]);
    assert_eq!(seen(4), ["b", "x"]);
    assert_eq!(
        names(&t, &listed(&nested(&response.responses[5]).responses[1])),
        ["b", "c", "x"]
    );
    assert_eq!(seen(7), ["b", "c"]);
    let revision = response.header.unwrap().revision;
    let own = &listed(&response.responses[2])[1];
    assert_eq!(
        (own.mod_revision, own.create_revision, own.version),
        (revision, revision, 1)
    );
}

pub async fn one_revision_per_txn(t: Target) {
    let before = t.put("a", "0").await;
    let reads = t
        .txn(always(vec![op_get(t.key("a")), op_delete(t.key("absent"))]))
        .await;
    assert_eq!(reads.header.unwrap().revision, before, "nothing changed");
    let operations = vec![
        op_put(t.key("b"), "1"),
        op_put(t.key("c"), "2"),
        op_delete(t.key("a")),
    ];
    let writes = t.txn(always(operations)).await;
    assert_eq!(writes.header.unwrap().revision, before + 1);
    for name in ["b", "c"] {
        assert_eq!(t.get(name).await.unwrap().mod_revision, before + 1);
    }
    assert_eq!(t.put("d", "3").await, before + 2);
}

pub async fn inner_responses_carry_the_revision(t: Target) {
    t.put("gone", "").await;
    let before = t.revision().await;
    let operations = vec![
        op_get(t.key("k")),
        op_put(t.key("k"), "v"),
        op_delete(t.key("gone")),
        op_get(t.key("k")),
    ];
    let response = t.txn(always(operations)).await;
    let revisions: Vec<i64> = response.responses.iter().map(inner_revision).collect();
    // A range before the first write still stands at the revision before.
    assert_eq!(revisions, [before, before + 1, before + 1, before + 1]);
}

pub async fn nested_branches_are_chosen(t: Target) {
    t.put("k", "1").await;
    let inner = |expected: &'static str, name: &str| TxnRequest {
        compare: vec![compare(t.key("k"), Equal, Value(expected.into()))],
        success: vec![op_put(t.key(name), "then")],
        failure: vec![op_put(t.key(name), "else")],
    };
    let outer = TxnRequest {
        compare: vec![compare(t.key("k"), Equal, Value("2".into()))],
        success: vec![op_put(t.key("outer"), "then")],
        failure: vec![
            op_txn(inner("1", "x")),
            op_txn(inner("2", "y")),
            op_put(t.key("outer"), "else"),
        ],
    };
    let response = t.txn(outer).await;
    assert!(!response.succeeded);
    assert!(nested(&response.responses[0]).succeeded);
    assert!(!nested(&response.responses[1]).succeeded);
    for (name, value) in [("outer", "else"), ("x", "then"), ("y", "else")] {
        assert_eq!(t.get(name).await.unwrap().value, value);
    }
}

fn nested(response: &ResponseOp) -> &barque_proto::etcd::etcdserverpb::TxnResponse {
    match response.response.as_ref().unwrap() {
        Response::ResponseTxn(txn) => txn,
        other => panic!("{other:?}"),
    }
}

fn listed(response: &ResponseOp) -> Vec<KeyValue> {
    match response.response.as_ref().unwrap() {
        Response::ResponseRange(range) => range.kvs.clone(),
        other => panic!("{other:?}"),
    }
}

fn inner_revision(response: &ResponseOp) -> i64 {
    let header = match response.response.as_ref().unwrap() {
        Response::ResponseRange(inner) => &inner.header,
        Response::ResponsePut(inner) => &inner.header,
        Response::ResponseDeleteRange(inner) => &inner.header,
        Response::ResponseTxn(inner) => &inner.header,
    };
    header.as_ref().expect("inner responses carry a header").revision
}
