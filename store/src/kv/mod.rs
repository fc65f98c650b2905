//! The ordered-KV seam below MVCC: get, iterate, batch, view, checkpoint, flush.
//!
//! [`Engine`] is a set of ordered maps (one per [`Family`]) that are written by atomic [`Batch`]es and read
//! through [`View`]s. [`rocks`] implements it on RocksDB, [`memory`] for tests and simulation. Nothing here
//! knows what the bytes mean.

mod exit;
mod manifest;
pub mod memory;
pub mod rocks;
mod verify;

use std::{path::Path, sync::Arc};

use bytes::Bytes;

use crate::StoreError;

pub use verify::OnProgress;

/// A column family: an ordered map of its own inside the database.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Family {
    /// The newest version of every live key, and of deleted ones that `Ended` names until they are moved.
    Cur,
    /// Superseded versions.
    Hist,
    /// Every change in revision order.
    Log,
    /// Index terms of live keys.
    Idx,
    Lease,
    /// Which keys are attached to a lease.
    LeaseKey,
    Meta,
    /// Which rows of `Cur` a deletion has ended.
    Ended,
}

impl Family {
    pub const ALL: [Family; 8] = [
        Family::Cur,
        Family::Hist,
        Family::Log,
        Family::Idx,
        Family::Lease,
        Family::LeaseKey,
        Family::Meta,
        Family::Ended,
    ];

    pub fn name(self) -> &'static str {
        match self {
            Family::Cur => "cur",
            Family::Hist => "hist",
            Family::Log => "log",
            Family::Idx => "idx",
            Family::Lease => "lease",
            Family::LeaseKey => "leasekey",
            Family::Meta => "meta",
            Family::Ended => "ended",
        }
    }

    pub(crate) fn index(self) -> usize {
        self as usize
    }
}

/// Writes that become visible, and durable, all together or not at all.
#[derive(Debug, Default)]
pub struct Batch {
    /// `None` deletes. A later operation on the same key wins.
    pub rows: Vec<(Family, Bytes, Option<Bytes>)>,
}

impl Batch {
    pub fn put(&mut self, family: Family, key: Bytes, value: Bytes) {
        self.rows.push((family, key, Some(value)));
    }

    pub fn delete(&mut self, family: Family, key: Bytes) {
        self.rows.push((family, key, None));
    }
}

/// Rows `start <= key < end`.
#[derive(Debug, Clone, Copy)]
pub struct Bounds<'a> {
    pub start: &'a [u8],
    /// `None`: no upper bound.
    pub end: Option<&'a [u8]>,
}

impl<'a> Bounds<'a> {
    pub const ALL: Bounds<'static> = Bounds {
        start: &[],
        end: None,
    };

    pub fn new(start: &'a [u8], end: Option<&'a [u8]>) -> Self {
        Self { start, end }
    }

    /// No row can be inside.
    pub fn is_empty(&self) -> bool {
        self.end.is_some_and(|end| end <= self.start)
    }
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct EngineSizes {
    /// Bytes on disk.
    pub total_bytes: u64,
    /// Bytes of rows that are not overwritten or deleted, estimated.
    pub live_bytes: u64,
}

/// A database of ordered maps. One writer, any number of readers.
pub trait Engine: Send + Sync {
    /// Atomic and visible when it returns; durable after the next [`Self::flush`].
    fn write(&self, batch: Batch) -> Result<(), StoreError>;

    /// Everything as it is now, whatever is written later.
    fn view(&self) -> Arc<dyn View>;

    /// Makes everything written so far durable.
    fn flush(&self) -> Result<(), StoreError>;

    /// Gives back the space of what is overwritten or deleted; may take long, and delays neither reads nor writes.
    fn defragment(&self) -> Result<(), StoreError>;

    /// Writes a durable, self-contained copy of everything into `dir`, which must not exist.
    fn checkpoint(&self, dir: &Path) -> Result<(), StoreError>;

    /// What is in a copy that [`Self::checkpoint`] wrote, without changing it.
    fn open_checkpoint(&self, dir: &Path) -> Result<Arc<dyn View>, StoreError>;

    /// Reads everything once, from the disk and not from a cache, and compares every block's checksum:
    /// [`StoreError::Corrupt`] names the damaged file. See [`OnProgress`] for its pace. Writes go on meanwhile; what was
    /// not flushed yet is in no file and not looked at.
    fn verify(&self, on_progress: OnProgress<'_>) -> Result<(), StoreError> {
        verify::walk(&*self.view(), on_progress)
    }

    /// The same of a copy that [`Self::checkpoint`] wrote, here or on another member.
    fn verify_copy(&self, dir: &Path, on_progress: OnProgress<'_>) -> Result<(), StoreError> {
        verify::walk(&*self.open_checkpoint(dir)?, on_progress)
    }

    /// Takes the copy in `dir` over as a database of its own beside this one: durable, but not the current one.
    fn stage(&self, dir: &Path) -> Result<Arc<dyn Engine>, StoreError>;

    /// Makes this database the one that is found at the next start. After an error either may be found, so both must
    /// stay: whichever it is not is a leftover then.
    fn make_current(&self) -> Result<(), StoreError>;

    /// Removes what interrupted starts and installs left beside this database. Not before it is known that the log has
    /// all that this one lacks: until then a leftover may be all that there is of the data.
    fn clear_leftovers(&self) -> Result<(), StoreError> {
        Ok(())
    }

    /// Lets this database's files go as soon as nobody reads them any more.
    fn retire(&self);

    fn sizes(&self) -> EngineSizes;
}

/// A consistent picture of all families.
pub trait View: Send + Sync {
    fn get(&self, family: Family, key: &[u8]) -> Result<Option<Bytes>, StoreError>;

    /// As many answers as keys, in their order.
    fn multi_get(&self, family: Family, keys: &[Bytes]) -> Result<Vec<Option<Bytes>>, StoreError> {
        keys.iter().map(|key| self.get(family, key)).collect()
    }

    /// The last row with `start <= key <= last`.
    fn floor(&self, family: Family, start: &[u8], last: &[u8]) -> Result<Option<(Bytes, Bytes)>, StoreError>;

    /// Stands at the first row inside the bounds.
    fn cursor<'a>(&'a self, family: Family, bounds: Bounds<'_>) -> Result<Box<dyn Cursor + 'a>, StoreError>;
}

/// Walks rows upwards.
pub trait Cursor {
    /// The row it stands at; `None` at the end.
    fn row(&self) -> Option<(&[u8], &[u8])>;

    fn advance(&mut self) -> Result<(), StoreError>;

    /// To the first row at or above `key`; never backwards.
    fn seek(&mut self, key: &[u8]) -> Result<(), StoreError>;
}
