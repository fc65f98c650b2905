//! The walk over all rows: what it hashes, and the faults that it finds.

use std::sync::Arc;

use barque_proto::command::{IndexTerm, Put, command::Op};
use barque_store::{
    Applier, Reader, Revision, Scrub, Scrubbed, Store, StoreError,
    kv::{Batch, Bounds, Engine, Family, memory::MemoryEngine},
};
use bytes::Bytes;

use crate::support::*;

/// A store of which the rows can be changed behind its back.
struct Bare {
    engine: Arc<MemoryEngine>,
    store: Store,
    applier: Applier,
}

fn labelled(key: &str, value: &str, lease: i64) -> Op {
    Op::Put(Put {
        key: key.to_owned().into(),
        value: value.to_owned().into(),
        lease,
        terms: vec![IndexTerm {
            field: "f".into(),
            value: value.to_owned().into(),
        }],
        ..Put::default()
    })
}

fn filled() -> Bare {
    let engine = Arc::new(MemoryEngine::new());
    let (store, mut applier) = Store::open_with(Arc::clone(&engine) as Arc<dyn Engine>, RING_BYTES).unwrap();
    let ops = [
        grant(7, 60),
        labelled("a", "1", 0),
        labelled("b", "1", 7),
        labelled("a", "2", 7),
        delete("b"),
        labelled("c", "3", 0),
    ];
    for (op, index) in ops.into_iter().zip(1..) {
        applier.apply(&[entry(1, index, vec![op])]).unwrap();
    }
    Bare {
        engine,
        store,
        applier,
    }
}

fn scrub(reader: Reader, revision: Revision) -> Result<Scrubbed, StoreError> {
    let mut scrub = Scrub::new(reader, revision).unwrap();
    while scrub.step()? {}
    assert!(scrub.bytes() > 0);
    scrub.finish()
}

impl Bare {
    /// What the next view holds, changed by `change` alone.
    fn scrub_after(mut self, change: impl FnOnce(&dyn Engine, &mut Batch)) -> Result<Scrubbed, StoreError> {
        let mut batch = Batch::default();
        change(&*self.engine, &mut batch);
        self.engine.write(batch).unwrap();
        self.applier.apply(&[entry(1, 7, vec![])]).unwrap();
        let scrubbed = scrub(self.store.reader(), Revision(6));
        assert_eq!(self.store.damage().is_some(), scrubbed.is_err());
        scrubbed
    }
}

fn first_row(engine: &dyn Engine, family: Family) -> (Bytes, Bytes) {
    let view = engine.view();
    let cursor = view.cursor(family, Bounds::ALL).unwrap();
    let (key, row) = cursor.row().unwrap();
    (Bytes::copy_from_slice(key), Bytes::copy_from_slice(row))
}

#[test]
fn whole_rows_hash_alike_wherever_they_are() {
    on_each_engine(|fixture| {
        let bare = filled();
        let ops = [
            grant(7, 60),
            labelled("a", "1", 0),
            labelled("b", "1", 7),
            labelled("a", "2", 7),
            delete("b"),
            labelled("c", "3", 0),
        ];
        for op in ops {
            fixture.apply(op).unwrap();
        }
        let expected = scrub(bare.store.reader(), Revision(5)).unwrap();
        let scrubbed = scrub(fixture.store.reader(), Revision(5)).unwrap();
        assert_eq!(scrubbed, expected);
        assert!(!scrubbed.differs(&expected));
        let (hash_kv, _) = fixture.store.reader().hash_kv(Revision(5)).unwrap();
        assert_eq!(scrubbed.hash_kv, hash_kv);
    });
}

#[test]
fn many_rows_are_walked_in_steps() {
    let mut fixture = Fixture::rocks();
    let value = "x".repeat(100_000);
    for turn in 0..100 {
        fixture.put(&format!("k/{}", turn % 40), &value);
    }
    let mut walked = Scrub::new(fixture.store.reader(), Revision(101)).unwrap();
    let mut steps = 0;
    while walked.step().unwrap() {
        steps += 1;
    }
    assert!(steps > 8, "{steps}");
    let (hash_kv, _) = fixture.store.reader().hash_kv(Revision(101)).unwrap();
    assert_eq!(walked.finish().unwrap().hash_kv, hash_kv);
}

/// Each member moves them when it comes to it.
#[test]
fn rows_that_a_deletion_ended_hash_as_if_they_were_moved() {
    on_each_engine(|fixture| {
        fixture.applier.move_at_once(0);
        fixture.apply(grant(7, 60)).unwrap();
        for key in ["a", "b", "c", "d"] {
            fixture.apply(labelled(key, "1", 7)).unwrap();
        }
        fixture.apply(Op::DeleteRange(a_delete("b", "d"))).unwrap();
        assert!(fixture.applier.has_ended_rows());
        let before = scrub(fixture.store.reader(), Revision(6)).unwrap();
        while fixture.applier.move_some(1).unwrap() {}
        assert_eq!(scrub(fixture.store.reader(), Revision(6)).unwrap(), before);
    });
}

#[test]
fn a_changed_value_is_another_hash() {
    let whole = filled().scrub_after(|_, _| {}).unwrap();
    let changed = filled()
        .scrub_after(|engine, batch| {
            let (key, row) = first_row(engine, Family::Cur);
            let mut row = row.to_vec();
            *row.last_mut().unwrap() ^= 1;
            batch.put(Family::Cur, key, row.into());
        })
        .unwrap();
    assert!(changed.differs(&whole) && changed.hash_kv != whole.hash_kv && changed.rows != whole.rows);
    let elsewhere = Scrubbed {
        revision: Revision(4),
        applied: 3,
        ..whole
    };
    assert!(!changed.differs(&elsewhere), "of another point");
}

#[test]
fn rows_that_records_need_or_do_not_need_are_faults() {
    let missing = |family| {
        let scrubbed = filled().scrub_after(|engine, batch| {
            let (key, _) = first_row(engine, family);
            batch.delete(family, key);
        });
        scrubbed.unwrap_err().to_string()
    };
    let too_many = |family| {
        let scrubbed = filled().scrub_after(|engine, batch| {
            let (key, _) = first_row(engine, family);
            batch.put(family, [&key[..], b"x"].concat().into(), Bytes::new());
        });
        scrubbed.unwrap_err().to_string()
    };
    for (text, expected) in [
        (
            missing(Family::Idx),
            "corrupt rows: 2 faults: key \"a\" is not in the index",
        ),
        (
            missing(Family::LeaseKey),
            "corrupt rows: 2 faults: key \"a\" is not attached to its lease 7",
        ),
        (
            missing(Family::Lease),
            "corrupt rows: 1 faults: key \"a\" is not attached to its lease 7",
        ),
        (
            too_many(Family::Idx),
            "corrupt rows: 1 faults: 3 rows of index where the records need 2",
        ),
        (
            too_many(Family::LeaseKey),
            "corrupt rows: 1 faults: 2 rows of leasekey where the records need 1",
        ),
    ] {
        assert!(text.starts_with(expected), "{text}");
    }
}
