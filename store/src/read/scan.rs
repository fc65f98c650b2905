//! Walking the live keys of a range as of a revision, in key order, without copying rows.
//!
//! At the head that is what is live in `cur`. In the past it is `cur` merged with `hist`: for a key whose newest
//! version is too new, or gone, the superseded version that was live then.

use std::{cmp::Ordering, ops::ControlFlow};

use super::{At, Keyspace, bounds};
use crate::{
    KeyRange, StoreError,
    codec::{self, Record},
    keys::{self, VERSION_LEN},
    kv::{Bounds, Cursor, Family},
};

/// Versions of one key that are walked over before a seek is cheaper.
const WALKED_VERSIONS: usize = 8;

type Visit<'v> = dyn FnMut(&[u8], Record<'_>) -> ControlFlow<()> + 'v;

impl Keyspace<'_> {
    pub fn scan(&self, range: &KeyRange, at: At, visit: &mut Visit<'_>) -> Result<(), StoreError> {
        if bounds(range).is_empty() {
            return Ok(());
        }
        match at {
            At::Head => self.scan_head(range, visit),
            At::Past(revision) => self.scan_past(range, revision, visit),
        }
    }

    fn scan_head(&self, range: &KeyRange, visit: &mut Visit<'_>) -> Result<(), StoreError> {
        let mut cursor = self.live().cursor(bounds(range))?;
        while let Some((key, row)) = cursor.row() {
            if visit(key, Record::decode(row)?).is_break() {
                break;
            }
            cursor.advance()?;
        }
        Ok(())
    }

    fn scan_past(&self, range: &KeyRange, revision: i64, visit: &mut Visit<'_>) -> Result<(), StoreError> {
        let mut cur = self.view.cursor(Family::Cur, bounds(range))?;
        let mut ends = self.live().ends(bounds(range))?;
        let from = keys::hist_from(&range.start);
        let to = range.end.as_ref().map(|end| keys::hist_from(end));
        let mut hist = self
            .view
            .cursor(Family::Hist, Bounds::new(&from, to.as_deref()))?;
        let mut hist_key = Vec::new();
        loop {
            let newest = cur.row();
            let order = match (newest, read_key(&*hist, &mut hist_key)?) {
                (None, false) => return Ok(()),
                (Some(_), false) => Ordering::Less,
                (None, true) => Ordering::Greater,
                (Some((key, _)), true) => key.cmp(&hist_key),
            };
            let mut seen = None;
            if let (Some((key, row)), true) = (newest, order.is_le()) {
                let record = Record::decode(row)?;
                if record.modified.main <= revision && ends.of(key)?.is_none_or(|end| end.main > revision) {
                    seen = Some(visit(key, record));
                }
            }
            if seen.is_none() && order.is_ge() {
                seen = self.visit_superseded(&mut *hist, &hist_key, revision, visit)?;
            }
            if seen.is_some_and(|flow| flow.is_break()) {
                return Ok(());
            }
            if order.is_ge() {
                hist.seek(&keys::hist_after(&hist_key))?;
            }
            if order.is_le() {
                cur.advance()?;
            }
        }
    }

    /// `hist` stands at the first version of `key`; visits the one that was live, if there is one.
    fn visit_superseded(
        &self,
        hist: &mut dyn Cursor,
        key: &[u8],
        revision: i64,
        visit: &mut Visit<'_>,
    ) -> Result<Option<ControlFlow<()>>, StoreError> {
        let prefix_len = keys::hist_from(key).len() + 2;
        let prefix = match hist.row() {
            Some((row, _)) => row[..prefix_len].to_vec(),
            None => return Ok(None),
        };
        for _ in 0..WALKED_VERSIONS {
            let Some((row, value)) = hist.row() else {
                return Ok(None);
            };
            if row.len() != prefix_len + VERSION_LEN || !row.starts_with(&prefix) {
                return Ok(None);
            }
            let (end, record) = codec::split_hist(value)?;
            let record = Record::decode(record)?;
            if record.modified.main > revision {
                return Ok(None);
            }
            if end.main > revision {
                return Ok(Some(visit(key, record)));
            }
            hist.advance()?;
        }
        match self.superseded_row_at(key, revision)? {
            Some(row) => Ok(Some(visit(key, Record::decode(&row)?))),
            None => Ok(None),
        }
    }
}

fn read_key(hist: &dyn Cursor, key: &mut Vec<u8>) -> Result<bool, StoreError> {
    let Some((row, _)) = hist.row() else {
        return Ok(false);
    };
    keys::split_hist(row, key)?;
    Ok(true)
}
