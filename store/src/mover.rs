//! Moving rows that a deletion has ended from `cur` to `hist`, in the background and bounded per step.
//!
//! It is physical like [`compaction`](crate::compaction): reads answer the same before and after, neither the state
//! hash nor HashKV covers it, members come to different points of it, and after a crash it goes on wherever it finds
//! rows in `ended`. A row that compaction would remove at once is removed here without a copy.

use bytes::Bytes;

use crate::{
    StoreError,
    codec::{self, Record},
    keys::{self, Version},
    kv::{Batch, Bounds, Engine, Family, View},
    live,
};

/// Rows usually moved in one step.
pub const STEP_ROWS: usize = 256;
/// Bytes read in one step; a single row may be larger.
const STEP_BYTES: usize = 256 << 10;

/// What a step has done.
pub struct Step {
    /// Rows that are in `cur` no more.
    pub moved: u64,
    /// Where the next one begins, past the tombstones of this one; `None`: at the start.
    pub next: Option<Bytes>,
}

/// Moves up to `rows` of the ended rows at or above `from`, fewer when they are large.
pub fn step(
    engine: &dyn Engine,
    compact_revision: i64,
    from: &[u8],
    rows: usize,
) -> Result<Step, StoreError> {
    let view = engine.view();
    let mut batch = Batch::default();
    let mut ended = view.cursor(Family::Ended, Bounds::new(from, None))?;
    let (mut moved, mut bytes) = (0, 0);
    while let Some((key, row)) = ended.row() {
        if moved == rows.max(1) || bytes >= STEP_BYTES {
            break;
        }
        let end = live::decode_end(key, row)?;
        let key = Bytes::copy_from_slice(key);
        let record = row_to_end(&*view, &key)?;
        bytes += record.len();
        if let Some(hist) = superseded(&key, &record, end, compact_revision)? {
            batch.put(Family::Hist, hist.key, hist.row);
        }
        batch.delete(Family::Cur, key.clone());
        batch.delete(Family::Ended, key);
        moved += 1;
        ended.advance()?;
    }
    let next = ended.row().map(|(key, _)| Bytes::copy_from_slice(key));
    if moved > 0 {
        engine.write(batch)?;
    }
    Ok(Step {
        moved: moved as u64,
        next,
    })
}

/// The row in `cur` that `ended` names.
pub fn row_to_end(view: &dyn View, key: &[u8]) -> Result<Bytes, StoreError> {
    let row = view.get(Family::Cur, key)?;
    row.ok_or_else(|| StoreError::Corrupt {
        what: "end of a row",
        detail: format!("key {key:?} has no row that could have ended"),
    })
}

/// A row of `hist`.
pub struct Superseded {
    pub key: Bytes,
    pub row: Bytes,
}

/// What `hist` is to hold of a record that ended at `end`; `None` when nobody may ask for it any more, by the same rule
/// as physical compaction's.
pub fn superseded(
    key: &[u8],
    record: &[u8],
    end: Version,
    compact_revision: i64,
) -> Result<Option<Superseded>, StoreError> {
    let modified = Record::decode(record)?.modified;
    if end <= modified {
        return Err(StoreError::Corrupt {
            what: "end of a row",
            detail: format!("key {key:?} was written at {modified:?} and ended at {end:?}"),
        });
    }
    if end.main <= compact_revision && modified.main < compact_revision {
        return Ok(None);
    }
    Ok(Some(Superseded {
        key: keys::hist(key, modified),
        row: codec::encode_hist(end, record),
    }))
}
