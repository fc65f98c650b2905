//! The data directory's layout: numbered state directories, and a pointer file that names the current one.
//!
//! [`Home`] finds, makes and removes them. A directory becomes current by renaming the pointer file and syncing the
//! directory above it; whatever the pointer does not name is a leftover. Nothing is removed while a state is opened:
//! [`Home::clear_leftovers`] does that, once its caller knows that the state is the one that the log belongs to. When
//! the pointer is missing or says nothing, it guesses no state: it refuses, and says what it found. It never looks
//! inside of a database.

mod beside;
mod refusal;

use std::{
    fs::{self, DirBuilder, File},
    io::{ErrorKind, Write},
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
};

use crate::{StoreError, planted};

const POINTER: &str = "CURRENT_STATE";
const POINTER_NEW: &str = "CURRENT_STATE.new";
const PREFIX: &str = "state-";

#[derive(Debug, Clone)]
pub struct Home {
    root: PathBuf,
}

/// One state directory below a [`Home`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StateDir {
    path: PathBuf,
    number: u64,
}

impl StateDir {
    /// A directory that belongs to no home, such as a copy on its way.
    pub fn outside(path: &Path) -> Self {
        Self {
            path: path.to_owned(),
            number: 0,
        }
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    pub fn remove(&self) -> Result<(), StoreError> {
        fs::remove_dir_all(&self.path).map_err(|error| failed("remove", &self.path, &error))
    }
}

impl Home {
    /// Makes the directory, for its owner alone, when it is missing.
    pub fn new(root: &Path) -> Result<Self, StoreError> {
        let is_new = !root.exists();
        let made = DirBuilder::new().recursive(true).mode(0o700).create(root);
        made.map_err(|error| failed("create", root, &error))?;
        if let Some(above) = root.parent().filter(|above| is_new && above.is_dir()) {
            sync_dir(above).map_err(|error| failed("sync", above, &error))?;
        }
        Ok(Self {
            root: root.to_owned(),
        })
    }

    /// The directory that the pointer names; `None` when there is no pointer.
    pub fn current(&self) -> Result<Option<StateDir>, StoreError> {
        let pointer = self.pointer();
        let bytes = match fs::read(&pointer) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(failed("read", &pointer, &error)),
        };
        let name = String::from_utf8_lossy(&bytes);
        let Some(number) = number_of(name.trim_end()) else {
            let said: String = name.chars().take(refusal::SHOWN_CHARS).collect();
            return Err(self.refuse(&format!("does not name a state directory: {said:?}")));
        };
        let dir = self.numbered(number);
        match fs::symlink_metadata(&dir.path) {
            Ok(metadata) if metadata.is_dir() => Ok(Some(dir)),
            Ok(_) => Err(self.refuse(&format!("names {}, which is no directory", dir.path.display()))),
            Err(error) if error.kind() == ErrorKind::NotFound => {
                Err(self.refuse(&format!("names {}, which is missing", dir.path.display())))
            }
            Err(error) => Err(failed("read", &dir.path, &error)),
        }
    }

    /// Where the first state belongs, when there is no pointer. A first start that was killed may have left a directory
    /// there: it is used again if it holds no data, and never replaced if it may.
    pub fn first(&self) -> Result<StateDir, StoreError> {
        let found = self.found()?;
        let mut highest = 1;
        for name in &found {
            match number_of(name) {
                Some(number) if self.is_unused(number)? => highest = highest.max(number),
                _ => return Err(self.refuse("is missing")),
            }
        }
        Ok(self.numbered(highest))
    }

    /// Moves a complete directory in under a new number, durably.
    pub fn adopt(&self, from: &Path) -> Result<StateDir, StoreError> {
        sync_tree(from).map_err(|error| failed("sync", from, &error))?;
        let highest = self.numbers()?.into_iter().max().unwrap_or(0);
        let dir = self.numbered(highest + 1);
        fs::rename(from, &dir.path).map_err(|error| failed("move in", from, &error))?;
        self.sync()?;
        Ok(dir)
    }

    /// After an error the pointer may have been moved or not, now or across a power cut.
    pub fn make_current(&self, dir: &StateDir) -> Result<(), StoreError> {
        let new = self.root.join(POINTER_NEW);
        let written = File::create(&new).and_then(|mut file| {
            writeln!(file, "{}", name_of(dir.number))?;
            file.sync_all()
        });
        written.map_err(|error| failed("write", &new, &error))?;
        let pointer = self.pointer();
        fs::rename(&new, &pointer).map_err(|error| failed("replace", &pointer, &error))?;
        if planted("state-pointer-not-synced") {
            return Ok(());
        }
        self.sync()
    }

    fn pointer(&self) -> PathBuf {
        self.root.join(POINTER)
    }

    fn sync(&self) -> Result<(), StoreError> {
        sync_dir(&self.root).map_err(|error| failed("sync", &self.root, &error))
    }

    fn numbers(&self) -> Result<Vec<u64>, StoreError> {
        Ok(self.names()?.iter().filter_map(|name| number_of(name)).collect())
    }

    fn names(&self) -> Result<Vec<String>, StoreError> {
        let list = || -> std::io::Result<Vec<String>> {
            let names = fs::read_dir(&self.root)?.map(|entry| Ok(entry?.file_name()));
            let names = names.collect::<std::io::Result<Vec<_>>>()?;
            Ok(names
                .iter()
                .map(|name| name.to_string_lossy().into_owned())
                .collect())
        };
        list().map_err(|error| failed("list", &self.root, &error))
    }

    fn numbered(&self, number: u64) -> StateDir {
        StateDir {
            path: self.root.join(name_of(number)),
            number,
        }
    }
}

fn name_of(number: u64) -> String {
    format!("{PREFIX}{number:08}")
}

fn number_of(name: &str) -> Option<u64> {
    let number = name.strip_prefix(PREFIX)?.parse().ok()?;
    (name_of(number) == name).then_some(number)
}

fn sync_dir(dir: &Path) -> std::io::Result<()> {
    File::open(dir)?.sync_all()
}

fn sync_tree(dir: &Path) -> std::io::Result<()> {
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        if path.is_dir() {
            sync_tree(&path)?;
        } else {
            File::open(&path)?.sync_all()?;
        }
    }
    sync_dir(dir)
}

fn failed(what: &str, path: &Path, error: &std::io::Error) -> StoreError {
    StoreError::DataDir(format!("cannot {what} {}: {error}", path.display()))
}

#[cfg(test)]
mod tests;
