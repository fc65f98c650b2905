//! Files that tell a hook what is about to be done, and so can be killed, counted or waited for.

use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use barque_wal::files::{File, Files};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    Read,
    Write,
    Sync,
    /// List, open, rename or remove.
    Name,
    SyncDir,
}

type Hook = Arc<dyn Fn(Step, &Path) + Send + Sync>;

/// Calls the hook before each operation; a file keeps the name that it was opened by.
#[derive(Clone)]
pub struct Seam {
    inner: Arc<dyn Files>,
    hook: Hook,
}

impl Seam {
    pub fn new(inner: impl Files, hook: impl Fn(Step, &Path) + Send + Sync + 'static) -> Seam {
        Seam {
            inner: Arc::new(inner),
            hook: Arc::new(hook),
        }
    }
}

impl Files for Seam {
    fn create_dir_all(&self, dir: &Path) -> io::Result<()> {
        (self.hook)(Step::Name, dir);
        self.inner.create_dir_all(dir)
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        (self.hook)(Step::Name, dir);
        self.inner.list(dir)
    }

    fn open(&self, path: &Path, create: bool) -> io::Result<Box<dyn File>> {
        (self.hook)(Step::Name, path);
        Ok(Box::new(SeamFile {
            inner: self.inner.open(path, create)?,
            path: path.into(),
            hook: self.hook.clone(),
        }))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        (self.hook)(Step::Name, from);
        self.inner.rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        (self.hook)(Step::Name, path);
        self.inner.remove(path)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        (self.hook)(Step::SyncDir, dir);
        self.inner.sync_dir(dir)
    }
}

struct SeamFile {
    inner: Box<dyn File>,
    path: PathBuf,
    hook: Hook,
}

impl File for SeamFile {
    fn len(&self) -> io::Result<u64> {
        self.inner.len()
    }

    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        (self.hook)(Step::Read, &self.path);
        self.inner.read_at(buf, offset)
    }

    fn write_all_at(&self, buf: &[u8], offset: u64) -> io::Result<()> {
        (self.hook)(Step::Write, &self.path);
        self.inner.write_all_at(buf, offset)
    }

    fn sync(&self) -> io::Result<()> {
        (self.hook)(Step::Sync, &self.path);
        self.inner.sync()
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        (self.hook)(Step::Write, &self.path);
        self.inner.set_len(len)
    }
}
