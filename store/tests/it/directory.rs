//! The data directory: opened again, copied, replaced, refused.

use std::{fs, path::Path, sync::Arc};

use barque_proto::command::command::Op;
use barque_store::{
    Entry, EntryBody, LogPosition, Revision, Store, StoreError,
    kv::{Batch, Engine, EngineSizes, OnProgress, View, rocks},
};
use bytes::Bytes;

use crate::{files::names, support::*};

fn membership(index: u64, body: &'static str) -> Entry {
    let position = LogPosition { term: 1, index };
    Entry {
        position,
        body: EntryBody::Membership(Bytes::from_static(body.as_bytes())),
    }
}

#[test]
fn what_was_flushed_is_there_again() {
    let dir = tempfile::tempdir().unwrap();
    let (store, mut applier) = Store::open(config(dir.path())).unwrap();
    applier
        .apply(&[membership(1, "m1"), entry(1, 2, vec![put("k", "1")])])
        .unwrap();
    assert_eq!(applier.flushed(), None);
    assert_eq!(applier.flush().unwrap(), Some(LogPosition { term: 1, index: 2 }));
    let hash = store.state_hash();
    drop((store, applier));
    let (store, applier) = Store::open(config(dir.path())).unwrap();
    assert_eq!(applier.applied(), Some(LogPosition { term: 1, index: 2 }));
    assert_eq!(applier.flushed(), applier.applied());
    assert_eq!(
        applier.membership(),
        Some((LogPosition { term: 1, index: 1 }, Bytes::from_static(b"m1")))
    );
    assert_eq!(store.state_hash(), hash);
    assert_eq!(store.head().revision, Revision(2));
    assert_eq!(store.sizes().live_keys, 1);
}

#[test]
fn a_second_process_is_told_so() {
    let dir = tempfile::tempdir().unwrap();
    let _first = Store::open(config(dir.path())).unwrap();
    let error = Store::open(config(dir.path())).map(|_| ()).unwrap_err();
    assert!(
        matches!(&error, StoreError::DataDir(text) if text.ends_with("is in use by another process")),
        "{error}"
    );
}

#[test]
fn a_directory_that_is_no_store_is_one_clear_line() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("file");
    fs::write(&file, "x").unwrap();
    let error = Store::open(config(&file)).map(|_| ()).unwrap_err().to_string();
    assert!(
        error.starts_with("data directory: cannot create") && !error.contains('\n'),
        "{error}"
    );
    let dir = tempfile::tempdir().unwrap();
    drop(Store::open(config(dir.path())).unwrap());
    fs::remove_file(dir.path().join("state-00000001/CURRENT")).unwrap();
    let error = Store::open(config(dir.path()))
        .map(|_| ())
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("state-00000001/CURRENT is missing") && !error.contains('\n'),
        "{error}"
    );
}

/// Of what RocksDB had not synced a power cut may leave any sectors: here a record with a hole.
#[test]
fn a_manifest_that_a_power_cut_tore_is_mended() {
    let dir = tempfile::tempdir().unwrap();
    let (store, mut applier) = Store::open(config(dir.path())).unwrap();
    applier.apply(&[entry(1, 1, vec![put("k", "1")])]).unwrap();
    applier.flush().unwrap();
    let hash = store.state_hash();
    drop((store, applier));
    let state = dir.path().join("state-00000001");
    let manifest = fs::read_to_string(state.join("CURRENT")).unwrap();
    let manifest = state.join(manifest.trim_end());
    let whole = fs::read(&manifest).unwrap();
    let mut torn = whole.clone();
    torn.extend([1, 2, 3, 4, 60, 0, 1]);
    torn.extend([0; 60]);
    fs::write(&manifest, &torn).unwrap();
    let (store, applier) = Store::open(config(dir.path())).unwrap();
    assert_eq!(store.state_hash(), hash);
    drop((store, applier));

    // Damage is told, and left as it is.
    let manifest = fs::read_to_string(state.join("CURRENT")).unwrap();
    let manifest = state.join(manifest.trim_end());
    let mut damaged = fs::read(&manifest).unwrap();
    damaged[0] ^= 1;
    fs::write(&manifest, &damaged).unwrap();
    let error = Store::open(config(dir.path())).map(|_| ()).unwrap_err();
    assert!(
        error.to_string().contains("the record at 0 is unreadable"),
        "{error}"
    );
    assert_eq!(fs::read(&manifest).unwrap(), damaged);
}

/// The pointer is 15 bytes, the state may be all that there is of the data.
#[test]
fn a_state_without_a_pointer_is_neither_removed_nor_passed_over() {
    let dir = tempfile::tempdir().unwrap();
    let (store, mut applier) = Store::open(config(dir.path())).unwrap();
    applier.apply(&[entry(1, 1, vec![put("k", "1")])]).unwrap();
    applier.flush().unwrap();
    let hash = store.state_hash();
    drop((store, applier));
    fs::remove_file(dir.path().join("CURRENT_STATE")).unwrap();
    let state = dir.path().join("state-00000001");
    let before = (names(dir.path()), names(&state));
    let error = Store::open(config(dir.path())).map(|_| ()).unwrap_err();
    assert_eq!(
        error.to_string(),
        format!(
            "data directory: {0}/CURRENT_STATE is missing; found: state-00000001; nothing was changed: if it is the \
             state of this member, `echo state-00000001 > {0}/CURRENT_STATE` makes it current again",
            dir.path().display()
        )
    );
    assert_eq!((names(dir.path()), names(&state)), before);
    fs::write(dir.path().join("CURRENT_STATE"), "state-00000001\n").unwrap();
    let (store, _) = Store::open(config(dir.path())).unwrap();
    assert_eq!(store.state_hash(), hash);
}

/// Killed before it had a pointer; or its database, before that had a name for its manifest.
#[test]
fn a_first_start_that_was_killed_starts_again_in_the_same_place() {
    for has_manifest in [true, false] {
        let dir = tempfile::tempdir().unwrap();
        drop(rocks::open(dir.path(), 0).unwrap());
        fs::remove_file(dir.path().join("CURRENT_STATE")).unwrap();
        let state = dir.path().join("state-00000001");
        let later = |name: &&String| {
            ["CURRENT", "OPTIONS"].iter().any(|start| name.starts_with(start)) || name.ends_with(".log")
        };
        for name in names(&state).iter().filter(later).filter(|_| !has_manifest) {
            fs::remove_file(state.join(name)).unwrap();
        }
        let (store, mut applier) = Store::open(config(dir.path())).unwrap();
        applier.apply(&[entry(1, 1, vec![put("k", "1")])]).unwrap();
        applier.flush().unwrap();
        drop((store, applier));
        assert_eq!(
            names(dir.path()),
            ["CURRENT_STATE", "state-00000001"],
            "{has_manifest}"
        );
        let (store, _) = Store::open(config(dir.path())).unwrap();
        assert_eq!(store.head().revision, Revision(2), "{has_manifest}");
    }
}

fn copy_of_another(ops: Vec<(u64, barque_proto::command::command::Op)>, dir: &std::path::Path) -> Fixture {
    let mut other = Fixture::rocks();
    for (index, op) in ops {
        other.applier.apply(&[entry(1, index, vec![op])]).unwrap();
    }
    other.applier.checkpoint(dir).unwrap();
    other
}

#[test]
fn a_snapshot_replaces_everything_and_old_readers_finish() {
    let dir = tempfile::tempdir().unwrap();
    let (store, mut applier) = Store::open(config(&dir.path().join("state"))).unwrap();
    applier
        .apply(&[entry(1, 1, vec![put("k", "old"), put("gone", "old")])])
        .unwrap();
    applier.flush().unwrap();
    let before = store.reader();
    let copy = dir.path().join("copy");
    let ops = vec![
        (1, put("k", "old")),
        (2, put("k", "new")),
        (3, put("more", "1")),
        (9, grant(4, 60)),
    ];
    let other = copy_of_another(ops, &copy);
    applier.install(&copy).unwrap();
    assert!(!copy.exists(), "the copy is taken over");
    assert_eq!(applier.applied(), Some(LogPosition { term: 1, index: 9 }));
    assert_eq!(applier.flushed(), applier.applied());
    let head = store.head();
    assert_eq!((head.revision, head.epoch), (Revision(4), 1));
    assert_eq!(store.state_hash(), other.store.state_hash());
    assert_eq!((store.sizes().live_keys, store.leases().unwrap().len()), (2, 1));
    // The old view still reads from the old files, which go with it.
    assert_eq!(
        before
            .get(b"gone", Revision(0))
            .unwrap()
            .map(|kv| text(&kv.value)),
        Some("old".into())
    );
    assert!(dir.path().join("state/state-00000001").exists());
    drop(before);
    assert!(!dir.path().join("state/state-00000001").exists());
    applier.apply(&[entry(1, 10, vec![put("after", "1")])]).unwrap();
    applier.flush().unwrap();
    drop((store, applier));
    let (store, _) = Store::open(config(&dir.path().join("state"))).unwrap();
    assert_eq!(store.head().revision, Revision(5));
}

#[test]
fn a_broken_snapshot_changes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let (store, mut applier) = Store::open(config(&dir.path().join("state"))).unwrap();
    applier.apply(&[entry(1, 1, vec![put("k", "kept")])]).unwrap();
    let copy = dir.path().join("copy");
    copy_of_another(vec![(1, put("k", "new"))], &copy);
    for file in fs::read_dir(&copy).unwrap() {
        let path = file.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "sst") {
            fs::remove_file(path).unwrap();
        }
    }
    assert!(applier.install(&copy).is_err());
    let empty = dir.path().join("empty");
    fs::create_dir(&empty).unwrap();
    assert!(applier.install(&empty).is_err());
    assert_eq!(store.head().epoch, 0);
    applier.apply(&[entry(1, 2, vec![put("k2", "1")])]).unwrap();
    applier.flush().unwrap();
    drop((store, applier));
    let (store, applier) = Store::open(config(&dir.path().join("state"))).unwrap();
    assert_eq!(store.head().revision, Revision(3));
    assert_eq!(applier.applied().unwrap().index, 2);
    assert!(!dir.path().join("state/state-00000002").exists());
}

/// Rows that a deletion has ended and nobody has moved yet, in a copy, in a directory that is opened again.
#[test]
fn a_copy_with_ended_rows_reads_as_the_original_and_goes_on() {
    let copy = tempfile::tempdir().unwrap();
    let mut original = Fixture::rocks();
    original.applier.move_at_once(0);
    for key in ["a", "b", "c", "d"] {
        original.put(key, "1");
    }
    original.apply(Op::DeleteRange(a_delete("b", "d"))).unwrap();
    assert!(original.applier.has_ended_rows());
    original.applier.checkpoint(&copy.path().join("copy")).unwrap();
    let check = |fixture: &Fixture| {
        assert_eq!(fixture.list(all()), ["a=1", "d=1"]);
        assert_eq!(fixture.get("b", 5), Some("1".into()));
        assert_eq!(fixture.get("b", 6), None);
        assert_eq!(fixture.history(6), ["6:del b=<1", "6:del c=<1"]);
        assert_eq!(fixture.store.sizes().live_keys, 2);
        assert_eq!(fixture.store.state_hash(), original.store.state_hash());
        let hash_kv = |fixture: &Fixture, at| fixture.store.reader().hash_kv(Revision(at)).unwrap();
        for revision in 2..=6 {
            assert_eq!(hash_kv(fixture, revision), hash_kv(&original, revision));
        }
    };
    let mut other = Fixture::rocks();
    other.applier.install(&copy.path().join("copy")).unwrap();
    check(&other);
    assert!(
        other.applier.has_ended_rows(),
        "they are moved by whoever has them"
    );
    while other.applier.move_some(1).unwrap() {}
    check(&other);
    other.index = 100;
    other.put("b", "2");
    assert_eq!(other.list(all()), ["a=1", "b=2", "d=1"]);
}

/// A database from before there was the family `ended`.
#[test]
fn a_database_without_ended_rows_is_given_the_family_and_no_other_one() {
    let lose = |dir: &Path, family: &str| {
        let families = rocksdb::DB::list_cf(&rocksdb::Options::default(), dir).unwrap();
        let mut db = rocksdb::DB::open_cf(&rocksdb::Options::default(), dir, families).unwrap();
        db.drop_cf(family).unwrap();
    };
    let dir = tempfile::tempdir().unwrap();
    let state = dir.path().join("state-00000001");
    let (store, mut applier) = Store::open(config(dir.path())).unwrap();
    applier.apply(&[entry(1, 1, vec![put("k", "1")])]).unwrap();
    applier.flush().unwrap();
    let hash = store.state_hash();
    drop((store, applier));
    lose(&state, "ended");
    let (store, mut applier) = Store::open(config(dir.path())).unwrap();
    assert_eq!(store.state_hash(), hash);
    applier.move_at_once(0);
    applier.apply(&[entry(1, 2, vec![delete("k")])]).unwrap();
    applier.flush().unwrap();
    drop((store, applier));
    let (store, applier) = Store::open(config(dir.path())).unwrap();
    assert!(applier.has_ended_rows() && store.sizes().live_keys == 0);
    drop((store, applier));
    lose(&state, "leasekey");
    let error = Store::open(config(dir.path()))
        .map(|_| ())
        .unwrap_err()
        .to_string();
    assert!(error.contains("leasekey"), "{error}");
}

/// Moves the pointer, and cannot say that it is durable.
struct PointerNotSynced(Arc<dyn Engine>);

impl Engine for PointerNotSynced {
    fn write(&self, batch: Batch) -> Result<(), StoreError> {
        self.0.write(batch)
    }

    fn view(&self) -> Arc<dyn View> {
        self.0.view()
    }

    fn flush(&self) -> Result<(), StoreError> {
        self.0.flush()
    }

    fn defragment(&self) -> Result<(), StoreError> {
        self.0.defragment()
    }

    fn checkpoint(&self, dir: &Path) -> Result<(), StoreError> {
        self.0.checkpoint(dir)
    }

    fn open_checkpoint(&self, dir: &Path) -> Result<Arc<dyn View>, StoreError> {
        self.0.open_checkpoint(dir)
    }

    fn verify(&self, on_progress: OnProgress<'_>) -> Result<(), StoreError> {
        self.0.verify(on_progress)
    }

    fn verify_copy(&self, dir: &Path, on_progress: OnProgress<'_>) -> Result<(), StoreError> {
        self.0.verify_copy(dir, on_progress)
    }

    fn stage(&self, dir: &Path) -> Result<Arc<dyn Engine>, StoreError> {
        Ok(Arc::new(Self(self.0.stage(dir)?)))
    }

    fn make_current(&self) -> Result<(), StoreError> {
        self.0.make_current()?;
        Err(std::io::Error::other("the disk failed").into())
    }

    fn clear_leftovers(&self) -> Result<(), StoreError> {
        self.0.clear_leftovers()
    }

    fn retire(&self) {
        self.0.retire();
    }

    fn sizes(&self) -> EngineSizes {
        self.0.sizes()
    }
}

#[test]
fn a_pointer_that_could_not_be_synced_names_a_state_that_is_there() {
    let dir = tempfile::tempdir().unwrap();
    let state = dir.path().join("state");
    let engine = PointerNotSynced(Arc::new(rocks::open(&state, 8 << 20).unwrap()));
    let (store, mut applier) = Store::open_with(Arc::new(engine), RING_BYTES).unwrap();
    applier.apply(&[entry(1, 1, vec![put("k", "old")])]).unwrap();
    applier.flush().unwrap();
    let copy = dir.path().join("copy");
    let other = copy_of_another(vec![(1, put("k", "old")), (2, put("k", "new"))], &copy);
    let error = applier.install(&copy).unwrap_err().to_string();
    assert!(error.contains("the disk failed"), "{error}");
    assert_eq!(store.head().epoch, 0);
    drop((store, applier));
    // The power was not cut, so the pointer is the new one; had it been cut, it could be either.
    for name in ["state-00000001", "state-00000002"] {
        assert!(state.join(name).is_dir(), "{name}");
    }
    let (store, mut applier) = Store::open(config(&state)).unwrap();
    assert_eq!(applier.applied(), Some(LogPosition { term: 1, index: 2 }));
    assert_eq!(store.state_hash(), other.store.state_hash());
    assert!(state.join("state-00000001").exists());
    applier.clear_leftovers().unwrap();
    assert!(!state.join("state-00000001").exists());
}

#[test]
fn an_interrupted_install_is_forgotten() {
    let dir = tempfile::tempdir().unwrap();
    let state = dir.path().join("state");
    let (store, mut applier) = Store::open(config(&state)).unwrap();
    applier.apply(&[entry(1, 1, vec![put("k", "kept")])]).unwrap();
    applier.flush().unwrap();
    drop((store, applier));
    // As after a crash between the move and the pointer's change.
    copy_of_another(
        vec![(1, put("k", "new")), (2, put("k", "newer"))],
        &state.join("state-00000002"),
    );
    fs::write(state.join("CURRENT_STATE.new"), "state-00000002\n").unwrap();
    let (store, mut applier) = Store::open(config(&state)).unwrap();
    assert_eq!(store.head().revision, Revision(2));
    assert!(state.join("state-00000002").exists());
    applier.clear_leftovers().unwrap();
    assert_eq!(names(&state), ["CURRENT_STATE", "state-00000001"]);
}

#[test]
fn a_lost_flush_loses_whole_batches_of_all_families() {
    let dir = tempfile::tempdir().unwrap();
    let (store, mut applier) = Store::open(config(&dir.path().join("state"))).unwrap();
    applier
        .apply(&[entry(1, 1, vec![put("k", "1"), put("k", "2")])])
        .unwrap();
    applier.flush().unwrap();
    applier
        .apply(&[entry(1, 2, vec![put("k", "3"), grant(1, 5)])])
        .unwrap();
    // What a power cut leaves: the files as they were synced, which a checkpoint's links are not part of.
    let cut = dir.path().join("cut/state-00000001");
    fs::create_dir_all(&cut).unwrap();
    for file in fs::read_dir(dir.path().join("state/state-00000001")).unwrap() {
        let file = file.unwrap();
        fs::copy(file.path(), cut.join(file.file_name())).unwrap();
    }
    fs::write(dir.path().join("cut/CURRENT_STATE"), "state-00000001\n").unwrap();
    let (found, found_applier) = Store::open(config(&dir.path().join("cut"))).unwrap();
    assert_eq!(found_applier.applied(), Some(LogPosition { term: 1, index: 1 }));
    assert_eq!(found.head().revision, Revision(3));
    assert!(found.leases().unwrap().is_empty());
    let everything = barque_store::KeyRange {
        start: Bytes::new(),
        end: None,
    };
    let reader = found.reader();
    let (history, _) = reader.history(&everything, Revision(1), usize::MAX).unwrap();
    assert_eq!(
        history
            .iter()
            .flat_map(|changes| tell(&reader, changes))
            .collect::<Vec<_>>(),
        ["2:put k=1", "3:put k=2<1"]
    );
    drop(store);
}
