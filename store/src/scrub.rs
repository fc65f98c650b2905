//! A slow walk over everything that one view holds: are the rows what they must be, and what do they hash to?
//!
//! The chained hash tells that members were given the same changes; it says nothing of what became of the rows since,
//! and index rows are in no hash at all. So a [`Scrub`] reads all rows of one view: each record's index terms and lease
//! must have their rows, and (by their number) there must be no others. What is derived is so checked here, and what
//! is not is hashed to be compared with other members: [`Scrubbed`].
//!
//! It goes in steps, between which whoever drives it waits, so that it takes little of the disk from others.

use bytes::Bytes;

use crate::{
    IndexTerm, LeaseId, ReadError, Reader, Revision, StoreError,
    codec::{self, LeaseRow, Record},
    keys,
    kv::{Bounds, Cursor, Family, View},
    read::HashKv,
};

/// Read in one step, about.
const STEP_BYTES: u64 = 1 << 20;
/// Faults that are named; the others are counted.
const NAMED_FAULTS: usize = 5;

/// What the rows of a member hash to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Scrubbed {
    /// The last entry applied in the view.
    pub applied: u64,
    pub revision: Revision,
    pub compact_revision: Revision,
    /// etcd's HashKV at the revision: of the history too, but not of what etcd does not know.
    pub hash_kv: u32,
    /// Of the newest records whole (with their index terms) and of the leases, as of the last entry applied.
    pub rows: u32,
}

impl Scrubbed {
    /// Whether two members differ. What was hashed at different points says nothing.
    pub fn differs(&self, other: &Self) -> bool {
        let point = |of: &Self| (of.revision, of.compact_revision);
        (point(self) == point(other) && self.hash_kv != other.hash_kv)
            || (self.applied == other.applied && self.rows != other.rows)
    }
}

/// What is walked through, in this order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Records,
    Index,
    LeaseKeys,
    Leases,
    History,
    Done,
}

pub struct Scrub {
    reader: Reader,
    revision: Revision,
    stage: Stage,
    /// Where the stage goes on.
    from: Vec<u8>,
    hash_kv: HashKv,
    rows: u32,
    bytes: u64,
    /// Index rows and keys of leases: as many as the records need, and as many as there are.
    index: Tally,
    lease_keys: Tally,
    faults: Faults,
}

#[derive(Debug, Default)]
struct Tally {
    needed: u64,
    found: u64,
}

#[derive(Debug, Default)]
struct Faults {
    named: Vec<String>,
    count: usize,
}

impl Faults {
    fn add(&mut self, fault: impl FnOnce() -> String) {
        self.count += 1;
        if self.named.len() < NAMED_FAULTS {
            self.named.push(fault());
        }
    }
}

impl Scrub {
    /// Over the view of `reader`, with the hash at `revision`.
    pub fn new(reader: Reader, revision: Revision) -> Result<Self, ReadError> {
        let hash_kv = reader.keyspace().begin_hash_kv(revision)?;
        Ok(Self {
            reader,
            revision,
            stage: Stage::Records,
            from: Vec::new(),
            hash_kv,
            rows: 0,
            bytes: 0,
            index: Tally::default(),
            lease_keys: Tally::default(),
            faults: Faults::default(),
        })
    }

    /// Bytes of rows read so far.
    pub fn bytes(&self) -> u64 {
        self.bytes + self.hash_kv.bytes
    }

    /// Reads some more; `true` while there is more to read.
    pub fn step(&mut self) -> Result<bool, StoreError> {
        let stepped = self.step_stage();
        stepped.inspect_err(|error| self.reader.note_damage(error))
    }

    fn step_stage(&mut self) -> Result<bool, StoreError> {
        let reader = self.reader.clone();
        let view = reader.keyspace().view;
        let (family, next) = match self.stage {
            Stage::Records => (Family::Cur, Stage::Index),
            Stage::Index => (Family::Idx, Stage::LeaseKeys),
            Stage::LeaseKeys => (Family::LeaseKey, Stage::Leases),
            Stage::Leases => (Family::Lease, Stage::History),
            Stage::History => {
                let more = reader.keyspace().step_hash_kv(&mut self.hash_kv, STEP_BYTES)?;
                if !more {
                    self.stage = Stage::Done;
                }
                return Ok(more);
            }
            Stage::Done => return Ok(false),
        };
        let from = std::mem::take(&mut self.from);
        let rows = Bounds::new(&from, None);
        // What is ended and not moved yet lies in `cur` on this member, and on others not any more.
        let mut cursor = match family {
            Family::Cur => reader.keyspace().live().cursor(rows)?,
            _ => view.cursor(family, rows)?,
        };
        if self.walk(view, family, &mut *cursor)? {
            self.stage = next;
        }
        Ok(true)
    }

    /// Reads one step's rows; `true` at the family's end.
    fn walk(&mut self, view: &dyn View, family: Family, cursor: &mut dyn Cursor) -> Result<bool, StoreError> {
        let enough = self.bytes + STEP_BYTES;
        while let Some((key, row)) = cursor.row() {
            if self.bytes >= enough {
                self.from = key.to_vec();
                return Ok(false);
            }
            self.bytes += (key.len() + row.len()) as u64;
            match family {
                Family::Cur => self.record(view, key, row)?,
                Family::Idx => self.index.found += 1,
                Family::LeaseKey => self.lease_keys.found += 1,
                _ => {
                    LeaseRow::decode(row)?;
                    self.absorb(key, row);
                }
            }
            cursor.advance()?;
        }
        Ok(true)
    }

    fn record(&mut self, view: &dyn View, key: &[u8], row: &[u8]) -> Result<(), StoreError> {
        self.absorb(key, row);
        let record = Record::decode(row)?;
        for needed in index_rows(key, &record)? {
            self.index.needed += 1;
            if view.get(Family::Idx, &needed)?.is_none() {
                self.faults
                    .add(|| format!("key {:?} is not in the index", key_text(key)));
            }
        }
        if record.lease == LeaseId(0) {
            return Ok(());
        }
        self.lease_keys.needed += 1;
        let attached = view.get(Family::LeaseKey, &keys::lease_key(record.lease, key))?;
        let lease = view.get(Family::Lease, &keys::lease(record.lease))?;
        if attached.is_none() || lease.is_none() {
            let id = record.lease.0;
            self.faults
                .add(|| format!("key {:?} is not attached to its lease {id:x}", key_text(key)));
        }
        Ok(())
    }

    /// Each part goes in behind its length, so that no two rows look like others.
    fn absorb(&mut self, key: &[u8], row: &[u8]) {
        for part in [key, row] {
            self.rows = crc32c::crc32c_append(self.rows, &(part.len() as u64).to_be_bytes());
            self.rows = crc32c::crc32c_append(self.rows, part);
        }
    }

    /// What the rows hash to, once there is no step left; an error if they are not what they must be.
    pub fn finish(mut self) -> Result<Scrubbed, StoreError> {
        for (what, tally) in [("index", &self.index), ("leasekey", &self.lease_keys)] {
            if tally.needed != tally.found {
                let Tally { needed, found } = tally;
                self.faults
                    .add(|| format!("{found} rows of {what} where the records need {needed}"));
            }
        }
        if self.faults.count > 0 {
            let error = StoreError::Corrupt {
                what: "rows",
                detail: format!("{} faults: {}", self.faults.count, self.faults.named.join("; ")),
            };
            self.reader.note_damage(&error);
            return Err(error);
        }
        let head = self.reader.head();
        Ok(Scrubbed {
            applied: head.applied.map_or(0, |position| position.index),
            revision: self.revision,
            compact_revision: head.compact_revision,
            hash_kv: self.hash_kv.hash(),
            rows: self.rows,
        })
    }
}

/// The index rows that a record must have; a term that is there twice has one.
fn index_rows(key: &[u8], record: &Record<'_>) -> Result<Vec<Bytes>, StoreError> {
    let mut rows = Vec::new();
    codec::each_term(record.scan_row(key).terms.0, &mut |field, value| {
        let term = IndexTerm {
            field: Bytes::copy_from_slice(field),
            value: Bytes::copy_from_slice(value),
        };
        rows.push(keys::idx(&term, key));
    })?;
    rows.sort_unstable();
    rows.dedup();
    Ok(rows)
}

fn key_text(key: &[u8]) -> std::borrow::Cow<'_, str> {
    String::from_utf8_lossy(key)
}
