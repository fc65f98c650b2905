//! Reads of the keyspace over any view: a published one, or apply's own overlay.
//!
//! [`Keyspace`] is what both readers and apply read through; one file per kind of read. It never writes.

mod count;
mod get;
mod hash_kv;
mod history;
mod index;
mod range;
mod scan;

pub use hash_kv::HashKv;
pub use history::delete_event;
pub use range::check_sort;

use crate::{
    KeyRange, ReadError, Revision,
    counts::Counts,
    kv::{Bounds, View},
    live::Live,
};

#[derive(Clone, Copy)]
pub struct Keyspace<'a> {
    pub view: &'a dyn View,
    /// Whether deletions have left rows in `cur`: see [`Live`].
    pub any_ended: bool,
    pub counts: &'a Counts,
    /// The newest revision in the view.
    pub revision: i64,
    /// The newest revision that may be asked for by number: less than `revision` while a txn is under way.
    pub committed: i64,
    pub compact_revision: i64,
}

/// The revision that a read is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum At {
    /// The newest: what is live in `cur` answers.
    Head,
    Past(i64),
}

impl<'a> Keyspace<'a> {
    pub fn live(&self) -> Live<'a> {
        Live {
            view: self.view,
            any_ended: self.any_ended,
        }
    }

    /// Contract lines 1 and 4: 0 or less is the head, the compact revision itself is readable.
    pub fn resolve(&self, revision: Revision) -> Result<At, ReadError> {
        if revision.0 > self.committed {
            return Err(ReadError::FutureRevision);
        }
        if revision.0 <= 0 || revision.0 == self.revision {
            return Ok(At::Head);
        }
        self.check_retained(revision)?;
        Ok(At::Past(revision.0))
    }

    fn check_retained(&self, revision: Revision) -> Result<(), ReadError> {
        if revision.0 < self.compact_revision {
            return Err(ReadError::Compacted {
                compact_revision: Revision(self.compact_revision),
            });
        }
        Ok(())
    }
}

fn bounds(range: &KeyRange) -> Bounds<'_> {
    Bounds::new(&range.start, range.end.as_deref())
}
