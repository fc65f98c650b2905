//! Bit rot in files that nobody reads is found by who looks for it, and never taken over from another member.

use std::{fs, path::Path};

use barque_store::{Revision, Store, StoreError};

use crate::{
    files::{ROUNDS, filled, filled_for, flip, len, names, read_rows, tables},
    support::*,
};

fn state(dir: &Path) -> std::path::PathBuf {
    dir.join("state-00000001")
}

/// Corrupt, in one line that names the file; of the summary at a file's end RocksDB does not say which file it is.
fn names_the_file(found: Result<(), StoreError>, file: &Path) {
    let error = found.unwrap_err();
    let text = error.to_string();
    assert!(matches!(error, StoreError::Corrupt { .. }), "{text}");
    let dir = file.parent().unwrap().to_str().unwrap();
    let name = file.file_name().unwrap().to_str().unwrap();
    let is_named = text.contains(name) || text.contains("one of its table files is damaged");
    assert!(is_named && text.contains(dir) && !text.contains('\n'), "{text}");
}

#[test]
fn a_flipped_bit_in_any_file_is_found_while_the_store_runs() {
    let dir = tempfile::tempdir().unwrap();
    // No compactions while the reader lives, which would remove files.
    let (store, mut applier, _reader) = filled_for(ROUNDS, dir.path());
    let in_use = tables(&state(dir.path()));
    assert!(in_use.len() >= 7, "{in_use:?}");
    // All of it has been read, and is in memory.
    store.reader().range(&all()).unwrap();
    store.reader().hash_kv(Revision(0)).unwrap();
    applier
        .apply(&[entry(1, 1000, vec![put("unflushed", "1")])])
        .unwrap();
    let before = names(dir.path());
    store.verify_blocks(&mut |_| true).unwrap();
    for table in in_use {
        flip(&table, len(&table) / 3);
        names_the_file(store.verify_blocks(&mut |_| true), &table);
        flip(&table, len(&table) / 3);
    }
    store.verify_blocks(&mut |_| true).unwrap();
    assert_eq!(names(dir.path()), before);
    assert_eq!(applier.flushed().unwrap().index, 121, "it flushes nothing");
}

#[test]
fn a_file_that_is_missing_or_cut_is_damage_too() {
    let dir = tempfile::tempdir().unwrap();
    let (store, mut applier) = filled(dir.path());
    let copy = dir.path().join("copy");
    applier.checkpoint(&copy).unwrap();
    store.verify_dir(&copy, &mut |_| true).unwrap();
    let table = tables(&copy).pop().unwrap();
    let bytes = fs::read(&table).unwrap();
    fs::remove_file(&table).unwrap();
    names_the_file(store.verify_dir(&copy, &mut |_| true), &table);
    for left in [0, bytes.len() / 2, bytes.len() - 1] {
        fs::write(&table, &bytes[..left]).unwrap();
        names_the_file(store.verify_dir(&copy, &mut |_| true), &table);
    }
    fs::write(&table, &bytes).unwrap();
    store.verify_dir(&copy, &mut |_| true).unwrap();
}

/// RocksDB takes a damaged length for the end of a manifest, and opens what is left without a word.
#[test]
fn a_copy_with_a_damaged_manifest_is_damaged() {
    const FLIPS: u64 = 100;
    let dir = tempfile::tempdir().unwrap();
    let (store, mut applier) = filled(dir.path());
    let copy = dir.path().join("copy");
    applier.checkpoint(&copy).unwrap();
    let manifest = copy.join(fs::read_to_string(copy.join("CURRENT")).unwrap().trim_end());
    for number in 0..FLIPS {
        let at = (len(&manifest) - 1) * number / (FLIPS - 1);
        flip(&manifest, at);
        names_the_file(store.verify_dir(&copy, &mut |_| true), &manifest);
        flip(&manifest, at);
    }
    store.verify_dir(&copy, &mut |_| true).unwrap();
}

/// Of every table file many bytes: either the flip is found, or no row depends on the byte.
#[test]
fn a_flip_that_is_not_found_changes_no_row() {
    const FLIPS_PER_FILE: u64 = 40;
    let dir = tempfile::tempdir().unwrap();
    let (store, mut applier) = filled(dir.path());
    let copy = dir.path().join("copy");
    applier.checkpoint(&copy).unwrap();
    let engine = barque_store::kv::rocks::open(&dir.path().join("other"), 0).unwrap();
    let rows = || {
        use barque_store::kv::Engine;
        read_rows(&*engine.open_checkpoint(&copy).unwrap()).unwrap()
    };
    let whole = rows();
    let (mut found, mut harmless) = (0, Vec::new());
    for table in tables(&copy) {
        for flip_number in 0..FLIPS_PER_FILE {
            let at = (len(&table) - 1) * flip_number / (FLIPS_PER_FILE - 1);
            flip(&table, at);
            match store.verify_dir(&copy, &mut |_| true) {
                Ok(()) => {
                    assert_eq!(rows(), whole, "{table:?} at {at}");
                    harmless.push((table.file_name().unwrap().to_owned(), at, len(&table)));
                }
                error => {
                    names_the_file(error, &table);
                    found += 1;
                }
            }
            flip(&table, at);
        }
    }
    assert!(harmless.len() * 4 < found, "{found} found, not {harmless:?}");
}

#[test]
fn who_looks_sets_the_pace_and_may_stop() {
    let dir = tempfile::tempdir().unwrap();
    let (store, mut applier) = Store::open(config(dir.path())).unwrap();
    for index in 1..=6 {
        let value = format!("{index}").repeat(1 << 20);
        applier
            .apply(&[entry(1, index, vec![put(&format!("k{index}"), &value)])])
            .unwrap();
    }
    applier.flush().unwrap();
    let mut pieces = Vec::new();
    store
        .verify_blocks(&mut |bytes| {
            pieces.push(bytes);
            true
        })
        .unwrap();
    let total: u64 = pieces.iter().sum();
    assert!(total > 6 << 20 && total < (6 << 20) + 4096, "{pieces:?}");
    assert!(pieces.iter().all(|piece| *piece < 2 << 20), "{pieces:?}");
    let mut calls = 0;
    store
        .verify_blocks(&mut |_| {
            calls += 1;
            calls < 3
        })
        .unwrap();
    assert_eq!(calls, 3);
    assert_eq!(names(dir.path()), ["CURRENT_STATE", "state-00000001"]);
}

#[test]
fn a_store_in_memory_is_read_as_well() {
    let mut fixture = Fixture::memory();
    fixture.put("k", "v");
    let mut total = 0;
    let mut count = |bytes| {
        total += bytes;
        true
    };
    fixture.store.verify_blocks(&mut count).unwrap();
    assert!(total > 0);
}

#[test]
fn a_damaged_snapshot_is_refused_and_the_old_state_stays() {
    let dir = tempfile::tempdir().unwrap();
    let (_other, mut sender) = filled(&dir.path().join("other"));
    let home = dir.path().join("state");
    let (store, mut applier) = Store::open(config(&home)).unwrap();
    applier.apply(&[entry(1, 1, vec![put("k", "kept")])]).unwrap();
    let before = names(&home);
    for number in 0.. {
        let copy = dir.path().join(format!("copy-{number}"));
        sender.checkpoint(&copy).unwrap();
        let Some(table) = tables(&copy).into_iter().nth(number) else {
            break;
        };
        // Not in place: the sender's file is the same one.
        let mut bytes = fs::read(&table).unwrap();
        let at = bytes.len() / 3;
        bytes[at] ^= 0x10;
        fs::remove_file(&table).unwrap();
        fs::write(&table, bytes).unwrap();
        names_the_file(applier.install(&copy), &table);
        assert_eq!(store.head().epoch, 0);
        assert_eq!(names(&home), before);
    }
    applier.apply(&[entry(1, 2, vec![put("k2", "1")])]).unwrap();
    let copy = dir.path().join("whole");
    sender.checkpoint(&copy).unwrap();
    applier.install(&copy).unwrap();
    assert_eq!((store.head().epoch, applier.applied().unwrap().index), (1, 121));
}
