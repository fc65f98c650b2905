//! One key: its newest row, the version that was live at a revision, or one exact version.

use bytes::Bytes;

use super::{At, Keyspace};
use crate::{
    KeyValue, StoreError,
    codec::{self, Record},
    keys::{self, Version},
    kv::Family,
};

impl Keyspace<'_> {
    pub fn get(&self, key: &[u8], at: At) -> Result<Option<KeyValue>, StoreError> {
        let row = self.row_at(key, at)?;
        row.map(|row| codec::key_value(Bytes::copy_from_slice(key), &row))
            .transpose()
    }

    /// The record of the version that was live, if one was.
    fn row_at(&self, key: &[u8], at: At) -> Result<Option<Bytes>, StoreError> {
        let At::Past(revision) = at else {
            return self.live().get(key);
        };
        if let Some(row) = self.view.get(Family::Cur, key)?
            && Record::decode(&row)?.modified.main <= revision
        {
            let ended = self.live().end_of(key)?.is_some_and(|end| end.main <= revision);
            return Ok((!ended).then_some(row));
        }
        self.superseded_row_at(key, revision)
    }

    /// The record in `hist` that was live at `revision`.
    pub(super) fn superseded_row_at(&self, key: &[u8], revision: i64) -> Result<Option<Bytes>, StoreError> {
        let first = keys::hist(key, Version::default());
        let last = keys::hist(key, Version::last_of(revision));
        let Some((_, row)) = self.view.floor(Family::Hist, &first, &last)? else {
            return Ok(None);
        };
        let (end, record) = codec::split_hist(&row)?;
        Ok((end.main > revision).then(|| row.slice_ref(record)))
    }

    /// The records of exact versions, wherever they are now; `None` for one that is compacted away.
    pub(super) fn versions(&self, wanted: &[(Bytes, Version)]) -> Result<Vec<Option<Bytes>>, StoreError> {
        let keys: Vec<Bytes> = wanted.iter().map(|(key, _)| key.clone()).collect();
        let mut found = self.view.multi_get(Family::Cur, &keys)?;
        let mut missing = Vec::new();
        for (at, row) in found.iter_mut().enumerate() {
            let is_it = match row {
                Some(row) => Record::decode(row)?.modified == wanted[at].1,
                None => false,
            };
            if !is_it {
                *row = None;
                missing.push(at);
            }
        }
        let superseded: Vec<Bytes> = missing
            .iter()
            .map(|at| keys::hist(&wanted[*at].0, wanted[*at].1))
            .collect();
        let rows = self.view.multi_get(Family::Hist, &superseded)?;
        for (at, row) in missing.into_iter().zip(rows) {
            found[at] = match row {
                Some(row) => Some(row.slice_ref(codec::split_hist(&row)?.1)),
                None => None,
            };
        }
        Ok(found)
    }
}
