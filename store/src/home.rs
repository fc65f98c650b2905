//! The data directory's layout: numbered state directories, and a pointer file that names the current one.
//!
//! [`Home`] finds, makes and removes them. A directory becomes current by renaming the pointer file and
//! syncing the directory above it; whatever the pointer does not name is a leftover. It never looks inside.

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

    /// The directory that the pointer names; `None` when there never was one.
    pub fn current(&self) -> Result<Option<StateDir>, StoreError> {
        let pointer = self.root.join(POINTER);
        let name = match fs::read_to_string(&pointer) {
            Ok(name) => name,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(failed("read", &pointer, &error)),
        };
        let Some(number) = number_of(name.trim_end()) else {
            let text = format!("{} does not name a state directory: {name:?}", pointer.display());
            return Err(StoreError::DataDir(text));
        };
        let dir = self.numbered(number);
        if !dir.path.is_dir() {
            let text = format!(
                "{} names {}, which is missing",
                pointer.display(),
                dir.path.display()
            );
            return Err(StoreError::DataDir(text));
        }
        Ok(Some(dir))
    }

    /// A number that no directory has; nothing is made yet.
    pub fn next(&self) -> Result<StateDir, StoreError> {
        let highest = self.all()?.iter().map(|dir| dir.number).max().unwrap_or(0);
        Ok(self.numbered(highest + 1))
    }

    pub fn remove_all_but(&self, kept: &StateDir) -> Result<(), StoreError> {
        for dir in self.all()?.iter().filter(|dir| *dir != kept) {
            dir.remove()?;
        }
        Ok(())
    }

    /// Moves a complete directory in under a new number, durably.
    pub fn adopt(&self, from: &Path) -> Result<StateDir, StoreError> {
        sync_tree(from).map_err(|error| failed("sync", from, &error))?;
        let dir = self.next()?;
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
        let pointer = self.root.join(POINTER);
        fs::rename(&new, &pointer).map_err(|error| failed("replace", &pointer, &error))?;
        if planted("state-pointer-not-synced") {
            return Ok(());
        }
        self.sync()
    }

    fn sync(&self) -> Result<(), StoreError> {
        sync_dir(&self.root).map_err(|error| failed("sync", &self.root, &error))
    }

    fn all(&self) -> Result<Vec<StateDir>, StoreError> {
        let list = || -> std::io::Result<Vec<StateDir>> {
            let mut dirs = Vec::new();
            for entry in fs::read_dir(&self.root)? {
                if let Some(number) = entry?.file_name().to_str().and_then(number_of) {
                    dirs.push(self.numbered(number));
                }
            }
            Ok(dirs)
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
mod tests {
    use super::*;

    #[test]
    fn pointer_survives_and_leftovers_go() {
        let root = tempfile::tempdir().unwrap();
        let home = Home::new(root.path()).unwrap();
        assert_eq!(home.current().unwrap(), None);
        let first = home.next().unwrap();
        fs::create_dir(first.path()).unwrap();
        home.make_current(&first).unwrap();
        let incoming = root.path().join("incoming");
        fs::create_dir(&incoming).unwrap();
        let second = home.adopt(&incoming).unwrap();
        assert_eq!(home.current().unwrap(), Some(first.clone()));
        home.make_current(&second).unwrap();
        assert_eq!(home.current().unwrap(), Some(second.clone()));
        home.remove_all_but(&second).unwrap();
        assert!(!first.path().exists() && second.path().exists());
    }

    #[test]
    fn a_bad_pointer_is_one_clear_line() {
        let root = tempfile::tempdir().unwrap();
        let home = Home::new(root.path()).unwrap();
        fs::write(root.path().join(POINTER), "state-00000007\n").unwrap();
        let missing = home.current().unwrap_err().to_string();
        assert!(missing.contains("state-00000007, which is missing"), "{missing}");
        fs::write(root.path().join(POINTER), "elsewhere\n").unwrap();
        let wrong = home.current().unwrap_err().to_string();
        assert!(
            wrong.contains("does not name a state directory") && !wrong.contains('\n'),
            "{wrong}"
        );
    }
}
