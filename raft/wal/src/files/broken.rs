//! What a disk must not do, of [`CutFiles`]: acknowledge syncs that have no effect, take back what was synced, flip bytes,
//! go back to an earlier copy of itself.

use std::{
    io,
    path::{Path, PathBuf},
};

use super::{CutFiles, disk::Disk};

/// A copy of all files at some moment.
pub struct Copy(Disk);

impl CutFiles {
    /// From now on syncs are acknowledged without any effect, or are honest again. What was not synced is as good as ever
    /// until the power goes; the next honest sync makes it durable.
    pub fn lie(&self, lies: bool) {
        self.power.lock().lies = lies;
    }

    /// As somebody copies a directory whose process does not run.
    pub fn copy(&self) -> Copy {
        Copy(self.power.lock().disk.settled())
    }

    /// The copy in the place of all that is there; open handles are dead.
    pub fn put_back(&self, copy: &Copy) {
        let mut power = self.power.lock();
        power.disk = copy.0.settled();
        power.boot += 1;
    }

    /// Every file there is, in the order of their names.
    pub fn paths(&self) -> Vec<PathBuf> {
        self.power.lock().disk.names.keys().cloned().collect()
    }

    /// Where the last syncs of a file wrote, the newest at the end: offset and length. No more of them than are
    /// remembered.
    pub fn synced(&self, path: &Path) -> Vec<(usize, usize)> {
        let power = self.power.lock();
        let inode = power
            .disk
            .names
            .get(path)
            .and_then(|inode| power.disk.inodes.get(inode));
        inode.map(|inode| inode.synced().collect()).unwrap_or_default()
    }

    /// Takes the last syncs of a file back, although they were acknowledged; says how many it could.
    pub fn take_back(&self, path: &Path, syncs: usize) -> usize {
        let mut power = self.power.lock();
        let disk = &mut power.disk;
        let inode = disk.names.get(path).and_then(|inode| disk.inodes.get_mut(inode));
        inode.map_or(0, |inode| (0..syncs).take_while(|_| inode.take_back()).count())
    }

    /// Damages a byte, on the medium and in memory.
    pub fn flip(&self, path: &Path, offset: u64) -> io::Result<()> {
        let mut power = self.power.lock();
        let inode = power
            .disk
            .names
            .get(path)
            .copied()
            .ok_or(io::ErrorKind::NotFound)?;
        let inode = power.disk.inodes.get_mut(&inode).ok_or(io::ErrorKind::NotFound)?;
        let byte = *inode
            .seen
            .get(offset as usize)
            .ok_or(io::ErrorKind::UnexpectedEof)?;
        inode.write(&[!byte], offset as usize);
        inode.sync();
        Ok(())
    }
}
