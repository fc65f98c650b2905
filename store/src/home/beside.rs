//! What lies beside the states for a while: work that is thrown away, what is kept over a start, and leftovers.
//!
//! Opening a database changes its directory: RocksDB writes another manifest in the place of the one it found, and
//! removes every table file that this one did not name. If the manifest had been cut short, those were the newest rows.
//! So the files are linked before ([`Home::keep`]), and the links go only with [`Home::clear_leftovers`], once it is
//! known that the log has what the state lacks. Where it has not, the member refuses to start, and the old files are
//! still there: `rm -r state-00000001; mv before-state-00000001 state-00000001` brings them back.

use std::{
    fs::{self, DirBuilder},
    io::{self, ErrorKind},
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
};

use super::{Home, POINTER_NEW, StateDir, failed, name_of, number_of, sync_dir};
use crate::StoreError;

const SCRATCH_PREFIX: &str = "scratch-";
const KEPT_PREFIX: &str = "before-";
/// Half-made, and no more than links.
pub(super) const KEPT_NEW: &str = "before.new";
/// A member that is started again and again without success keeps the files of as many starts.
pub(super) const MOST_KEPT: usize = 4;
/// Names nothing but a lock.
const LOCK: &str = "LOCK";

/// A directory for work that is thrown away; it goes with the value.
#[derive(Debug)]
pub struct Scratch {
    path: PathBuf,
}

impl Scratch {
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.path) {
            tracing::warn!(%error, path = %self.path.display(), "a scratch directory could not be removed");
        }
    }
}

/// Links to a state's files.
#[derive(Debug)]
pub struct Kept {
    path: PathBuf,
}

impl Kept {
    /// The state was not opened, so nothing of it went.
    pub fn let_go(self) -> Result<(), StoreError> {
        remove_if_there(&self.path).map_err(|error| failed("remove", &self.path, &error))
    }
}

impl Home {
    /// Private, and on the same file system as the states.
    pub fn scratch(&self) -> Result<Scratch, StoreError> {
        let mut number = 1u64;
        loop {
            let path = self.root.join(format!("{SCRATCH_PREFIX}{number}"));
            match DirBuilder::new().mode(0o700).create(&path) {
                Ok(()) => return Ok(Scratch { path }),
                // Another's, or what a killed process left.
                Err(error) if error.kind() == ErrorKind::AlreadyExists => number += 1,
                Err(error) => return Err(failed("create", &path, &error)),
            }
        }
    }

    /// Links the files of a state beside it, as they are before it is opened. What earlier starts kept, and did not let
    /// go, stays, and is closer to what was lost: the first [`MOST_KEPT`] of them. `None`: there are as many, or the
    /// file system has no links.
    pub fn keep(&self, dir: &StateDir) -> Result<Option<Kept>, StoreError> {
        let unused = |path: &PathBuf| fs::symlink_metadata(path).is_err();
        let Some(path) = (1..=MOST_KEPT).map(|count| self.kept(dir, count)).find(unused) else {
            return Ok(None);
        };
        let new = self.root.join(KEPT_NEW);
        remove_if_there(&new).map_err(|error| failed("remove", &new, &error))?;
        match link_files(dir.path(), &new).and_then(|()| fs::rename(&new, &path)) {
            Ok(()) => Ok(Some(Kept { path })),
            Err(error) => {
                tracing::warn!(%error, dir = %dir.path().display(), "the state is opened without links to its files");
                let _ = remove_if_there(&new);
                Ok(None)
            }
        }
    }

    /// Removes what interrupted installs and starts left, and what was kept. `current` is in use and stays.
    pub fn clear_leftovers(&self, current: &StateDir) -> Result<(), StoreError> {
        for name in self.names()? {
            let path = self.root.join(&name);
            let is_state = number_of(&name).is_some_and(|number| number != current.number);
            let is_beside = is_beside(&name);
            let metadata = fs::symlink_metadata(&path).map_err(|error| failed("read", &path, &error))?;
            if (is_state || is_beside) && !metadata.is_dir() {
                tracing::warn!(path = %path.display(), "this is no directory of ours, and stays");
            } else if is_state || is_beside {
                fs::remove_dir_all(&path).map_err(|error| failed("remove", &path, &error))?;
            } else if name == POINTER_NEW && metadata.is_file() {
                fs::remove_file(&path).map_err(|error| failed("remove", &path, &error))?;
            }
        }
        Ok(())
    }

    fn kept(&self, dir: &StateDir, count: usize) -> PathBuf {
        let name = format!("{KEPT_PREFIX}{}", name_of(dir.number));
        self.root.join(match count {
            1 => name,
            _ => format!("{name}-{count}"),
        })
    }
}

/// A name that is given here, and no other: what somebody else put beside the states is theirs.
fn is_beside(name: &str) -> bool {
    let is_scratch = || name.strip_prefix(SCRATCH_PREFIX)?.parse::<u64>().ok();
    let is_kept = || {
        let kept = name.strip_prefix(KEPT_PREFIX)?;
        let again = |(state, count): (&str, &str)| count.parse::<usize>().ok().and(number_of(state));
        number_of(kept).or_else(|| kept.rsplit_once('-').and_then(again))
    };
    name == KEPT_NEW || is_scratch().is_some() || is_kept().is_some()
}

fn link_files(from: &Path, to: &Path) -> io::Result<()> {
    DirBuilder::new().mode(0o700).create(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        if entry.file_type()?.is_file() && entry.file_name() != LOCK {
            fs::hard_link(entry.path(), to.join(entry.file_name()))?;
        }
    }
    sync_dir(to)
}

fn remove_if_there(dir: &Path) -> io::Result<()> {
    match fs::remove_dir_all(dir) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}
