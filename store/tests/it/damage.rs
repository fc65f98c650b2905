//! Every file of the data directory damaged in every way that is tried here, on the real engine.
//!
//! Whatever the damage: the store opens with all that its position says, or there is an error in one line that names
//! the file. It never panics, no row is missing without an error, and no file goes.

use std::{
    collections::BTreeMap,
    fmt,
    fs::{self, OpenOptions},
    path::{Path, PathBuf},
    sync::Arc,
};

use barque_store::{
    Store, StoreError,
    kv::{Engine, rocks},
};

use crate::{
    files::{ROUNDS, Rows, copy_tree, filled_for, flip, len, names, read_rows, tables},
    support::*,
};

const STATE: &str = "state-00000001";

#[derive(Debug, Clone, Copy)]
enum Damage {
    FlipFirst,
    FlipMiddle,
    FlipLast,
    Halve,
    Empty,
    Remove,
}

const DAMAGES: [Damage; 6] = [
    Damage::FlipFirst,
    Damage::FlipMiddle,
    Damage::FlipLast,
    Damage::Halve,
    Damage::Empty,
    Damage::Remove,
];

impl Damage {
    fn is_of(self, file: &Path) -> bool {
        len(file) > 0 || matches!(self, Damage::Remove)
    }

    fn does(self, file: &Path) {
        let cut = |len| {
            OpenOptions::new()
                .write(true)
                .open(file)
                .unwrap()
                .set_len(len)
                .unwrap()
        };
        match self {
            Damage::FlipFirst => flip(file, 0),
            Damage::FlipMiddle => flip(file, len(file) / 2),
            Damage::FlipLast => flip(file, len(file) - 1),
            Damage::Halve => cut(len(file) / 2),
            Damage::Empty => cut(0),
            Damage::Remove => fs::remove_file(file).unwrap(),
        }
    }
}

/// What came of it.
enum Outcome {
    /// With the rows of the last applied index.
    Opens(u64),
    /// It opens, and says of a row that it cannot be read.
    CannotRead(StoreError),
    Refused(StoreError),
}

impl fmt::Display for Outcome {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Outcome::Opens(at) => write!(to, "opens, with everything up to {at}"),
            Outcome::CannotRead(error) => write!(to, "opens; {error}"),
            Outcome::Refused(error) => write!(to, "refused: {error}"),
        }
    }
}

/// A data directory, and what its rows are after each flush.
struct Whole {
    dir: tempfile::TempDir,
    rows: BTreeMap<u64, Rows>,
}

impl Whole {
    fn new() -> Self {
        let mut rows = BTreeMap::from([(0, Rows::new())]);
        let dir = tempfile::tempdir().unwrap();
        for rounds in 1..=ROUNDS {
            let other = tempfile::tempdir().unwrap();
            let (_, applier, _) = filled_for(rounds, other.path());
            let index = applier.applied().unwrap().index;
            drop(applier);
            let engine = rocks::open(other.path(), 0).unwrap();
            rows.insert(index, read_rows(&*engine.view()).unwrap());
            drop(engine);
            fs::remove_dir_all(other.path().join("before-state-00000001")).unwrap();
            if rounds == ROUNDS {
                copy_tree(other.path(), dir.path());
            }
        }
        Whole { dir, rows }
    }

    fn files(&self) -> Vec<PathBuf> {
        let state = self.dir.path().join(STATE);
        let files = names(&state).into_iter().map(|name| Path::new(STATE).join(name));
        [PathBuf::from("CURRENT_STATE")]
            .into_iter()
            .chain(files)
            .collect()
    }

    fn try_open(&self, dir: &Path) -> Outcome {
        let engine = match rocks::open(dir, 0) {
            Ok(engine) => Arc::new(engine),
            Err(error) => return Outcome::Refused(error),
        };
        let (store, applier) = match Store::open_with(Arc::clone(&engine) as Arc<dyn Engine>, RING_BYTES) {
            Ok(opened) => opened,
            Err(error) => return Outcome::Refused(error),
        };
        let applied = applier.applied().map_or(0, |applied| applied.index);
        let verified = store.verify_blocks(&mut |_| true);
        match read_rows(&*engine.view()) {
            Ok(rows) => {
                assert!(rows == self.rows[&applied], "rows are missing at {applied}");
                Outcome::Opens(applied)
            }
            Err(error) => {
                assert!(verified.is_err(), "verify finds what a reader finds: {error}");
                Outcome::CannotRead(error)
            }
        }
    }
}

/// The content of every file below, whatever it is called and wherever it lies.
fn contents(dir: &Path, into: &mut Vec<Vec<u8>>) {
    for name in names(dir) {
        let path = dir.join(&name);
        match path.is_dir() {
            true => contents(&path, into),
            false => into.push(fs::read(&path).unwrap()),
        }
    }
}

/// RocksDB removes the table files that its manifest does not name. If the manifest lost its end, those are the newest
/// rows, and whether the log has them is not known yet.
#[test]
fn what_a_manifest_that_lost_its_end_does_not_name_stays_until_the_log_was_compared() {
    let dir = tempfile::tempdir().unwrap();
    let (whole, cut) = (dir.path().join("whole"), dir.path().join("cut"));
    let (_store, applier, _reader) = filled_for(ROUNDS, &whole);
    copy_tree(&whole, &cut);
    let state = cut.join(STATE);
    let tables_before = tables(&state);
    let manifest = state.join(fs::read_to_string(state.join("CURRENT")).unwrap().trim_end());
    let file = OpenOptions::new().write(true).open(&manifest).unwrap();
    file.set_len(len(&manifest) - 1).unwrap();
    let (_, mut reopened) = Store::open(config(&cut)).unwrap();
    assert_eq!(reopened.applied().map(|at| at.index), Some(61));
    assert_eq!(applier.applied().map(|at| at.index), Some(121));
    let kept = cut.join("before-state-00000001");
    let missing = |table: &&PathBuf| !table.exists();
    assert!(
        tables_before.iter().filter(missing).count() >= 5,
        "RocksDB has removed them"
    );
    for table in tables_before {
        assert!(kept.join(table.file_name().unwrap()).exists(), "{table:?}");
    }
    reopened.clear_leftovers().unwrap();
    assert!(!kept.exists());
}

#[test]
fn every_file_damaged_in_every_way() {
    let whole = Whole::new();
    let mut told = Vec::new();
    for file in whole.files() {
        for damage in DAMAGES {
            if !damage.is_of(&whole.dir.path().join(&file)) {
                continue;
            }
            let dir = tempfile::tempdir().unwrap();
            copy_tree(whole.dir.path(), dir.path());
            damage.does(&dir.path().join(&file));
            let (mut before, mut after) = (Vec::new(), Vec::new());
            contents(dir.path(), &mut before);
            let outcome = whole.try_open(dir.path());
            told.push(format!("{} {damage:?}: {outcome}", file.display()));
            contents(dir.path(), &mut after);
            let gone = before.iter().filter(|content| !after.contains(content)).count();
            assert_eq!(gone, 0, "{}", told.join("\n"));
            if let Outcome::Refused(error) | Outcome::CannotRead(error) = outcome {
                let text = error.to_string();
                let name = file.file_name().unwrap().to_str().unwrap();
                let is_table = name.ends_with(".sst") && text.contains("one of its table files is damaged");
                assert!(
                    (text.contains(name) || is_table) && !text.contains('\n'),
                    "{}",
                    told.join("\n")
                );
            }
        }
    }
    let table = told.join("\n").replace(whole.dir.path().to_str().unwrap(), "…");
    println!("{table}");
    // What the database reads its rows by, or its rows are in, is missed when it is not whole.
    for (name, needed) in [
        ("CURRENT_STATE", true),
        ("CURRENT ", true),
        (".sst", true),
        ("OPTIONS", false),
        ("LOG", false),
    ] {
        let of_it = told
            .iter()
            .filter(|line| line.split(':').next().unwrap().contains(name));
        let refused = of_it
            .filter(|line| line.contains("refused") || line.contains("cannot") || line.contains("corrupt"));
        assert_eq!(refused.count() > 0, needed, "{name}\n{table}");
    }
}
