//! A file system that can lose power: [`CutFs`].
//!
//! It is mounted by FUSE, so that real programs run on it unchanged, and keeps everything in memory in two states:
//! what is seen, and what is durable. A cut stops it at once (every operation fails with EIO) and leaves what is
//! durable, plus a part of the rest that a seed decides. A power cut of a process is: [`CutFs::cut`], kill -9,
//! [`CutFs::restore`], start again.
//!
//! What is modelled, after ext4 but less kind:
//! - Content not covered by an fsync: of each 4 KiB block the old or the new state survives, or a mix of their 512-byte
//!   sectors; dirty blocks may also reach the medium at any earlier time, in any order. The length is the old or the new.
//! - Names change by a journal; a rename is never half done, but is lost without a sync of its directory. fsync of a
//!   directory makes its changes durable and the path to it; fsync of a new file makes its first name durable, and not a
//!   later rename. The seed decides whether the journal keeps its order, as ext4's does, or only what POSIX says.
//! - A failed fsync is not made good by a later one: what it covered is lost in a cut, though it can be read.
//! - Hard links, symbolic links, unlinked open files, locks (the kernel's own), preallocation (which takes no room here).
//!
//! Not modelled: sectors torn inside, damage to what is not being written, mmap for writing, O_DIRECT's alignment.

mod content;
mod names;
mod serve;
mod volume;

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use anyhow::Context;
use fuser::{BackgroundSession, MountOption};
use nix::mount::{MntFlags, umount2};

use serve::{Held, Server, Shared};
use volume::{OrderedCut, Volume};

const THREADS: usize = 6;

/// What was done on the file system since it was mounted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct CutFsStats {
    /// Writes and changes of names, lengths and attributes.
    pub changes: u64,
    pub writes: u64,
    pub written_bytes: u64,
    /// Of files and directories.
    pub fsyncs: u64,
    pub cuts: u64,
    /// Of the fsyncs, those that were made to wait.
    pub slowed: u64,
    /// Writes for which there was no room.
    pub refused: u64,
    /// Syncs that failed as ordered.
    pub failed_fsyncs: u64,
}

/// Where a cut can be ordered. Paths are relative to the mount and start with a slash.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Of a file or a directory.
    Fsync,
    Write,
    /// Of a file, directory or link.
    Create,
    /// The path is the new one.
    Rename,
    Remove,
    /// All of these but fsync, and changes of lengths and attributes.
    Change,
}

/// A mounted file system; unmounted when dropped.
pub struct CutFs {
    dir: PathBuf,
    shared: Arc<Shared>,
    session: Option<BackgroundSession>,
}

impl CutFs {
    /// Mounts an empty file system on an existing directory.
    pub fn mount(dir: &Path, seed: u64) -> anyhow::Result<CutFs> {
        let shared = Arc::new(Shared::new(Volume::new(seed)));
        let mut config = fuser::Config::default();
        config.mount_options = vec![MountOption::FSName("cutfs".into()), MountOption::NoAtime];
        config.n_threads = Some(THREADS);
        let session = fuser::spawn_mount(Server(shared.clone()), dir, &config)
            .with_context(|| format!("mounting cutfs on {} (is /dev/fuse there?)", dir.display()))?;
        Ok(CutFs {
            dir: dir.canonicalize()?,
            shared,
            session: Some(session),
        })
    }

    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The power goes: every operation, those under way included, fails with EIO from now on.
    pub fn cut(&self) {
        self.volume().cut();
    }

    /// The power is back; files opened before the cut stay dead.
    pub fn restore(&self) {
        self.volume().power = true;
    }

    pub fn is_cut(&self) -> bool {
        !self.volume().power
    }

    /// Cuts at the `count`-th step of this kind from now (1 is the next) on a path that contains `path`: before its
    /// effect, or at an fsync just before or just after it. Takes the place of an earlier order.
    pub fn cut_at(&self, step: Step, path: &str, count: u64) {
        let path = path.to_owned();
        self.volume().faults.cut = Some(OrderedCut {
            step,
            path,
            left: count,
        });
    }

    /// Takes an order back; `false` if it had been carried out already.
    pub fn cancel_cut(&self) -> bool {
        self.volume().faults.cut.take().is_some()
    }

    /// Waits for an ordered cut; `false` if it did not come in time.
    pub fn wait_cut(&self, timeout: Duration) -> bool {
        self.shared.wait_off(timeout)
    }

    /// No more than this many bytes of file content (blocks of zeroes take no room); `None`: no limit.
    pub fn fill(&self, limit: Option<u64>) {
        self.volume().faults.limit = limit;
    }

    /// Bytes of file content now.
    pub fn used(&self) -> u64 {
        self.volume().used()
    }

    /// Every fsync takes this much longer.
    pub fn slow(&self, delay: Duration) {
        self.volume().faults.slow = delay;
    }

    /// The `count`-th fsync from now (1 is the next) fails with EIO, once.
    pub fn fail_fsync(&self, count: u64) {
        self.volume().faults.fail_fsync_in = Some(count);
    }

    /// No fsync fails that has not failed yet.
    pub fn cancel_failure(&self) {
        self.volume().faults.fail_fsync_in = None;
    }

    pub fn stats(&self) -> CutFsStats {
        self.volume().stats
    }

    fn volume(&self) -> Held<'_> {
        self.shared.lock()
    }
}

impl Drop for CutFs {
    fn drop(&mut self) {
        // Nothing may block on the volume any more, and no process that still has a file open may keep the mount.
        self.volume().cut();
        let force = umount2(&self.dir, MntFlags::MNT_FORCE | MntFlags::MNT_DETACH);
        if force.is_err() {
            // Not root: the helper that mounted it takes it away.
            let unmounted = std::process::Command::new("fusermount3")
                .args(["-u", "-z"])
                .arg(&self.dir)
                .status();
            if !unmounted.is_ok_and(|status| status.success()) {
                tracing::error!("{} could not be unmounted", self.dir.display());
            }
        }
        // Its threads end when the last user of the mount is gone.
        drop(self.session.take());
    }
}
