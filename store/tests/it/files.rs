//! A store with some of everything on its disk, and ways to damage its files.

use std::{
    collections::BTreeMap,
    fs::{self, OpenOptions},
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
};

use barque_proto::command::{IndexTerm, Put, command::Op};
use barque_store::{
    Applier, Reader, Store, StoreError,
    kv::{Bounds, Family, View},
};
use bytes::Bytes;

use crate::support::*;

/// Values that do not compress, so that files have many blocks.
fn noise(seed: u64, len: usize) -> Bytes {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state as u8
    };
    (0..len).map(|_| next()).collect()
}

fn a_row(number: u64) -> Op {
    let term = IndexTerm {
        field: bytes("spec.nodeName"),
        value: bytes(&format!("node-{}", number % 7)),
    };
    Op::Put(Put {
        key: bytes(&format!("/registry/pods/{:03}", number % 60)),
        value: noise(number, 1500),
        lease: 1 + (number % 3) as i64,
        terms: vec![term],
        ..Put::default()
    })
}

/// Flushes of [`filled`].
pub const ROUNDS: u64 = 2;

/// Rows in every family, in more than one file of each, the last of them flushed.
pub fn filled(dir: &Path) -> (Store, Applier) {
    let (store, applier, _) = filled_for(ROUNDS, dir);
    (store, applier)
}

/// While the reader lives RocksDB compacts nothing by itself: as many files are too few, and older rows may be read.
pub fn filled_for(rounds: u64, dir: &Path) -> (Store, Applier, Reader) {
    let (store, mut applier) = Store::open(config(dir)).unwrap();
    let reader = store.reader();
    let leases = (1..=3).map(|id| grant(id, 60)).collect();
    applier.apply(&[entry(1, 1, leases)]).unwrap();
    for round in 0..rounds {
        for number in round * 60..(round + 1) * 60 {
            applier
                .apply(&[entry(1, 2 + number, vec![a_row(number)])])
                .unwrap();
        }
        applier.flush().unwrap();
    }
    (store, applier, reader)
}

/// Every row of every family.
pub type Rows = BTreeMap<(Family, Vec<u8>), Vec<u8>>;

pub fn read_rows(view: &dyn View) -> Result<Rows, StoreError> {
    let mut all = Rows::new();
    for family in Family::ALL {
        let mut rows = view.cursor(family, Bounds::ALL)?;
        while let Some((key, value)) = rows.row() {
            all.insert((family, key.to_vec()), value.to_vec());
            rows.advance()?;
        }
    }
    Ok(all)
}

/// The regular files of a directory, by name.
pub fn names(dir: &Path) -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(dir)
        .unwrap()
        .map(|file| file.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

pub fn tables(dir: &Path) -> Vec<PathBuf> {
    let names = names(dir).into_iter().filter(|name| name.ends_with(".sst"));
    names.map(|name| dir.join(name)).collect()
}

pub fn copy_tree(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for name in names(from) {
        let (from, to) = (from.join(&name), to.join(&name));
        match from.is_dir() {
            true => copy_tree(&from, &to),
            false => drop(fs::copy(&from, &to).unwrap()),
        }
    }
}

/// Turns one bit over where the file lies: every name of it sees that. Again, and it is whole.
pub fn flip(file: &Path, at: u64) {
    let file = OpenOptions::new().read(true).write(true).open(file).unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, at).unwrap();
    file.write_all_at(&[byte[0] ^ 0x10], at).unwrap();
}

pub fn len(file: &Path) -> u64 {
    fs::metadata(file).unwrap().len()
}
