//! What one command may take: bytes written and read while it is applied, keys, values that it returns.

use std::{
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use barque_proto::command::{
    Command, DeleteRange, LeaseGrant, LeaseRevoke, Operation, Put, Txn, command::Op, operation,
};
use bytes::Bytes;

use super::{Bounded, doomed::Limits};
use crate::{
    Applier, CommandError, LeaseId, Response, Revision, Store, StoreError,
    kv::{Batch, Bounds, Cursor, Engine, EngineSizes, Family, View, memory::MemoryEngine},
    test_support::apply,
};

const VALUE_BYTES: usize = 16 << 10;
const KEYS: usize = 300;

/// An engine that adds up what is written to it and what is copied out of it.
#[derive(Default)]
struct Metered {
    engine: MemoryEngine,
    meter: Arc<Meter>,
}

#[derive(Default)]
struct Meter {
    batches: AtomicUsize,
    largest_batch: AtomicUsize,
    copied: AtomicUsize,
}

impl Meter {
    /// Starts anew; returns how many batches were written, the largest one's bytes, and the bytes that were read out.
    fn take(&self) -> (usize, usize, usize) {
        let take = |number: &AtomicUsize| number.swap(0, Ordering::Relaxed);
        (take(&self.batches), take(&self.largest_batch), take(&self.copied))
    }
}

impl Engine for Metered {
    fn write(&self, batch: Batch) -> Result<(), StoreError> {
        let bytes = |value: &Option<Bytes>| value.as_ref().map_or(0, Bytes::len);
        let rows = batch.rows.iter();
        let written = rows.map(|(_, key, value)| key.len() + bytes(value)).sum();
        self.meter.batches.fetch_add(1, Ordering::Relaxed);
        self.meter.largest_batch.fetch_max(written, Ordering::Relaxed);
        self.engine.write(batch)
    }

    fn view(&self) -> Arc<dyn View> {
        Arc::new(MeteredView(self.engine.view(), Arc::clone(&self.meter)))
    }

    fn flush(&self) -> Result<(), StoreError> {
        self.engine.flush()
    }

    fn defragment(&self) -> Result<(), StoreError> {
        self.engine.defragment()
    }

    fn checkpoint(&self, dir: &Path) -> Result<(), StoreError> {
        self.engine.checkpoint(dir)
    }

    fn open_checkpoint(&self, dir: &Path) -> Result<Arc<dyn View>, StoreError> {
        self.engine.open_checkpoint(dir)
    }

    fn stage(&self, dir: &Path) -> Result<Arc<dyn Engine>, StoreError> {
        self.engine.stage(dir)
    }

    fn make_current(&self) -> Result<(), StoreError> {
        self.engine.make_current()
    }

    fn retire(&self) {
        self.engine.retire();
    }

    fn sizes(&self) -> EngineSizes {
        self.engine.sizes()
    }
}

struct MeteredView(Arc<dyn View>, Arc<Meter>);

impl View for MeteredView {
    fn get(&self, family: Family, key: &[u8]) -> Result<Option<Bytes>, StoreError> {
        let found = self.0.get(family, key)?;
        let bytes = found.as_ref().map_or(0, Bytes::len);
        self.1.copied.fetch_add(bytes, Ordering::Relaxed);
        Ok(found)
    }

    fn floor(&self, family: Family, start: &[u8], last: &[u8]) -> Result<Option<(Bytes, Bytes)>, StoreError> {
        self.0.floor(family, start, last)
    }

    fn cursor<'a>(&'a self, family: Family, bounds: Bounds<'_>) -> Result<Box<dyn Cursor + 'a>, StoreError> {
        self.0.cursor(family, bounds)
    }
}

struct Fixture {
    engine: Arc<Metered>,
    store: Store,
    applier: Applier,
    index: u64,
}

impl Fixture {
    fn new(bounded: Bounded) -> Self {
        let engine = Arc::new(Metered::default());
        let (store, mut applier) = Store::open_with(Arc::clone(&engine) as Arc<dyn Engine>, 0).unwrap();
        applier.bound(bounded);
        Self {
            engine,
            store,
            applier,
            index: 0,
        }
    }

    /// With a lease of so many keys, named by number, that hold a value each.
    fn with_lease(bounded: Bounded, keys: usize, value_bytes: usize) -> Self {
        let mut fixture = Self::new(bounded);
        fixture.apply(grant(7)).unwrap();
        for number in 0..keys {
            fixture.apply(put(number, value_bytes)).unwrap();
        }
        fixture.engine.meter.take();
        fixture
    }

    fn apply(&mut self, op: Op) -> crate::Outcome {
        self.index += 1;
        let command = Command {
            op: Some(op),
            ..Command::default()
        };
        apply(&mut self.applier, self.index, vec![command]).remove(0)
    }

    fn rows(&self, family: Family) -> usize {
        let view = self.engine.engine.view();
        let mut cursor = view.cursor(family, Bounds::ALL).unwrap();
        let mut rows = 0;
        while cursor.row().is_some() {
            rows += 1;
            cursor.advance().unwrap();
        }
        rows
    }

    fn count(&self) -> u64 {
        self.store.sizes().live_keys
    }
}

fn grant(id: i64) -> Op {
    Op::LeaseGrant(LeaseGrant { id, ttl_s: 60 })
}

fn put(number: usize, value_bytes: usize) -> Op {
    Op::Put(a_put(number, value_bytes))
}

fn a_put(number: usize, value_bytes: usize) -> Put {
    Put {
        key: format!("k{number:05}").into(),
        value: vec![b'v'; value_bytes].into(),
        lease: 7,
        ..Put::default()
    }
}

fn delete_all(prev_kv: bool) -> DeleteRange {
    DeleteRange {
        key: "k".into(),
        range_end: "l".into(),
        prev_kv,
    }
}

fn revoke() -> Op {
    Op::LeaseRevoke(LeaseRevoke { id: 7 })
}

fn txn(operations: Vec<operation::Op>) -> Op {
    let success = operations.into_iter().map(|op| Operation { op: Some(op) });
    Op::Txn(Txn {
        success: success.collect(),
        ..Txn::default()
    })
}

fn limited(delete_bytes: usize, prev_bytes: usize) -> Bounded {
    Bounded {
        limits: Limits {
            delete_bytes,
            prev_bytes,
        },
        ..Bounded::default()
    }
}

#[test]
fn deleting_many_keys_neither_copies_nor_writes_their_values() {
    let in_txn = txn(vec![operation::Op::DeleteRange(delete_all(false))]);
    for op in [Op::DeleteRange(delete_all(false)), revoke(), in_txn] {
        let mut fixture = Fixture::with_lease(Bounded::default(), KEYS, VALUE_BYTES);
        fixture.apply(op.clone()).unwrap();
        let (batches, written, copied) = fixture.engine.meter.take();
        let moved_at_once = Bounded::default().move_at_once;
        assert_eq!(batches, 1, "{op:?}");
        assert!(written < moved_at_once + KEYS * 200, "{written} bytes of {op:?}");
        assert!(copied < 2 * moved_at_once, "{copied} bytes copied by {op:?}");
        assert_eq!(fixture.count(), 0);

        while fixture.applier.move_step().unwrap() {}
        let (batches, written, _) = fixture.engine.meter.take();
        assert!(
            batches > 10 && written < 300 << 10,
            "{batches} steps, {written} bytes"
        );
        assert_eq!((fixture.rows(Family::Cur), fixture.rows(Family::Ended)), (0, 0));
        assert_eq!(fixture.rows(Family::Hist), KEYS);
    }
}

#[test]
fn what_compaction_would_remove_is_not_moved() {
    let mut fixture = Fixture::with_lease(Bounded::default(), KEYS, VALUE_BYTES);
    fixture.applier.move_at_once(0);
    fixture.apply(Op::DeleteRange(delete_all(false))).unwrap();
    let revision = fixture.store.head().revision.0;
    let compact = barque_proto::command::Compact { revision };
    fixture.apply(Op::Compact(compact)).unwrap();
    fixture.engine.meter.take();
    assert!(fixture.applier.move_step().unwrap());
    let (_, written, _) = fixture.engine.meter.take();
    assert!(written < 300 * 64, "{written}");
    // What the mover has not come to goes with the compaction.
    while fixture.applier.compact_step().unwrap() {}
    assert!(!fixture.applier.has_ended_rows());
    for family in [Family::Cur, Family::Ended, Family::Hist] {
        assert_eq!(fixture.rows(family), 0, "{family:?}");
    }
    assert_eq!(
        fixture.rows(Family::Log),
        KEYS,
        "what was deleted at the compact revision"
    );
}

#[test]
fn a_key_comes_back_before_its_row_is_moved() {
    let mut fixture = Fixture::with_lease(Bounded::default(), 2, 4);
    fixture.applier.move_at_once(0);
    fixture.apply(Op::DeleteRange(delete_all(false))).unwrap();
    let deleted = fixture.store.head().revision;
    fixture.apply(put(1, 2)).unwrap();
    assert_eq!((fixture.rows(Family::Ended), fixture.rows(Family::Hist)), (1, 1));
    let check = |fixture: &Fixture| {
        let value = |revision: i64| {
            let found = fixture.store.reader().get(b"k00001", Revision(revision)).unwrap();
            found.map(|kv| (kv.version, kv.value.len()))
        };
        assert_eq!(value(deleted.0 - 1), Some((1, 4)));
        assert_eq!(value(deleted.0), None);
        assert_eq!(value(0), Some((1, 2)));
        assert_eq!(fixture.count(), 1);
    };
    check(&fixture);
    while fixture.applier.move_step().unwrap() {}
    check(&fixture);
}

#[test]
fn a_delete_of_too_many_keys_is_refused_and_leaves_no_trace() {
    let mut fixture = Fixture::with_lease(limited(30 << 10, usize::MAX), KEYS, 1);
    let before = (fixture.store.state_hash().1, fixture.store.head().revision);
    let in_txn = txn(vec![
        operation::Op::Put(a_put(0, 9)),
        operation::Op::DeleteRange(delete_all(false)),
    ]);
    // Each of them is small enough; a txn is one command.
    let half = |from: &'static str, to: &'static str| {
        operation::Op::DeleteRange(DeleteRange {
            key: from.into(),
            range_end: to.into(),
            prev_kv: false,
        })
    };
    let halves = txn(vec![half("k00000", "k00010"), half("k00010", "k00020")]);
    for op in [Op::DeleteRange(delete_all(false)), in_txn, halves] {
        assert_eq!(
            fixture.apply(op.clone()).unwrap_err(),
            CommandError::TooManyKeys,
            "{op:?}"
        );
        let after = (fixture.store.state_hash().1, fixture.store.head().revision);
        assert_eq!(after, before, "{op:?}");
        assert_eq!((fixture.count(), fixture.rows(Family::Ended)), (KEYS as u64, 0));
    }
    fixture.apply(txn(vec![half("k00000", "k00010")])).unwrap();
    assert_eq!(fixture.count(), KEYS as u64 - 10);
}

#[test]
fn previous_values_that_are_too_large_are_refused_whoever_waits() {
    let limit = limited(usize::MAX, 10 * VALUE_BYTES);
    let puts = |count: usize| {
        let put = |number| {
            operation::Op::Put(Put {
                prev_kv: true,
                ..a_put(number, 1)
            })
        };
        txn((0..count).map(put).collect())
    };
    for op in [Op::DeleteRange(delete_all(true)), puts(11)] {
        let mut fixture = Fixture::with_lease(limit, 12, VALUE_BYTES);
        let hash = fixture.store.state_hash().1;
        assert_eq!(fixture.apply(op.clone()).unwrap_err(), CommandError::PrevTooLarge);
        assert_eq!(fixture.store.state_hash().1, hash);
        let command = Command {
            op: Some(op),
            ..Command::default()
        };
        let entry = crate::test_support::entry(1000, vec![command]);
        let outcomes = fixture.applier.apply_for(&[entry], |_| false).unwrap();
        assert_eq!(outcomes, [[Err(CommandError::PrevTooLarge)]]);
    }
    let mut fixture = Fixture::with_lease(limit, 12, VALUE_BYTES);
    fixture.apply(puts(9)).unwrap();
    let Response::DeleteRange(response) = fixture.apply(Op::DeleteRange(delete_all(true))).unwrap() else {
        panic!("a delete's response")
    };
    assert_eq!((response.deleted, response.prev_kvs.len()), (12, 12));
    assert_eq!(response.prev_kvs[11].value.len(), VALUE_BYTES);
}

#[test]
fn a_lease_of_too_many_keys_is_revoked_in_parts() {
    let mut fixture = Fixture::with_lease(limited(190 << 10, usize::MAX), KEYS, 1);
    let mut left = Vec::new();
    loop {
        let Response::LeaseRevoke { complete, .. } = fixture.apply(revoke()).unwrap() else {
            panic!("a revocation's response")
        };
        let attached = fixture.store.reader().lease_keys(LeaseId(7)).unwrap();
        assert_eq!(attached.len() as u64, fixture.count());
        left.push(fixture.count());
        assert_eq!(fixture.store.leases().unwrap().is_empty(), complete);
        if complete {
            break;
        }
    }
    assert_eq!(left.len(), 3, "{left:?}");
    assert!(
        left.is_sorted_by(|a, b| a > b) && left.ends_with(&[0]),
        "{left:?}"
    );
    assert_eq!(fixture.apply(revoke()).unwrap_err(), CommandError::LeaseNotFound);
}

#[test]
fn entries_that_write_much_go_in_several_batches() {
    let bounded = Bounded {
        batch_bytes: 3 * VALUE_BYTES,
        ..Bounded::default()
    };
    let mut whole = Fixture::new(Bounded::default());
    let mut parts = Fixture::new(bounded);
    let entry = |number: usize| {
        let put = Put {
            lease: 0,
            ..a_put(number, VALUE_BYTES)
        };
        let command = Command {
            op: Some(Op::Put(put)),
            ..Command::default()
        };
        crate::test_support::entry(number as u64 + 1, vec![command])
    };
    let entries: Vec<_> = (0..10).map(entry).collect();
    let outcomes = parts.applier.apply(&entries).unwrap();
    assert_eq!(outcomes, whole.applier.apply(&entries).unwrap());
    assert_eq!(parts.store.state_hash(), whole.store.state_hash());
    assert_eq!(whole.engine.meter.take().0, 1);
    let (batches, largest, _) = parts.engine.meter.take();
    assert!(
        batches == 4 && largest < 4 * VALUE_BYTES,
        "{batches} batches, {largest} bytes"
    );
}
