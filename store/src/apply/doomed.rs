//! What is known of the versions that a command is about to delete, and how much of them one command may gather.
//!
//! [`Doomed`] holds no value unless somebody waits for it: a deletion needs key, version, lease and terms, which are
//! read off the row where it lies. [`Bill`] adds up what deleting costs in memory, before anything is written, from the
//! keys alone; so every member refuses the same command.

use bytes::Bytes;

use super::Refusal;
use crate::{
    CommandError, IndexTerm, KeyValue, LeaseId, StoreError,
    codec::{self, Record},
    keys::Version,
};

/// The version of a key that a deletion ends.
pub struct Doomed {
    pub key: Bytes,
    pub modified: Version,
    pub lease: LeaseId,
    /// Encoded.
    terms: Bytes,
    pub row_bytes: usize,
    /// The row, where it is at hand.
    pub row: Option<Bytes>,
}

impl Doomed {
    /// Copies no value.
    pub fn new(key: &[u8], row: &[u8]) -> Result<Self, StoreError> {
        let record = Record::decode(row)?;
        Ok(Self {
            key: Bytes::copy_from_slice(key),
            modified: record.modified,
            lease: record.lease,
            terms: Bytes::copy_from_slice(record.encoded_terms()),
            row_bytes: row.len(),
            row: None,
        })
    }

    /// What deleting it takes in memory, at most.
    fn cost(&self) -> Result<usize, StoreError> {
        let copied = KEY_COPIES * self.key.len();
        let mut cost = KEY_BYTES + copied;
        if self.lease != LeaseId(0) {
            cost += ATTACHED_BYTES + copied;
        }
        codec::each_term(&self.terms, &mut |field, value| {
            cost += TERM_BYTES + copied + KEY_COPIES * (field.len() + value.len());
        })?;
        Ok(cost)
    }

    pub fn terms(&self) -> Result<Vec<IndexTerm>, StoreError> {
        codec::decode_terms(&self.terms)
    }

    /// `None` when its row is not at hand.
    pub fn key_value(&self) -> Result<Option<KeyValue>, StoreError> {
        let row = self.row.as_ref();
        row.map(|row| codec::key_value(self.key.clone(), row)).transpose()
    }
}

/// What one command may take in memory, whatever it is about.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// For the keys that it deletes: see [`Bill::delete`].
    pub delete_bytes: usize,
    /// For the previous versions that it returns. At the default limits of a request no transaction that
    /// names its keys one by one reaches this.
    pub prev_bytes: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            delete_bytes: 512 << 20,
            prev_bytes: 256 << 20,
        }
    }
}

/// What a deleted key costs beside its bytes: an event, a row of `log` and one of `ended`, each in the overlay, in the
/// batch and in RocksDB's memory. Measured: 1,250 bytes.
const KEY_BYTES: usize = 1280;
/// What its row in `leasekey` costs, if it is attached to a lease. Measured: 510 bytes.
const ATTACHED_BYTES: usize = 512;
/// What its row in `idx` costs, for each term that it carries.
const TERM_BYTES: usize = 512;
/// How often the bytes of a key are copied, beside each of these.
const KEY_COPIES: usize = 4;

/// What the command under way has gathered so far.
#[derive(Debug, Clone, Copy, Default)]
pub struct Bill {
    deleted: usize,
    prev: usize,
}

impl Bill {
    /// Adds a deleted key.
    pub fn delete(&mut self, doomed: &Doomed, limits: &Limits) -> Result<(), Refusal> {
        self.deleted += doomed.cost()?;
        match self.deleted <= limits.delete_bytes {
            true => Ok(()),
            false => Err(CommandError::TooManyKeys.into()),
        }
    }

    /// Adds a version that is returned.
    pub fn prev(&mut self, row_bytes: usize, limits: &Limits) -> Result<(), CommandError> {
        self.prev += row_bytes;
        match self.prev <= limits.prev_bytes {
            true => Ok(()),
            false => Err(CommandError::PrevTooLarge),
        }
    }
}
