//! The file operations below the log: real ones, and (for tests and simulation) ones that forget what was not
//! synced.

use std::{io, path::Path};

mod broken;
mod cut;
mod disk;
mod real;

pub use broken::Copy;
pub use cut::{CutFiles, Harm};
pub use real::RealFiles;

/// A directory's worth of files.
pub trait Files: Send + Sync + 'static {
    fn create_dir_all(&self, dir: &Path) -> io::Result<()>;
    fn list(&self, dir: &Path) -> io::Result<Vec<String>>;
    /// Opens for reading and writing; `create` makes it when missing.
    fn open(&self, path: &Path, create: bool) -> io::Result<Box<dyn File>>;
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    fn remove(&self, path: &Path) -> io::Result<()>;
    /// Makes names created, renamed or removed in `dir` durable.
    fn sync_dir(&self, dir: &Path) -> io::Result<()>;
}

pub trait File: Send + Sync {
    fn len(&self) -> io::Result<u64>;
    fn is_empty(&self) -> io::Result<bool> {
        Ok(self.len()? == 0)
    }
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize>;
    fn write_all_at(&self, buf: &[u8], offset: u64) -> io::Result<()>;
    /// fdatasync, and the length with it.
    fn sync(&self) -> io::Result<()>;
    fn set_len(&self, len: u64) -> io::Result<()>;
}
