//! The volume: inodes with their contents, their names, the open handles, and the faults to inject.
//!
//! Everything here is plain data behind one lock; `serve.rs` speaks FUSE to it.

use std::{
    collections::HashMap,
    ffi::{OsStr, OsString},
    path::PathBuf,
    time::{Duration, SystemTime},
};

use fuser::Errno;
use rand::{Rng, SeedableRng, rngs::StdRng};

use super::{
    CutFsStats, Step,
    content::{BLOCK, Content},
    names::{Names, ROOT},
};

pub(super) type Outcome<T> = Result<T, Errno>;

pub(super) enum Kind {
    File(Content),
    Directory,
    Symlink(PathBuf),
}

pub(super) struct Inode {
    pub(super) kind: Kind,
    pub(super) mode: u32,
    pub(super) owner: (u32, u32),
    pub(super) modified: SystemTime,
    pub(super) links: u32,
    opened: u32,
}

impl Inode {
    pub(super) fn is_dir(&self) -> bool {
        matches!(self.kind, Kind::Directory)
    }

    pub(super) fn file(&mut self) -> Outcome<&mut Content> {
        match &mut self.kind {
            Kind::File(content) => Ok(content),
            Kind::Directory => Err(Errno::EISDIR),
            Kind::Symlink(_) => Err(Errno::EINVAL),
        }
    }
}

/// One line of a directory as it was when it was opened.
pub(super) struct Listed {
    pub(super) inode: u64,
    pub(super) name: OsString,
}

enum Handle {
    File(u64),
    Directory(Vec<Listed>),
}

/// What the test has ordered.
#[derive(Default)]
pub(super) struct Faults {
    pub(super) limit: Option<u64>,
    pub(super) slow: Duration,
    /// Counts down syncs.
    pub(super) fail_fsync_in: Option<u64>,
    pub(super) cut: Option<OrderedCut>,
}

pub(super) struct OrderedCut {
    pub(super) step: Step,
    pub(super) path: String,
    /// Counts down the steps that match.
    pub(super) left: u64,
}

/// What an operation is about.
#[derive(Clone, Copy)]
pub(super) enum Place<'a> {
    Inode(u64),
    Handle(u64),
    Name(u64, &'a OsStr),
}

pub(super) struct Volume {
    inodes: HashMap<u64, Inode>,
    pub(super) names: Names,
    handles: HashMap<u64, Handle>,
    next: u64,
    dice: StdRng,
    pub(super) power: bool,
    pub(super) faults: Faults,
    pub(super) stats: CutFsStats,
    used: u64,
}

fn countdown(counter: &mut Option<u64>) -> bool {
    let Some(left) = counter else { return false };
    *left = left.saturating_sub(1);
    counter.take_if(|left| *left == 0).is_some()
}

impl Volume {
    pub(super) fn new(seed: u64) -> Volume {
        let mut dice = StdRng::seed_from_u64(seed);
        let mut volume = Volume {
            inodes: HashMap::new(),
            names: Names::new(dice.random()),
            handles: HashMap::new(),
            next: ROOT,
            dice,
            power: true,
            faults: Faults::default(),
            stats: CutFsStats::default(),
            used: 0,
        };
        volume.add(
            Kind::Directory,
            0o755,
            (nix::unistd::getuid().as_raw(), nix::unistd::getgid().as_raw()),
        );
        volume
    }

    /// The volume, if it has power.
    pub(super) fn powered(&mut self) -> Outcome<&mut Volume> {
        if self.power { Ok(self) } else { Err(Errno::EIO) }
    }

    /// To be called before anything changes: this may be the moment that the test asked for.
    pub(super) fn change(&mut self, step: Step, place: Place<'_>) -> Outcome<&mut Volume> {
        self.powered()?;
        self.stats.changes += 1;
        if self.is_cut_here(step, place) {
            self.cut();
        }
        self.powered()
    }

    fn is_cut_here(&mut self, step: Step, place: Place<'_>) -> bool {
        let Some(cut) = &self.faults.cut else { return false };
        let of_kind = cut.step == step || (cut.step == Step::Change && step != Step::Fsync);
        if !of_kind || !self.path(place).contains(&cut.path) {
            return false;
        }
        let Some(cut) = &mut self.faults.cut else {
            return false;
        };
        cut.left = cut.left.saturating_sub(1);
        cut.left == 0
    }

    fn path(&self, place: Place<'_>) -> String {
        match place {
            Place::Inode(number) => self.names.path(number),
            Place::Name(dir, name) => format!("{}/{}", self.names.path(dir), name.to_string_lossy()),
            Place::Handle(handle) => match self.handles.get(&handle) {
                Some(Handle::File(number)) => self.names.path(*number),
                _ => String::new(),
            },
        }
    }

    pub(super) fn inode(&mut self, number: u64) -> Outcome<&mut Inode> {
        // Gone with the power, or never there.
        self.inodes.get_mut(&number).ok_or(Errno::ENOENT)
    }

    pub(super) fn find(&mut self, dir: u64, name: &OsStr) -> Outcome<u64> {
        self.names.get(dir, name).ok_or(Errno::ENOENT)
    }

    fn add(&mut self, kind: Kind, mode: u32, owner: (u32, u32)) -> u64 {
        let number = self.next;
        self.next += 1;
        let inode = Inode {
            kind,
            mode,
            owner,
            modified: SystemTime::now(),
            links: 1,
            opened: 0,
        };
        self.inodes.insert(number, inode);
        number
    }

    pub(super) fn create(
        &mut self,
        dir: u64,
        name: &OsStr,
        kind: Kind,
        mode: u32,
        owner: (u32, u32),
    ) -> Outcome<u64> {
        if !self.inode(dir)?.is_dir() {
            return Err(Errno::ENOTDIR);
        }
        if self.names.get(dir, name).is_some() {
            return Err(Errno::EEXIST);
        }
        self.check_room(BLOCK as u64)?;
        let number = self.add(kind, mode, owner);
        self.names.link(dir, name, number);
        Ok(number)
    }

    pub(super) fn link(&mut self, number: u64, dir: u64, name: &OsStr) -> Outcome<()> {
        if self.names.get(dir, name).is_some() {
            return Err(Errno::EEXIST);
        }
        let inode = self.inode(number)?;
        if inode.is_dir() {
            return Err(Errno::EPERM);
        }
        inode.links += 1;
        self.names.link(dir, name, number);
        Ok(())
    }

    /// `directory`: rmdir, else unlink.
    pub(super) fn remove(&mut self, dir: u64, name: &OsStr, directory: bool) -> Outcome<()> {
        let number = self.find(dir, name)?;
        match (self.inode(number)?.is_dir(), directory) {
            (true, false) => return Err(Errno::EISDIR),
            (false, true) => return Err(Errno::ENOTDIR),
            (true, true) if !self.names.is_empty(number) => return Err(Errno::ENOTEMPTY),
            _ => {}
        }
        self.names.unlink(dir, name);
        self.unname(number);
        Ok(())
    }

    pub(super) fn rename(&mut self, from: (u64, &OsStr), to: (u64, &OsStr), replace: bool) -> Outcome<()> {
        let number = self.find(from.0, from.1)?;
        let is_dir = self.inode(number)?.is_dir();
        if let Ok(other) = self.find(to.0, to.1) {
            if other == number {
                return Ok(());
            }
            if !replace {
                return Err(Errno::EEXIST);
            }
            match (is_dir, self.inode(other)?.is_dir()) {
                (false, true) => return Err(Errno::EISDIR),
                (true, false) => return Err(Errno::ENOTDIR),
                (true, true) if !self.names.is_empty(other) => return Err(Errno::ENOTEMPTY),
                _ => {}
            }
            self.unname(other);
        }
        self.names.rename(from, to, number);
        Ok(())
    }

    /// The content stays: the durable state may still have a name for it.
    fn unname(&mut self, number: u64) {
        if let Some(inode) = self.inodes.get_mut(&number) {
            inode.links -= 1;
            if inode.links == 0
                && let Kind::File(content) = &inode.kind
            {
                self.used -= content.used();
            }
        }
    }

    pub(super) fn open(&mut self, number: u64) -> Outcome<u64> {
        self.inode(number)?.opened += 1;
        Ok(self.handle(Handle::File(number)))
    }

    pub(super) fn open_directory(&mut self, number: u64) -> Outcome<u64> {
        if !self.inode(number)?.is_dir() {
            return Err(Errno::ENOTDIR);
        }
        let mut listed = vec![
            Listed {
                inode: number,
                name: ".".into(),
            },
            Listed {
                inode: self.names.parent(number),
                name: "..".into(),
            },
        ];
        listed.extend(self.names.list(number).map(|(name, inode)| Listed {
            inode,
            name: name.clone(),
        }));
        Ok(self.handle(Handle::Directory(listed)))
    }

    fn handle(&mut self, handle: Handle) -> u64 {
        self.next += 1;
        self.handles.insert(self.next, handle);
        self.next
    }

    pub(super) fn listing(&self, handle: u64) -> Outcome<&[Listed]> {
        match self.handles.get(&handle) {
            Some(Handle::Directory(listed)) => Ok(listed),
            _ => Err(Errno::EIO),
        }
    }

    pub(super) fn find_inode(&self, number: u64) -> Option<&Inode> {
        self.inodes.get(&number)
    }

    /// A handle from before a cut is dead.
    pub(super) fn opened(&mut self, handle: u64) -> Outcome<&mut Inode> {
        match self.handles.get(&handle) {
            Some(Handle::File(number)) => self.inodes.get_mut(number).ok_or(Errno::EIO),
            _ => Err(Errno::EIO),
        }
    }

    pub(super) fn release(&mut self, handle: u64) {
        if let Some(Handle::File(number)) = self.handles.remove(&handle)
            && let Some(inode) = self.inodes.get_mut(&number)
        {
            inode.opened -= 1;
        }
    }

    pub(super) fn used(&self) -> u64 {
        self.used
    }

    fn check_room(&mut self, more: u64) -> Outcome<()> {
        match self.faults.limit {
            Some(limit) if more > 0 && self.used + more > limit => {
                self.stats.refused += 1;
                Err(Errno::ENOSPC)
            }
            _ => Ok(()),
        }
    }

    pub(super) fn write(&mut self, handle: u64, offset: u64, bytes: &[u8]) -> Outcome<()> {
        let content = self.opened(handle)?.file()?;
        let more = content.would_use(offset, bytes.len());
        self.check_room(more)?;
        let write_back = self.dice.random_ratio(1, 16);
        let inode = self.opened(handle)?;
        inode.modified = SystemTime::now();
        let counts = inode.links > 0;
        let content = inode.file()?;
        let before = content.used();
        content.write(offset, bytes);
        let added = content.used() - before;
        self.used += if counts { added } else { 0 };
        self.stats.writes += 1;
        self.stats.written_bytes += bytes.len() as u64;
        if write_back {
            let mut dice = StdRng::seed_from_u64(self.dice.random());
            self.opened(handle)?.file()?.write_back(&mut dice);
        }
        Ok(())
    }

    pub(super) fn set_len(&mut self, number: u64, len: u64) -> Outcome<()> {
        let inode = self.inode(number)?;
        inode.modified = SystemTime::now();
        let counts = inode.links > 0;
        let content = inode.file()?;
        let before = content.used();
        content.set_len(len);
        let freed = before - content.used();
        self.used -= if counts { freed } else { 0 };
        Ok(())
    }

    /// A sync is about to take effect. It may fail, or meet the cut: before its effect or right after it.
    fn sync(&mut self, number: u64, effect: impl FnOnce(&mut Volume, bool)) -> Outcome<()> {
        self.powered()?;
        self.stats.fsyncs += 1;
        let cut = self.is_cut_here(Step::Fsync, Place::Inode(number));
        if cut && self.dice.random() {
            self.cut();
            return Err(Errno::EIO);
        }
        let fails = countdown(&mut self.faults.fail_fsync_in);
        self.stats.failed_fsyncs += u64::from(fails);
        effect(self, fails);
        if cut {
            self.cut();
        }
        if cut || fails { Err(Errno::EIO) } else { Ok(()) }
    }

    pub(super) fn sync_file(&mut self, handle: u64) -> Outcome<()> {
        self.powered()?;
        let Some(Handle::File(number)) = self.handles.get(&handle) else {
            return Err(Errno::EIO);
        };
        let number = *number;
        self.sync(number, |volume, fails| {
            let Some(Inode {
                kind: Kind::File(content),
                ..
            }) = volume.inodes.get_mut(&number)
            else {
                return;
            };
            if fails {
                content.fail_sync();
            } else {
                content.sync();
                volume.names.sync_file(number);
            }
        })
    }

    pub(super) fn sync_directory(&mut self, number: u64) -> Outcome<()> {
        self.sync(number, |volume, fails| {
            if !fails {
                volume.names.sync_directory(number);
            }
        })
    }

    /// Nothing is served until `restore`; what is not durable is gone.
    pub(super) fn cut(&mut self) {
        if !self.power {
            return;
        }
        self.power = false;
        self.stats.cuts += 1;
        self.faults.cut = None;
        self.handles.clear();
        let named = self.names.cut(&mut self.dice);
        self.inodes.retain(|number, _| named.contains_key(number));
        let mut numbers: Vec<u64> = self.inodes.keys().copied().collect();
        numbers.sort_unstable();
        self.used = 0;
        for number in numbers {
            let Some(inode) = self.inodes.get_mut(&number) else {
                continue;
            };
            (inode.links, inode.opened) = (named[&number], 0);
            if let Kind::File(content) = &mut inode.kind {
                content.cut(&mut self.dice);
                self.used += content.used();
            }
        }
    }

    /// Forgets inodes that nothing refers to any more.
    pub(super) fn sweep(&mut self) {
        let durable = self.names.durably_named();
        self.inodes
            .retain(|number, inode| inode.links > 0 || inode.opened > 0 || durable.contains(number));
    }
}
