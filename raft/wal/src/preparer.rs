//! Keeps the next segment ready: created, filled with zeroes, synced and named before the writer needs it.
//!
//! Blocks that are allocated and written make a later fdatasync cheap, and a full disk shows here, where
//! nothing is lost yet. Segments that were purged are used again.

use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use parking_lot::{Condvar, Mutex, MutexGuard};

use crate::{
    files::Files,
    segment::{self, Segment},
    state::Retired,
};

/// A segment in the making.
pub(crate) const NEW_NAME: &str = "new.tmp";
/// Purged segments kept for use again; more are removed.
const MAX_SPARES: usize = 1;
/// Zeroes are written and synced in steps, so that the writer's syncs never wait for a whole segment of them.
const ZERO_STEP: usize = 512 << 10;

pub(crate) struct Preparer {
    dir: PathBuf,
    files: Arc<dyn Files>,
    segment_bytes: u64,
    /// There is no thread for it: what is asked for is done when it is waited for.
    driven: bool,
    desk: Mutex<Desk>,
    changed: Condvar,
}

struct Desk {
    wanted: Option<u64>,
    making: bool,
    ready: Option<io::Result<Arc<Segment>>>,
    retired: Retired,
    spares: Vec<PathBuf>,
    bytes_on_disk: u64,
    /// After this nothing more is prepared.
    stopped: bool,
}

pub(crate) fn spawn(preparer: Arc<Preparer>) -> io::Result<std::thread::JoinHandle<()>> {
    std::thread::Builder::new()
        .name("wal-preparer".into())
        .spawn(move || preparer.run())
}

impl Preparer {
    /// `segments`: total length of the segments found.
    pub(crate) fn new(
        dir: &Path,
        files: Arc<dyn Files>,
        segment_bytes: u64,
        spares: Vec<PathBuf>,
        segments: u64,
        driven: bool,
    ) -> Self {
        let bytes_on_disk = segments + spares.len() as u64 * segment_bytes;
        let desk = Desk {
            wanted: None,
            making: false,
            ready: None,
            retired: Vec::new(),
            spares,
            bytes_on_disk,
            stopped: false,
        };
        Preparer {
            dir: dir.into(),
            files,
            segment_bytes,
            driven,
            desk: Mutex::new(desk),
            changed: Condvar::new(),
        }
    }

    /// Bytes on disk, and whether there was no room for the next segment.
    pub(crate) fn space(&self) -> (u64, bool) {
        let desk = self.desk.lock();
        (desk.bytes_on_disk, desk.is_out_of_space())
    }

    /// Makes a new log's first segment while the caller waits.
    pub(crate) fn first_segment(&self) -> io::Result<Arc<Segment>> {
        self.prepare(1)
    }

    /// Says which segment is needed next; it may have been found ready.
    pub(crate) fn expect(&self, seq: u64, ready: Option<Arc<Segment>>) {
        let mut desk = self.desk.lock();
        match ready {
            Some(segment) => desk.ready = Some(Ok(segment)),
            None => desk.wanted = Some(seq),
        }
        self.changed.notify_all();
    }

    /// The next segment; waits for it. When the disk was full it is tried once more: there may be room now.
    pub(crate) fn take(&self, seq: u64) -> io::Result<Arc<Segment>> {
        let mut desk = self.desk.lock();
        if desk.is_out_of_space() {
            desk.ready = None;
        }
        loop {
            if let Some(ready) = desk.ready.take() {
                return ready;
            }
            if desk.stopped {
                return Err(io::Error::other("the log's next segment is not made any more"));
            }
            if !desk.making && desk.wanted.is_none() {
                desk.wanted = Some(seq);
                self.changed.notify_all();
            }
            if self.driven {
                MutexGuard::unlocked(&mut desk, || self.work());
            } else {
                self.changed.wait(&mut desk);
            }
        }
    }

    /// Segments that hold nothing any more, oldest first.
    pub(crate) fn retire(&self, segments: Retired) {
        if !segments.is_empty() {
            self.desk.lock().retired.extend(segments);
            self.changed.notify_all();
        }
    }

    pub(crate) fn stop(&self) {
        self.desk.lock().stopped = true;
        self.changed.notify_all();
    }

    fn run(&self) {
        let stop_on_panic = StopOnDrop(self);
        while let Some(task) = self.next_task() {
            if !self.carry_out(task) {
                break;
            }
        }
        drop(stop_on_panic);
    }

    /// Does what is asked for, on the caller's thread.
    pub(crate) fn work(&self) {
        loop {
            let Some(task) = self.desk.lock().take_task() else {
                return;
            };
            if !self.carry_out(task) {
                return self.stop();
            }
        }
    }

    /// `false`: nothing more may be prepared.
    fn carry_out(&self, task: Task) -> bool {
        match task {
            Task::Retire(segments) => {
                if let Err(error) = self.recycle(segments) {
                    // Names that may come back after a crash would look like damage: nothing more may follow.
                    tracing::error!("a purged segment of the raft log could not be removed: {error}");
                    self.desk.lock().ready = Some(Err(error));
                    return false;
                }
            }
            Task::Prepare(seq) => {
                let ready = self.prepare(seq);
                if let Err(error) = &ready {
                    tracing::warn!("the raft log's next segment could not be made: {error}");
                }
                let mut desk = self.desk.lock();
                (desk.ready, desk.making) = (Some(ready), false);
                self.changed.notify_all();
            }
        }
        true
    }

    fn next_task(&self) -> Option<Task> {
        let mut desk = self.desk.lock();
        loop {
            if desk.stopped {
                return None;
            }
            if let Some(task) = desk.take_task() {
                return Some(task);
            }
            self.changed.wait(&mut desk);
        }
    }

    /// One after the other, each made durable before the next: a crash leaves no gap between segments.
    fn recycle(&self, segments: Retired) -> io::Result<()> {
        for segment in segments {
            let keep = self.desk.lock().spares.len() < MAX_SPARES && segment.len == self.segment_bytes;
            if keep {
                let spare = segment::spare_path(&self.dir, segment.seq);
                self.files.rename(&segment.path, &spare)?;
                self.files.sync_dir(&self.dir)?;
                self.desk.lock().spares.push(spare);
            } else {
                self.files.remove(&segment.path)?;
                self.files.sync_dir(&self.dir)?;
                self.desk.lock().bytes_on_disk -= segment.len;
            }
        }
        Ok(())
    }

    fn prepare(&self, seq: u64) -> io::Result<Arc<Segment>> {
        let spare = self.desk.lock().spares.pop();
        let path = segment::path(&self.dir, seq);
        let file = match &spare {
            Some(spare) => {
                let file = self.files.open(spare, false)?;
                file.write_all_at(&segment::header_block(seq, self.segment_bytes, false), 0)?;
                file.sync()?;
                self.files.rename(spare, &path)?;
                file
            }
            None => self.create(seq, &path)?,
        };
        self.files.sync_dir(&self.dir)?;
        Ok(Arc::new(Segment {
            seq,
            len: self.segment_bytes,
            zeroed: spare.is_none(),
            path,
            file,
        }))
    }

    fn create(&self, seq: u64, path: &Path) -> io::Result<Box<dyn crate::files::File>> {
        let new = self.dir.join(NEW_NAME);
        let file = self.files.open(&new, true)?;
        if let Err(error) = self.fill(file.as_ref(), seq) {
            drop(file);
            // Gives the space back; what went wrong is the first error.
            let _ = self.files.remove(&new);
            return Err(segment::at(path, 0, error));
        }
        self.files.rename(&new, path)?;
        self.desk.lock().bytes_on_disk += self.segment_bytes;
        Ok(file)
    }

    fn fill(&self, file: &dyn crate::files::File, seq: u64) -> io::Result<()> {
        let zeroes = vec![0u8; ZERO_STEP.min(self.segment_bytes as usize)];
        file.write_all_at(&segment::header_block(seq, self.segment_bytes, true), 0)?;
        let mut offset = segment::HEADER_BYTES;
        while offset < self.segment_bytes {
            if self.desk.lock().stopped {
                return Err(io::Error::other("the log is closed"));
            }
            let step = (self.segment_bytes - offset).min(zeroes.len() as u64);
            file.write_all_at(&zeroes[..step as usize], offset)?;
            file.sync()?;
            offset += step;
        }
        Ok(())
    }
}

impl Desk {
    fn take_task(&mut self) -> Option<Task> {
        // First, since it may give the file that the next segment is made of.
        if !self.retired.is_empty() {
            return Some(Task::Retire(std::mem::take(&mut self.retired)));
        }
        let seq = self.wanted.take()?;
        self.making = true;
        Some(Task::Prepare(seq))
    }

    fn is_out_of_space(&self) -> bool {
        matches!(&self.ready, Some(Err(error)) if error.kind() == io::ErrorKind::StorageFull)
    }
}

enum Task {
    Retire(Retired),
    Prepare(u64),
}

struct StopOnDrop<'a>(&'a Preparer);

impl Drop for StopOnDrop<'_> {
    fn drop(&mut self) {
        self.0.stop();
    }
}
