//! Lines 1–4 and 14a: what a Range returns.

use barque_proto::etcd::etcdserverpb::{
    RangeRequest,
    range_request::{SortOrder, SortTarget},
};
use bytes::Bytes;
use tonic::Code;

use crate::client::{Target, assert_refused, names};

pub async fn ranges_by_key_and_end(t: Target) {
    for name in ["a", "b", "b\0", "c", "d"] {
        t.put(name, name).await;
    }
    let zero = Bytes::from_static(b"\0");
    let cases: [(Bytes, Bytes, &[&str]); 6] = [
        (t.key("b"), Bytes::new(), &["b"]),
        (t.key("b"), t.key("d"), &["b", "b\0", "c"]),
        (t.key("b"), t.key("b\0"), &["b"]),
        (t.key("b\0"), t.key("c"), &["b\0"]),
        (t.key("d"), t.key("b"), &[]),
        (t.key("b"), t.key("b"), &[]),
    ];
    for (key, range_end, expected) in cases {
        let got = t
            .range(RangeRequest {
                key,
                range_end,
                ..RangeRequest::default()
            })
            .await;
        assert_eq!(names(&t, &got.kvs), expected);
        assert_eq!(got.count, expected.len() as i64);
    }
    // Everything from a key on, and everything: other checks' keys are there too.
    let from = t
        .range(RangeRequest {
            key: t.key("c"),
            range_end: zero.clone(),
            ..RangeRequest::default()
        })
        .await;
    let found: Vec<Bytes> = from.kvs.iter().map(|kv| kv.key.clone()).collect();
    assert!(found.starts_with(&[t.key("c"), t.key("d")]), "{found:?}");
    assert!(found.is_sorted());
    let all = t
        .range(RangeRequest {
            key: zero.clone(),
            range_end: zero,
            ..RangeRequest::default()
        })
        .await;
    let found: Vec<Bytes> = all.kvs.iter().map(|kv| kv.key.clone()).collect();
    assert!(found.contains(&t.key("a")) && found.contains(&t.key("d")) && found.is_sorted());
}

pub async fn an_empty_key_is_refused(t: Target) {
    let text = "etcdserver: key is not provided";
    assert_refused(
        t.try_range(RangeRequest::default()).await,
        Code::InvalidArgument,
        text,
    );
    let to_the_end = RangeRequest {
        range_end: Bytes::from_static(b"\0"),
        ..RangeRequest::default()
    };
    assert_refused(t.try_range(to_the_end).await, Code::InvalidArgument, text);
}

/// Keys a, b, c, d whose order by every target differs; returns the revision before the first.
async fn four_keys(t: &Target) -> i64 {
    let before = t.revision().await;
    // create order: d, b, a, c; last change: b, d, c, a; versions: a 1, c 2, d 2, b 3; values: d < a < c < b
    for (name, value) in [
        ("d", "x"),
        ("b", "y"),
        ("a", "1"),
        ("c", "z"),
        ("b", "y"),
        ("b", "4"),
        ("d", "0"),
    ] {
        t.put(name, value).await;
    }
    t.put("c", "3").await;
    before
}

pub async fn filters_and_sorts_come_before_the_limit(t: Target) {
    let before = four_keys(&t).await;
    let by_mod = RangeRequest {
        sort_target: SortTarget::Mod as i32,
        sort_order: SortOrder::Descend as i32,
        limit: 2,
        ..RangeRequest::default()
    };
    let got = t.list(by_mod).await;
    assert_eq!(
        (names(&t, &got.kvs), got.more, got.count),
        (vec!["c".into(), "d".into()], true, 4)
    );

    // a was changed at before+3, b last at +6, d at +7, c at +8.
    let cases: [(RangeRequest, &[&str], bool); 6] = [
        (
            RangeRequest {
                min_mod_revision: before + 6,
                limit: 1,
                ..RangeRequest::default()
            },
            &["b"],
            true,
        ),
        (
            RangeRequest {
                min_mod_revision: before + 7,
                limit: 2,
                ..RangeRequest::default()
            },
            &["c", "d"],
            false,
        ),
        (
            RangeRequest {
                max_mod_revision: before + 6,
                ..RangeRequest::default()
            },
            &["a", "b"],
            false,
        ),
        (
            RangeRequest {
                min_create_revision: before + 3,
                ..RangeRequest::default()
            },
            &["a", "c"],
            false,
        ),
        (
            RangeRequest {
                max_create_revision: before + 2,
                ..RangeRequest::default()
            },
            &["b", "d"],
            false,
        ),
        (
            RangeRequest {
                max_create_revision: before + 2,
                limit: 1,
                ..RangeRequest::default()
            },
            &["b"],
            true,
        ),
    ];
    for (request, expected, more) in cases {
        let got = t.list(request).await;
        assert_eq!(
            (names(&t, &got.kvs), got.more),
            (expected.iter().map(|&n| n.to_owned()).collect(), more)
        );
        assert_eq!(got.count, 4, "count is that of the range, before filters");
    }
}

pub async fn count_ignores_limit_and_filters(t: Target) {
    for name in ["a", "b", "c"] {
        t.put(name, name).await;
    }
    for limit in [0, 1, 2, 3, 4] {
        let got = t
            .list(RangeRequest {
                limit,
                ..RangeRequest::default()
            })
            .await;
        let expected = if limit == 0 { 3 } else { limit.min(3) };
        assert_eq!(got.kvs.len() as i64, expected);
        assert_eq!((got.count, got.more), (3, expected < 3));
    }
    let none = t
        .list(RangeRequest {
            min_mod_revision: i64::MAX,
            ..RangeRequest::default()
        })
        .await;
    assert_eq!((none.kvs.len(), none.count, none.more), (0, 3, false));
    let counted = t
        .list(RangeRequest {
            count_only: true,
            limit: 1,
            ..RangeRequest::default()
        })
        .await;
    assert_eq!((counted.kvs.len(), counted.count), (0, 3));
}

pub async fn a_sort_without_order_ascends(t: Target) {
    four_keys(&t).await;
    for target in [
        SortTarget::Version,
        SortTarget::Create,
        SortTarget::Mod,
        SortTarget::Value,
    ] {
        let request = |order: SortOrder| RangeRequest {
            sort_target: target as i32,
            sort_order: order as i32,
            ..RangeRequest::default()
        };
        let none = t.list(request(SortOrder::None)).await.kvs;
        let ascending = t.list(request(SortOrder::Ascend)).await.kvs;
        assert_eq!(names(&t, &none), names(&t, &ascending), "{target:?}");
    }
}

pub async fn sorts_by_every_target(t: Target) {
    four_keys(&t).await;
    let cases: [(SortTarget, SortOrder, &[&str]); 7] = [
        (SortTarget::Key, SortOrder::None, &["a", "b", "c", "d"]),
        (SortTarget::Key, SortOrder::Descend, &["d", "c", "b", "a"]),
        (SortTarget::Create, SortOrder::Ascend, &["d", "b", "a", "c"]),
        (SortTarget::Create, SortOrder::Descend, &["c", "a", "b", "d"]),
        (SortTarget::Mod, SortOrder::Ascend, &["a", "b", "d", "c"]),
        (SortTarget::Value, SortOrder::Ascend, &["d", "a", "c", "b"]),
        (SortTarget::Value, SortOrder::Descend, &["b", "c", "a", "d"]),
    ];
    for (target, order, expected) in cases {
        let request = RangeRequest {
            sort_target: target as i32,
            sort_order: order as i32,
            ..RangeRequest::default()
        };
        let got = t.list(request).await;
        assert_eq!(names(&t, &got.kvs), expected, "{target:?} {order:?}");
    }
    // Equal versions (c and d have 2) may stand in either order.
    let by_version = RangeRequest {
        sort_target: SortTarget::Version as i32,
        ..RangeRequest::default()
    };
    let versions: Vec<i64> = t.list(by_version).await.kvs.iter().map(|kv| kv.version).collect();
    assert_eq!(versions, [1, 2, 2, 3]);
}

pub async fn history_carries_the_current_revision(t: Target) {
    let first = t.put("k", "old").await;
    let second = t.put("k", "new").await;
    let at = |revision| RangeRequest {
        key: t.key("k"),
        revision,
        ..RangeRequest::default()
    };
    let old = t.range(at(first)).await;
    assert_eq!(old.kvs[0].value, "old");
    assert_eq!((old.kvs[0].mod_revision, old.kvs[0].version), (first, 1));
    assert_eq!(old.header.unwrap().revision, second);
    assert_eq!(t.range(at(second)).await.kvs[0].value, "new");
    assert!(t.range(at(first - 1)).await.kvs.is_empty());
    let future = t.try_range(at(second + 1)).await;
    assert_refused(
        future,
        Code::OutOfRange,
        "etcdserver: mvcc: required revision is a future revision",
    );
}

pub async fn counts_are_counts_at_the_revision(t: Target) {
    let mut revisions = vec![(t.revision().await, 0)];
    for name in ["a", "b", "c"] {
        revisions.push((t.put(name, name).await, revisions.len() as i64));
    }
    revisions.push((t.put("a", "again").await, 3));
    revisions.push((t.delete("b").await, 2));
    for (revision, count) in revisions {
        for limit in [0, 1] {
            for count_only in [false, true] {
                let got = t
                    .list(RangeRequest {
                        revision,
                        limit,
                        count_only,
                        ..RangeRequest::default()
                    })
                    .await;
                assert_eq!(
                    got.count, count,
                    "at {revision}, limit {limit}, count_only {count_only}"
                );
            }
        }
    }
}

pub async fn keys_only_leaves_values_out(t: Target) {
    let revision = t.put("k", "value").await;
    let got = t
        .list(RangeRequest {
            keys_only: true,
            ..RangeRequest::default()
        })
        .await;
    assert_eq!(
        (got.kvs[0].key.clone(), got.kvs[0].mod_revision),
        (t.key("k"), revision)
    );
    assert!(got.kvs[0].value.is_empty());
}

pub async fn serializable_reads_answer(t: Target) {
    t.put("k", "value").await;
    let got = t
        .list(RangeRequest {
            serializable: true,
            ..RangeRequest::default()
        })
        .await;
    // A member may lag, and then answers older state; never wrong state.
    assert!(got.kvs.is_empty() || got.kvs[0].value == "value");
    let linearizable = t.list(RangeRequest::default()).await;
    assert_eq!(linearizable.kvs[0].value, "value");
}
