//! Files in memory that can lose power: what was not synced is forgotten, or kept in part, as a seed decides.
//!
//! [`CutFiles`] is the disk; clones share it. Every operation is counted, and the power can be cut at any of
//! them. It models what the log must survive, in `disk.rs`; it never touches the real file system.
//! What no log can survive unharmed, because a disk must not do it, is in `broken.rs`.

use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use parking_lot::{Mutex, MutexGuard};

use super::{
    File, Files,
    disk::{Dice, Disk},
};

#[derive(Clone)]
pub struct CutFiles {
    pub(super) power: Arc<Mutex<Power>>,
}

/// What a disk did that a healthy one does not do, since it was made.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Harm {
    pub failed_syncs: u64,
    /// For want of room.
    pub refused_writes: u64,
    /// Changes that were not synced when the power went.
    pub unsynced: u64,
    /// Files and names that a power cut took something of.
    pub lost: u64,
    /// Syncs that were acknowledged and had no effect.
    pub lies: u64,
}

pub(super) struct Power {
    pub(super) disk: Disk,
    dice: Dice,
    on: bool,
    /// Handles opened before the last cut are dead for good.
    pub(super) boot: u64,
    operations: u64,
    cut_at: Option<u64>,
    cut_in_sync: Option<u64>,
    halt_in_sync: Option<u64>,
    syncs: u64,
    fail_sync_at: Option<u64>,
    pub(super) lies: bool,
    limit: Option<u64>,
    harm: Harm,
}

impl CutFiles {
    pub fn new(seed: u64) -> CutFiles {
        let power = Power {
            disk: Disk::default(),
            dice: Dice::new(seed),
            on: true,
            boot: 0,
            operations: 0,
            cut_at: None,
            cut_in_sync: None,
            halt_in_sync: None,
            syncs: 0,
            fail_sync_at: None,
            lies: false,
            limit: None,
            harm: Harm::default(),
        };
        CutFiles {
            power: Arc::new(Mutex::new(power)),
        }
    }

    /// Cuts the power now: every operation fails until `restore`.
    pub fn cut(&self) {
        self.power.lock().cut();
    }

    /// Ends the process but not the machine: every operation fails until `restore`, and nothing is forgotten.
    pub fn halt(&self) {
        self.power.lock().halt();
    }

    /// Cuts the power in the `count`-th operation from now (1 is the next).
    pub fn cut_after(&self, count: u64) {
        let mut power = self.power.lock();
        power.cut_at = Some(power.operations + count);
    }

    /// Cuts the power in the `count`-th sync from now (1 is the next), before anything of it is durable.
    pub fn cut_in_sync(&self, count: u64) {
        let mut power = self.power.lock();
        power.cut_in_sync = Some(power.syncs + count);
    }

    /// Ends the process in the `count`-th sync from now (1 is the next): what was written is seen, and is not durable.
    pub fn halt_in_sync(&self, count: u64) {
        let mut power = self.power.lock();
        power.halt_in_sync = Some(power.syncs + count);
    }

    pub fn harm(&self) -> Harm {
        self.power.lock().harm
    }

    pub fn is_cut(&self) -> bool {
        !self.power.lock().on
    }

    /// Power is back; the files are what survived.
    pub fn restore(&self) {
        let mut power = self.power.lock();
        (power.on, power.cut_at) = (true, None);
        (power.cut_in_sync, power.halt_in_sync) = (None, None);
    }

    /// The `count`-th sync from now fails (1 is the next), and what it was to make durable never will be.
    pub fn fail_sync(&self, count: u64) {
        let mut power = self.power.lock();
        power.fail_sync_at = Some(power.syncs + count);
    }

    /// No more than this many bytes in all files.
    pub fn limit(&self, bytes: Option<u64>) {
        self.power.lock().limit = bytes;
    }

    pub fn operations(&self) -> u64 {
        self.power.lock().operations
    }

    /// Does an operation; if the power goes in it, its effect is there before the cut decides what stays.
    fn operate<T>(&self, boot: Option<u64>, act: impl FnOnce(&mut Power) -> io::Result<T>) -> io::Result<T> {
        let mut power: MutexGuard<'_, Power> = self.power.lock();
        if !power.on || boot.is_some_and(|boot| boot != power.boot) {
            return Err(no_power());
        }
        power.operations += 1;
        let cut = power.cut_at.is_some_and(|at| power.operations >= at);
        if cut && power.dice.up_to(3) == 0 {
            power.cut();
            return Err(no_power());
        }
        let outcome = act(&mut power);
        if cut {
            power.cut();
            return Err(no_power());
        }
        outcome
    }
}

enum Sync {
    Works,
    Fails,
    Lies,
}

fn no_power() -> io::Error {
    io::Error::other("the power was cut")
}

impl Power {
    fn halt(&mut self) {
        if self.on {
            self.on = false;
            self.boot += 1;
        }
    }

    fn cut(&mut self) {
        if self.on {
            self.harm.unsynced += self.disk.unsynced();
            self.harm.lost += self.disk.cut(&mut self.dice);
            self.on = false;
            self.boot += 1;
        }
    }

    /// Whether this sync has its effect, or only says so, or fails, or loses its power.
    fn begin_sync(&mut self) -> io::Result<Sync> {
        self.syncs += 1;
        if self.cut_in_sync.take_if(|at| *at <= self.syncs).is_some() {
            self.cut();
            return Err(no_power());
        }
        if self.halt_in_sync.take_if(|at| *at <= self.syncs).is_some() {
            self.halt();
            return Err(no_power());
        }
        let fails = self.fail_sync_at.take_if(|at| *at <= self.syncs).is_some();
        self.harm.failed_syncs += u64::from(fails);
        self.harm.lies += u64::from(self.lies && !fails);
        Ok(match (fails, self.lies) {
            (true, _) => Sync::Fails,
            (false, true) => Sync::Lies,
            (false, false) => Sync::Works,
        })
    }

    fn check_room(&mut self, more: u64) -> io::Result<()> {
        match self.limit {
            Some(limit) if self.disk.used() + more > limit => {
                self.harm.refused_writes += 1;
                Err(io::ErrorKind::StorageFull.into())
            }
            _ => Ok(()),
        }
    }

    fn existing(&self, path: &Path) -> io::Result<u64> {
        let missing = || {
            io::Error::new(
                io::ErrorKind::NotFound,
                format!("{} does not exist", path.display()),
            )
        };
        self.disk.names.get(path).copied().ok_or_else(missing)
    }
}

impl Files for CutFiles {
    fn create_dir_all(&self, dir: &Path) -> io::Result<()> {
        self.operate(None, |power| {
            power.disk.dirs.extend(dir.ancestors().map(PathBuf::from));
            Ok(())
        })
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        self.operate(None, |power| {
            let inside = power.disk.names.keys().filter(|path| path.parent() == Some(dir));
            Ok(inside
                .filter_map(|path| Some(path.file_name()?.to_str()?.to_owned()))
                .collect())
        })
    }

    fn open(&self, path: &Path, create: bool) -> io::Result<Box<dyn File>> {
        self.operate(None, |power| {
            let inode = match power.existing(path) {
                Err(_) if create && path.parent().is_some_and(|dir| power.disk.dirs.contains(dir)) => {
                    power.disk.create(path)
                }
                existing => existing?,
            };
            Ok(Box::new(CutFile {
                files: self.clone(),
                inode,
                boot: power.boot,
            }) as Box<dyn File>)
        })
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.operate(None, |power| {
            power.existing(from)?;
            power.disk.rename(from, to);
            Ok(())
        })
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.operate(None, |power| {
            power.existing(path)?;
            power.disk.remove(path);
            Ok(())
        })
    }

    fn sync_dir(&self, _dir: &Path) -> io::Result<()> {
        self.operate(None, |power| {
            match power.begin_sync()? {
                Sync::Works => power.disk.sync_names(),
                Sync::Lies => {}
                Sync::Fails => return Err(io::Error::other("injected: the directory's sync failed")),
            }
            Ok(())
        })
    }
}

struct CutFile {
    files: CutFiles,
    inode: u64,
    boot: u64,
}

impl CutFile {
    fn on_inode<T>(&self, act: impl FnOnce(&mut super::disk::Inode) -> T) -> io::Result<T> {
        self.files.operate(Some(self.boot), |power| {
            match power.disk.inodes.get_mut(&self.inode) {
                Some(inode) => Ok(act(inode)),
                None => Err(io::Error::other("the file is gone")),
            }
        })
    }
}

impl File for CutFile {
    fn len(&self) -> io::Result<u64> {
        self.on_inode(|inode| inode.seen.len() as u64)
    }

    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        self.on_inode(|inode| {
            let from = inode.seen.len().min(offset as usize);
            let read = buf.len().min(inode.seen.len() - from);
            buf[..read].copy_from_slice(&inode.seen[from..from + read]);
            read
        })
    }

    fn write_all_at(&self, buf: &[u8], offset: u64) -> io::Result<()> {
        self.files.operate(Some(self.boot), |power| {
            let len = power
                .disk
                .inodes
                .get(&self.inode)
                .map_or(0, |inode| inode.seen.len() as u64);
            power.check_room((offset + buf.len() as u64).saturating_sub(len))?;
            match power.disk.inodes.get_mut(&self.inode) {
                Some(inode) => inode.write(buf, offset as usize),
                None => return Err(io::Error::other("the file is gone")),
            }
            Ok(())
        })
    }

    fn sync(&self) -> io::Result<()> {
        self.files.operate(Some(self.boot), |power| {
            let sync = power.begin_sync()?;
            let inode = power.disk.inodes.get_mut(&self.inode);
            let inode = inode.ok_or_else(|| io::Error::other("the file is gone"))?;
            match sync {
                Sync::Works => inode.sync(),
                Sync::Lies => {}
                Sync::Fails => {
                    inode.fail_sync();
                    return Err(io::Error::other("injected: the sync failed"));
                }
            }
            Ok(())
        })
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.on_inode(|inode| inode.set_len(len as usize))
    }
}
