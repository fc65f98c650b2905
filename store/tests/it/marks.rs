//! The state after each entry in 8 bytes: the same on members that applied the same, however they cut their batches.

use barque_store::{Applier, Entry, EntryBody, LogPosition, Mark, Store};

use crate::support::*;

/// Puts, with an entry in between that has no effect.
fn entries(values: &[&str]) -> Vec<Entry> {
    let mut entries: Vec<Entry> = values
        .iter()
        .zip(1..)
        .map(|(value, index)| entry(1, index, vec![put("k", value)]))
        .collect();
    entries.push(Entry {
        position: LogPosition {
            term: 2,
            index: entries.len() as u64 + 1,
        },
        body: EntryBody::Blank,
    });
    entries
}

fn applied(entries: &[Entry], batch: usize) -> (Store, Applier) {
    let Fixture {
        store, mut applier, ..
    } = Fixture::memory();
    for batch in entries.chunks(batch) {
        applier.apply(batch).unwrap();
    }
    (store, applier)
}

fn marks(store: &Store) -> Vec<Option<Mark>> {
    (0..8).map(|index| store.mark_at(index)).collect()
}

#[test]
fn members_that_applied_the_same_have_the_same_marks() {
    let all = entries(&["a", "b", "c", "d", "e"]);
    let (one, _one) = applied(&all, 1);
    let (other, _other) = applied(&all, 4);
    assert_eq!(marks(&one), marks(&other));
    assert_eq!(one.mark_at(0), None);
    assert_eq!(one.mark_at(7), None, "not applied yet");
    assert_eq!(one.newest_mark(), one.mark_at(6));
    // No effect, so no other state; but a mark of its own.
    assert_eq!(one.mark_at(6).unwrap().hash, one.mark_at(5).unwrap().hash);
}

#[test]
fn what_differs_once_differs_ever_after() {
    let (one, _one) = applied(&entries(&["a", "b", "c"]), 2);
    let (other, _other) = applied(&entries(&["a", "x", "c"]), 2);
    let alike: Vec<bool> = (1..=4)
        .map(|index| one.mark_at(index) == other.mark_at(index))
        .collect();
    assert_eq!(alike, [true, false, false, false]);
}

#[test]
fn an_installed_state_brings_its_own_mark() {
    let dir = tempfile::tempdir().unwrap();
    let copy = dir.path().join("copy");
    let (store, mut applier) = applied(&entries(&["a", "b", "c"]), 1);
    applier.checkpoint(&copy).unwrap();
    let (other, mut behind) = applied(&entries(&["x"]), 1);
    behind.install(&copy).unwrap();
    assert_eq!(other.newest_mark(), store.newest_mark());
    assert_eq!(other.mark_at(2), None, "of before the snapshot nothing is known");
    let next = [entry(2, 5, vec![put("k", "d")])];
    applier.apply(&next).unwrap();
    behind.apply(&next).unwrap();
    assert_eq!(other.mark_at(5), store.mark_at(5));
    assert!(other.mark_at(5).is_some());
}

#[test]
fn a_state_that_is_opened_again_goes_on_with_its_mark() {
    let dir = tempfile::tempdir().unwrap();
    let open = || Store::open(config(dir.path())).unwrap();
    let (store, mut applier) = open();
    applier.apply(&entries(&["a", "b"])).unwrap();
    applier.flush().unwrap();
    let newest = store.newest_mark();
    drop((store, applier));
    let (store, _applier) = open();
    assert_eq!(store.newest_mark(), newest);
    assert_eq!(store.mark_at(3), newest);
}
