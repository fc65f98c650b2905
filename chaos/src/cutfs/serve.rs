//! FUSE's requests, each answered from the volume under its lock.
//!
//! Nothing is cached by the kernel: names and attributes live for no time, and files are opened for direct I/O, so
//! that a write has reached the volume when `write` returns, whatever happens to the process then.

use std::{
    ffi::OsStr,
    path::Path,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    time::{Duration, SystemTime},
};

use fuser::{
    BsdFileFlags, Errno, FileAttr, FileHandle, FileType, Filesystem, FopenFlags, Generation, INodeNo,
    LockOwner, OpenFlags, RenameFlags, ReplyAttr, ReplyCreate, ReplyData, ReplyDirectory, ReplyEmpty,
    ReplyEntry, ReplyOpen, ReplyStatfs, ReplyWrite, Request, TimeOrNow, WriteFlags,
};

use super::{
    Step,
    content::{BLOCK, Content},
    volume::{Inode, Kind, Outcome, Place, Volume},
};

const NOW: Duration = Duration::ZERO;
const NEVER_REUSED: Generation = Generation(0);
/// What a volume without a limit says it has room for.
const ROOM: u64 = 64 << 30;

/// The volume, and what waits for its power to go.
pub(super) struct Shared {
    volume: Mutex<Volume>,
    went_off: Condvar,
}

/// The lock; whoever lets go of a volume without power tells those who wait for that.
pub(super) struct Held<'a> {
    volume: MutexGuard<'a, Volume>,
    went_off: &'a Condvar,
}

impl std::ops::Deref for Held<'_> {
    type Target = Volume;
    fn deref(&self) -> &Volume {
        &self.volume
    }
}

impl std::ops::DerefMut for Held<'_> {
    fn deref_mut(&mut self) -> &mut Volume {
        &mut self.volume
    }
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        if !self.volume.power {
            self.went_off.notify_all();
        }
    }
}

impl Shared {
    pub(super) fn new(volume: Volume) -> Shared {
        Shared {
            volume: Mutex::new(volume),
            went_off: Condvar::new(),
        }
    }

    pub(super) fn lock(&self) -> Held<'_> {
        let volume = self.volume.lock().unwrap_or_else(PoisonError::into_inner);
        Held {
            volume,
            went_off: &self.went_off,
        }
    }

    /// Until the power is off, or this long.
    pub(super) fn wait_off(&self, timeout: Duration) -> bool {
        let volume = self.volume.lock().unwrap_or_else(PoisonError::into_inner);
        let waited = self
            .went_off
            .wait_timeout_while(volume, timeout, |volume| volume.power);
        !waited.unwrap_or_else(PoisonError::into_inner).1.timed_out()
    }
}

pub(super) struct Server(pub(super) Arc<Shared>);

fn kind_of(inode: &Inode) -> FileType {
    match inode.kind {
        Kind::File(_) => FileType::RegularFile,
        Kind::Directory => FileType::Directory,
        Kind::Symlink(_) => FileType::Symlink,
    }
}

fn attributes(number: u64, inode: &Inode) -> FileAttr {
    let (size, used) = match &inode.kind {
        Kind::File(content) => (content.len(), content.used()),
        Kind::Directory => (BLOCK as u64, BLOCK as u64),
        Kind::Symlink(target) => (target.as_os_str().len() as u64, 0),
    };
    FileAttr {
        ino: INodeNo(number),
        size,
        blocks: used / 512,
        atime: inode.modified,
        mtime: inode.modified,
        ctime: inode.modified,
        crtime: inode.modified,
        kind: kind_of(inode),
        perm: (inode.mode & 0o7777) as u16,
        nlink: if inode.is_dir() { 2 } else { inode.links },
        uid: inode.owner.0,
        gid: inode.owner.1,
        rdev: 0,
        blksize: BLOCK as u32,
        flags: 0,
    }
}

fn answer_entry(outcome: Outcome<FileAttr>, reply: ReplyEntry) {
    match outcome {
        Ok(attributes) => reply.entry(&NOW, &attributes, NEVER_REUSED),
        Err(errno) => reply.error(errno),
    }
}

fn answer(outcome: Outcome<()>, reply: ReplyEmpty) {
    match outcome {
        Ok(()) => reply.ok(),
        Err(errno) => reply.error(errno),
    }
}

fn owner(request: &Request) -> (u32, u32) {
    (request.uid(), request.gid())
}

impl Server {
    fn make(
        &self,
        dir: INodeNo,
        name: &OsStr,
        kind: Kind,
        mode: u32,
        owner: (u32, u32),
    ) -> Outcome<FileAttr> {
        let mut volume = self.0.lock();
        let number = volume
            .change(Step::Create, Place::Name(dir.0, name))?
            .create(dir.0, name, kind, mode, owner)?;
        Ok(attributes(number, volume.inode(number)?))
    }

    fn attributes(&self, number: u64) -> Outcome<FileAttr> {
        let mut volume = self.0.lock();
        Ok(attributes(number, volume.powered()?.inode(number)?))
    }

    fn open(&self, number: u64, truncate: bool) -> Outcome<u64> {
        let mut volume = self.0.lock();
        volume.powered()?;
        if truncate {
            volume
                .change(Step::Change, Place::Inode(number))?
                .set_len(number, 0)?;
        }
        volume.open(number)
    }

    /// A slow disk is slow before it does anything, and others may go on meanwhile.
    fn delay(&self) {
        let mut volume = self.0.lock();
        let slow = volume.faults.slow;
        volume.stats.slowed += u64::from(!slow.is_zero());
        drop(volume);
        if !slow.is_zero() {
            std::thread::sleep(slow);
        }
    }
}

fn open_flags() -> FopenFlags {
    FopenFlags::FOPEN_DIRECT_IO | FopenFlags::FOPEN_PARALLEL_DIRECT_WRITES
}

impl Filesystem for Server {
    fn lookup(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        let mut volume = self.0.lock();
        let found = volume.powered().and_then(|volume| {
            let number = volume.find(parent.0, name)?;
            Ok(attributes(number, volume.inode(number)?))
        });
        answer_entry(found, reply);
    }

    fn getattr(&self, _: &Request, ino: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        match self.attributes(ino.0) {
            Ok(attributes) => reply.attr(&NOW, &attributes),
            Err(errno) => reply.error(errno),
        }
    }

    fn setattr(
        &self,
        _: &Request,
        ino: INodeNo,
        mode: Option<u32>,
        uid: Option<u32>,
        gid: Option<u32>,
        size: Option<u64>,
        _: Option<TimeOrNow>,
        mtime: Option<TimeOrNow>,
        _: Option<SystemTime>,
        _: Option<FileHandle>,
        _: Option<SystemTime>,
        _: Option<SystemTime>,
        _: Option<SystemTime>,
        _: Option<BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        let mut volume = self.0.lock();
        let changed = volume
            .change(Step::Change, Place::Inode(ino.0))
            .and_then(|volume| {
                if let Some(size) = size {
                    volume.set_len(ino.0, size)?;
                }
                let inode = volume.inode(ino.0)?;
                inode.mode = mode.unwrap_or(inode.mode);
                inode.owner = (uid.unwrap_or(inode.owner.0), gid.unwrap_or(inode.owner.1));
                inode.modified = match mtime {
                    Some(TimeOrNow::SpecificTime(time)) => time,
                    Some(TimeOrNow::Now) => SystemTime::now(),
                    None => inode.modified,
                };
                Ok(attributes(ino.0, inode))
            });
        match changed {
            Ok(attributes) => reply.attr(&NOW, &attributes),
            Err(errno) => reply.error(errno),
        }
    }

    fn readlink(&self, _: &Request, ino: INodeNo, reply: ReplyData) {
        let mut volume = self.0.lock();
        match volume.powered().and_then(|volume| volume.inode(ino.0)) {
            Ok(Inode {
                kind: Kind::Symlink(target),
                ..
            }) => reply.data(target.as_os_str().as_encoded_bytes()),
            Ok(_) => reply.error(Errno::EINVAL),
            Err(errno) => reply.error(errno),
        }
    }

    fn mknod(
        &self,
        request: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        umask: u32,
        _: u32,
        reply: ReplyEntry,
    ) {
        if mode & libc::S_IFMT != libc::S_IFREG {
            return reply.error(Errno::EPERM);
        }
        let made = self.make(
            parent,
            name,
            Kind::File(Content::default()),
            mode & !umask,
            owner(request),
        );
        answer_entry(made, reply);
    }

    fn mkdir(
        &self,
        request: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        umask: u32,
        reply: ReplyEntry,
    ) {
        answer_entry(
            self.make(parent, name, Kind::Directory, mode & !umask, owner(request)),
            reply,
        );
    }

    fn symlink(&self, request: &Request, parent: INodeNo, name: &OsStr, target: &Path, reply: ReplyEntry) {
        answer_entry(
            self.make(parent, name, Kind::Symlink(target.into()), 0o777, owner(request)),
            reply,
        );
    }

    fn unlink(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let mut volume = self.0.lock();
        answer(
            volume
                .change(Step::Remove, Place::Name(parent.0, name))
                .and_then(|volume| volume.remove(parent.0, name, false)),
            reply,
        );
    }

    fn rmdir(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let mut volume = self.0.lock();
        answer(
            volume
                .change(Step::Remove, Place::Name(parent.0, name))
                .and_then(|volume| volume.remove(parent.0, name, true)),
            reply,
        );
    }

    fn rename(
        &self,
        _: &Request,
        parent: INodeNo,
        name: &OsStr,
        newparent: INodeNo,
        newname: &OsStr,
        flags: RenameFlags,
        reply: ReplyEmpty,
    ) {
        if !(flags - RenameFlags::RENAME_NOREPLACE).is_empty() {
            return reply.error(Errno::EINVAL);
        }
        let replace = !flags.contains(RenameFlags::RENAME_NOREPLACE);
        let mut volume = self.0.lock();
        let (from, to) = ((parent.0, name), (newparent.0, newname));
        answer(
            volume
                .change(Step::Rename, Place::Name(newparent.0, newname))
                .and_then(|volume| volume.rename(from, to, replace)),
            reply,
        );
    }

    fn link(&self, _: &Request, ino: INodeNo, newparent: INodeNo, newname: &OsStr, reply: ReplyEntry) {
        let mut volume = self.0.lock();
        let linked = volume
            .change(Step::Create, Place::Name(newparent.0, newname))
            .and_then(|volume| {
                volume.link(ino.0, newparent.0, newname)?;
                Ok(attributes(ino.0, volume.inode(ino.0)?))
            });
        answer_entry(linked, reply);
    }

    fn open(&self, _: &Request, ino: INodeNo, flags: OpenFlags, reply: ReplyOpen) {
        match self.open(ino.0, flags.0 & libc::O_TRUNC != 0) {
            Ok(handle) => reply.opened(FileHandle(handle), open_flags()),
            Err(errno) => reply.error(errno),
        }
    }

    fn create(
        &self,
        request: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        umask: u32,
        flags: i32,
        reply: ReplyCreate,
    ) {
        let mut volume = self.0.lock();
        let created = volume
            .change(Step::Create, Place::Name(parent.0, name))
            .and_then(|volume| {
                let kind = Kind::File(Content::default());
                let number = match volume.find(parent.0, name) {
                    Ok(_) if flags & libc::O_EXCL != 0 => return Err(Errno::EEXIST),
                    Ok(number) => number,
                    Err(_) => volume.create(parent.0, name, kind, mode & !umask, owner(request))?,
                };
                if flags & libc::O_TRUNC != 0 {
                    volume.set_len(number, 0)?;
                }
                Ok((volume.open(number)?, attributes(number, volume.inode(number)?)))
            });
        match created {
            Ok((handle, attributes)) => {
                reply.created(&NOW, &attributes, NEVER_REUSED, FileHandle(handle), open_flags());
            }
            Err(errno) => reply.error(errno),
        }
    }

    fn read(
        &self,
        _: &Request,
        _: INodeNo,
        fh: FileHandle,
        offset: u64,
        size: u32,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyData,
    ) {
        let mut volume = self.0.lock();
        let read = volume
            .powered()
            .and_then(|volume| Ok(volume.opened(fh.0)?.file()?.read(offset, size as usize)));
        drop(volume);
        match read {
            Ok(bytes) => reply.data(&bytes),
            Err(errno) => reply.error(errno),
        }
    }

    fn write(
        &self,
        _: &Request,
        _: INodeNo,
        fh: FileHandle,
        offset: u64,
        data: &[u8],
        _: WriteFlags,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        let mut volume = self.0.lock();
        let written = volume
            .change(Step::Write, Place::Handle(fh.0))
            .and_then(|volume| volume.write(fh.0, offset, data));
        drop(volume);
        match written {
            Ok(()) => reply.written(data.len() as u32),
            Err(errno) => reply.error(errno),
        }
    }

    fn flush(&self, _: &Request, _: INodeNo, _: FileHandle, _: LockOwner, reply: ReplyEmpty) {
        answer(self.0.lock().powered().map(|_| ()), reply);
    }

    fn release(
        &self,
        _: &Request,
        _: INodeNo,
        fh: FileHandle,
        _: OpenFlags,
        _: Option<LockOwner>,
        _: bool,
        reply: ReplyEmpty,
    ) {
        self.0.lock().release(fh.0);
        reply.ok();
    }

    fn fsync(&self, _: &Request, _: INodeNo, fh: FileHandle, _: bool, reply: ReplyEmpty) {
        self.delay();
        let outcome = self.0.lock().sync_file(fh.0);
        answer(outcome, reply);
    }

    fn opendir(&self, _: &Request, ino: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        let mut volume = self.0.lock();
        match volume.powered().and_then(|volume| volume.open_directory(ino.0)) {
            Ok(handle) => reply.opened(FileHandle(handle), FopenFlags::empty()),
            Err(errno) => reply.error(errno),
        }
    }

    fn readdir(&self, _: &Request, _: INodeNo, fh: FileHandle, offset: u64, mut reply: ReplyDirectory) {
        let mut volume = self.0.lock();
        let volume = match volume.powered() {
            Ok(volume) => volume,
            Err(errno) => return reply.error(errno),
        };
        let listed = match volume.listing(fh.0) {
            Ok(listed) => listed,
            Err(errno) => return reply.error(errno),
        };
        for (number, entry) in listed.iter().enumerate().skip(offset as usize) {
            let kind = volume
                .find_inode(entry.inode)
                .map_or(FileType::RegularFile, kind_of);
            if reply.add(INodeNo(entry.inode), number as u64 + 1, kind, &entry.name) {
                break;
            }
        }
        reply.ok();
    }

    fn releasedir(&self, _: &Request, _: INodeNo, fh: FileHandle, _: OpenFlags, reply: ReplyEmpty) {
        self.0.lock().release(fh.0);
        reply.ok();
    }

    fn fsyncdir(&self, _: &Request, ino: INodeNo, fh: FileHandle, _: bool, reply: ReplyEmpty) {
        self.delay();
        let mut volume = self.0.lock();
        let outcome = volume.powered().and_then(|volume| {
            volume.listing(fh.0)?;
            volume.sync_directory(ino.0)?;
            volume.sweep();
            Ok(())
        });
        drop(volume);
        answer(outcome, reply);
    }

    fn statfs(&self, _: &Request, _: INodeNo, reply: ReplyStatfs) {
        let mut volume = self.0.lock();
        match volume.powered() {
            Ok(volume) => {
                let total = volume.faults.limit.unwrap_or(ROOM) / BLOCK as u64;
                let free = total.saturating_sub(volume.used() / BLOCK as u64);
                reply.statfs(
                    total,
                    free,
                    free,
                    1 << 20,
                    1 << 20,
                    BLOCK as u32,
                    255,
                    BLOCK as u32,
                );
            }
            Err(errno) => reply.error(errno),
        }
    }

    fn fallocate(
        &self,
        _: &Request,
        ino: INodeNo,
        fh: FileHandle,
        offset: u64,
        length: u64,
        mode: i32,
        reply: ReplyEmpty,
    ) {
        let mut volume = self.0.lock();
        let outcome = volume
            .change(Step::Change, Place::Inode(ino.0))
            .and_then(|volume| {
                let len = volume.opened(fh.0)?.file()?.len();
                match mode {
                    0 if offset + length > len => volume.set_len(ino.0, offset + length),
                    0 | libc::FALLOC_FL_KEEP_SIZE => Ok(()),
                    _ => Err(Errno::EOPNOTSUPP),
                }
            });
        drop(volume);
        answer(outcome, reply);
    }
}
