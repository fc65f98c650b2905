//! The operating system's files.

use std::{
    fs::{self, OpenOptions},
    io,
    os::unix::fs::FileExt,
    path::Path,
};

use super::{File, Files};

#[derive(Debug, Clone, Copy, Default)]
pub struct RealFiles;

impl Files for RealFiles {
    fn create_dir_all(&self, dir: &Path) -> io::Result<()> {
        fs::create_dir_all(dir).map_err(|error| named(dir, error))
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        let name = |entry: io::Result<fs::DirEntry>| Ok(entry?.file_name().to_string_lossy().into_owned());
        let names = fs::read_dir(dir).and_then(|entries| entries.map(name).collect());
        names.map_err(|error| named(dir, error))
    }

    fn open(&self, path: &Path, create: bool) -> io::Result<Box<dyn File>> {
        let mut options = OpenOptions::new();
        let file = options
            .read(true)
            .write(true)
            .create(create)
            .truncate(false)
            .open(path);
        file.map(|file| Box::new(file) as Box<dyn File>)
            .map_err(|error| named(path, error))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to).map_err(|error| named(from, error))
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path).map_err(|error| named(path, error))
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        let synced = fs::File::open(dir).and_then(|dir| dir.sync_all());
        synced.map_err(|error| named(dir, error))
    }
}

/// An error of the operating system does not say of what.
fn named(path: &Path, error: io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{}: {error}", path.display()))
}

impl File for fs::File {
    fn len(&self) -> io::Result<u64> {
        Ok(self.metadata()?.len())
    }

    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        FileExt::read_at(self, buf, offset)
    }

    fn write_all_at(&self, buf: &[u8], offset: u64) -> io::Result<()> {
        FileExt::write_all_at(self, buf, offset)
    }

    fn sync(&self) -> io::Result<()> {
        self.sync_data()
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        fs::File::set_len(self, len)
    }
}
