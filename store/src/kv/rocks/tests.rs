//! The engine on real files: what is flushed together, verified, and kept.

use std::fs;

use bytes::Bytes;
use rocksdb::WaitForCompactOptions;

use super::*;
use crate::kv::Batch;

impl RocksEngine {
    /// What it has written stays as it is.
    pub(in crate::kv) fn without_compactions(&self) {
        for family in Family::ALL {
            let family = self.database.family(family);
            let options = [("disable_auto_compactions", "true")];
            self.database.db.set_options_cf(family, &options).unwrap();
        }
    }
}

/// One family's buffer runs over, and RocksDB flushes by itself. The files of that moment are what a crash leaves: all
/// families must be at one position. (Without atomic flush the others' rows are not there yet.)
#[test]
fn a_flush_that_one_family_causes_takes_all_others_along() {
    const VALUE_BYTES: usize = 1 << 20;
    let dir = tempfile::tempdir().unwrap();
    let engine = open(&dir.path().join("a"), 0).unwrap();
    let value = Bytes::from(vec![7; VALUE_BYTES]);
    for number in 1..=40u64 {
        let mut batch = Batch::default();
        let number = Bytes::copy_from_slice(&number.to_be_bytes());
        // Of the small buffers, 16 MiB each, this one alone runs over.
        batch.put(Family::Lease, number.clone(), value.clone());
        for family in Family::ALL.into_iter().filter(|family| *family != Family::Lease) {
            batch.put(family, Bytes::from_static(b"position"), number.clone());
        }
        engine.write(batch).unwrap();
    }
    engine
        .database
        .db
        .wait_for_compact(&WaitForCompactOptions::default())
        .unwrap();
    let (from, to) = (dir.path().join("a"), dir.path().join("b"));
    fs::create_dir_all(to.join("state-00000001")).unwrap();
    for name in ["CURRENT_STATE", "state-00000001"] {
        match from.join(name).is_dir() {
            false => drop(fs::copy(from.join(name), to.join(name)).unwrap()),
            true => {
                for entry in fs::read_dir(from.join(name)).unwrap() {
                    let path = entry.unwrap().path();
                    let copy = to.join(name).join(path.file_name().unwrap());
                    fs::copy(&path, copy).unwrap();
                }
            }
        }
    }
    let found = open(&to, 0).unwrap().view();
    let last_lease = found.floor(Family::Lease, &[], &[0xff; 8]).unwrap();
    let position = last_lease.expect("it was flushed").0;
    assert!(
        position < Bytes::copy_from_slice(&40u64.to_be_bytes()),
        "not all was flushed"
    );
    for family in Family::ALL.into_iter().filter(|family| *family != Family::Lease) {
        let at = found.get(family, b"position").unwrap();
        assert_eq!(at.as_ref(), Some(&position), "{family:?}");
    }
}

/// Reading a copy leaves no trace in it.
#[test]
fn a_copy_that_is_read_is_not_changed() {
    let dir = tempfile::tempdir().unwrap();
    let engine = open(&dir.path().join("a"), 0).unwrap();
    let mut batch = Batch::default();
    batch.put(Family::Meta, Bytes::from_static(b"k"), Bytes::from_static(b"v"));
    engine.write(batch).unwrap();
    let copy = dir.path().join("copy");
    engine.checkpoint(&copy).unwrap();
    let names = || {
        let entries = fs::read_dir(&copy).unwrap();
        let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name()).collect();
        names.sort();
        names
    };
    let before = names();
    drop(engine.open_checkpoint(&copy).unwrap());
    engine.verify_copy(&copy, &mut |_| true).unwrap();
    assert_eq!(names(), before);
}
