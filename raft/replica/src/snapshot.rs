//! Snapshots as directories: what is handed to openraft, and what is removed when nobody needs it.

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
};

use crate::data_dir::make_private_dir;

/// A snapshot's files. None: the state itself is the snapshot, nobody asked for files.
#[derive(Debug, Clone, Default)]
pub struct SnapshotData {
    pub dir: Option<Arc<SnapshotDir>>,
    /// The life of the database that the files come from: within it, a file's name and length name its content.
    pub source: u64,
}

/// A directory that goes away with the last handle.
#[derive(Debug)]
pub struct SnapshotDir {
    path: PathBuf,
}

impl SnapshotDir {
    pub fn new(path: PathBuf) -> Self {
        Self { path }
    }

    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for SnapshotDir {
    fn drop(&mut self) {
        remove(&self.path);
    }
}

fn remove(path: &Path) {
    match fs::remove_dir_all(path) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => tracing::warn!(%error, path = %path.display(), "cannot remove a snapshot"),
    }
}

/// Empties the directory of what an earlier life left behind.
pub fn clear_leftovers(dir: &Path) -> io::Result<()> {
    make_private_dir(dir)?;
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        match path.is_dir() {
            true => fs::remove_dir_all(&path)?,
            false => fs::remove_file(&path)?,
        }
    }
    Ok(())
}
