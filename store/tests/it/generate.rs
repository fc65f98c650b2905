//! Random commands over few keys, leases and revisions, so that they meet.

use barque_proto::command::{
    Alarm, Compact, Compare, DeleteRange, IndexTerm, LeaseCheckpoint, LeaseGrant, LeaseRevoke, Operation,
    Put, Range, Txn, command::Op, compare::Target, lease_checkpoint::Remaining, operation,
};
use bytes::Bytes;
use proptest::{collection::vec, prelude::*};

const KEYS: [&str; 7] = ["a", "a\0", "a\0\u{1}", "ab", "b", "c", "c\u{7f}"];
/// More than most runs reach, so that the future is asked for too.
const REVISIONS: std::ops::Range<i64> = 0..40;

fn key() -> impl Strategy<Value = Bytes> {
    prop::sample::select(&KEYS[..]).prop_map(|key| Bytes::from_static(key.as_bytes()))
}

fn range_end() -> impl Strategy<Value = Bytes> {
    prop_oneof![
        3 => Just(Bytes::new()),
        2 => key(),
        1 => Just(Bytes::from_static(b"\0")),
        1 => Just(Bytes::from_static(b"b\xff")),
    ]
}

fn value() -> impl Strategy<Value = Bytes> {
    vec(prop::sample::select(vec![b'x', b'y', 0]), 0..4).prop_map(Bytes::from)
}

fn terms() -> impl Strategy<Value = Vec<IndexTerm>> {
    let term = prop::sample::select(vec![("node", "n1"), ("node", "n2"), ("app", ""), ("app\0", "x")]);
    vec(term, 0..3).prop_map(|mut terms| {
        terms.sort();
        terms.dedup();
        let term = |(field, value): (&'static str, &'static str)| IndexTerm {
            field: field.into(),
            value: value.into(),
        };
        terms.into_iter().map(term).collect()
    })
}

fn put() -> impl Strategy<Value = Put> {
    let lease = prop_oneof![4 => Just(0i64), 3 => 1..4i64];
    let flags = (
        prop::bool::weighted(0.1),
        prop::bool::weighted(0.1),
        any::<bool>(),
    );
    (key(), value(), lease, flags, terms(), 0..3u32).prop_map(
        |(key, value, lease, (ignore_value, ignore_lease, prev_kv), terms, splice_offset)| Put {
            key,
            value,
            lease,
            prev_kv,
            ignore_value,
            ignore_lease,
            terms,
            splice_offset,
        },
    )
}

fn delete() -> impl Strategy<Value = DeleteRange> {
    (key(), range_end(), any::<bool>()).prop_map(|(key, range_end, prev_kv)| DeleteRange {
        key,
        range_end,
        prev_kv,
    })
}

pub fn range() -> impl Strategy<Value = Range> {
    let bound = || prop_oneof![5 => Just(0), 1 => REVISIONS];
    (
        (
            key(),
            range_end(),
            -1..4i64,
            prop_oneof![2 => Just(0), 3 => REVISIONS],
        ),
        (
            0..3i32,
            0..5i32,
            prop::bool::weighted(0.2),
            prop::bool::weighted(0.2),
        ),
        (bound(), bound(), bound(), bound()),
    )
        .prop_map(
            |(
                (key, range_end, limit, revision),
                (sort_order, sort_target, keys_only, count_only),
                bounds,
            )| Range {
                key,
                range_end,
                limit,
                revision,
                sort_order,
                sort_target,
                keys_only,
                count_only,
                min_mod_revision: bounds.0,
                max_mod_revision: bounds.1,
                min_create_revision: bounds.2,
                max_create_revision: bounds.3,
            },
        )
}

fn compare() -> impl Strategy<Value = Compare> {
    let target = prop_oneof![
        (0..4i64).prop_map(Target::Version),
        REVISIONS.prop_map(Target::CreateRevision),
        REVISIONS.prop_map(Target::ModRevision),
        value().prop_map(Target::Value),
        (0..4i64).prop_map(Target::Lease),
    ];
    (0..4i32, key(), range_end(), target).prop_map(|(result, key, range_end, target)| Compare {
        result,
        key,
        range_end,
        target: Some(target),
    })
}

fn txn() -> impl Strategy<Value = Txn> {
    let leaf = prop_oneof![
        3 => range().prop_map(operation::Op::Range),
        4 => put().prop_map(operation::Op::Put),
        2 => delete().prop_map(operation::Op::DeleteRange),
    ];
    let operation = leaf.prop_recursive(2, 8, 3, |inner| txn_of(inner).prop_map(operation::Op::Txn));
    txn_of(operation)
}

fn txn_of(operation: impl Strategy<Value = operation::Op> + Clone) -> impl Strategy<Value = Txn> {
    let operation = operation.prop_map(|op| Operation { op: Some(op) });
    (
        vec(compare(), 0..3),
        vec(operation.clone(), 0..4),
        vec(operation, 0..3),
    )
        .prop_map(|(compare, success, failure)| Txn {
            compare,
            success,
            failure,
        })
}

pub fn op() -> impl Strategy<Value = Op> {
    let checkpoint = (1..4i64, 0..9i64).prop_map(|(id, remaining_ttl_s)| {
        Op::LeaseCheckpoint(LeaseCheckpoint {
            leases: vec![Remaining { id, remaining_ttl_s }],
        })
    });
    // CORRUPT refuses nearly everything, so it is seldom raised and soon disarmed.
    let alarm = prop_oneof![
        1 => (0..2i32, prop::bool::weighted(0.3)),
        2 => (Just(2i32), prop::bool::weighted(0.1)),
    ];
    let alarm = alarm.prop_map(|(kind, active)| {
        Op::Alarm(Alarm {
            kind,
            member_id: 1,
            active,
        })
    });
    prop_oneof![
        12 => put().prop_map(Op::Put),
        4 => delete().prop_map(Op::DeleteRange),
        8 => txn().prop_map(Op::Txn),
        2 => REVISIONS.prop_map(|revision| Op::Compact(Compact { revision })),
        3 => (1..4i64, 5..9i64).prop_map(|(id, ttl_s)| Op::LeaseGrant(LeaseGrant { id, ttl_s })),
        1 => (1..4i64).prop_map(|id| Op::LeaseRevoke(LeaseRevoke { id })),
        1 => checkpoint,
        1 => alarm,
    ]
}

/// What happens between two calls of apply.
#[derive(Debug, Clone, Copy, Default)]
pub struct Pause {
    /// Where a batch ends.
    pub cut: bool,
    pub compact_step: bool,
    pub flush: bool,
    /// So many ended rows are moved.
    pub moved_rows: usize,
}

/// How many bytes of deleted rows an apply moves itself: none, a few rows, as many as usual.
pub fn move_at_once() -> impl Strategy<Value = usize> {
    prop_oneof![3 => Just(0), 2 => 10..60usize, 1 => Just(1 << 20)]
}

/// Entries of commands, each with what may come after it.
pub fn log(entries: usize) -> impl Strategy<Value = Vec<(Vec<Op>, Pause)>> {
    let moved_rows = prop_oneof![3 => Just(0usize), 2 => 1..3usize, 1 => Just(100)];
    let pause = (
        any::<bool>(),
        any::<bool>(),
        prop::bool::weighted(0.3),
        moved_rows,
    );
    let pause = pause.prop_map(|(cut, compact_step, flush, moved_rows)| Pause {
        cut,
        compact_step,
        flush,
        moved_rows,
    });
    vec((vec(op(), 0..4), pause), 1..entries)
}
