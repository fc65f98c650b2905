//! The live rows of `cur`: those that no row of `ended` names.
//!
//! A deletion of many keys does not move their rows: it writes, for each key, the version that ended the row that
//! still lies in `cur`. [`mover`](crate::mover) moves such rows to `hist` later. Until then whoever reads `cur` reads
//! it through [`Live`], which passes over them at the head and tells readers of the past when they ended.
//!
//! ```text
//! cur    a -> record of (7, 0)      b -> record of (3, 0)      a is live; b was, at the revisions 3 to 8
//! ended                             b -> (9, 4)
//! ```
//!
//! Most of the time `ended` is empty. Who holds a view knows whether it is, and then nothing is asked of it.

use bytes::Bytes;

use crate::{
    StoreError,
    keys::{VERSION_LEN, Version},
    kv::{Bounds, Cursor, Family, View},
};

/// Reads `cur` of a view.
#[derive(Clone, Copy)]
pub struct Live<'a> {
    pub view: &'a dyn View,
    /// Whether `ended` holds anything in this view.
    pub any_ended: bool,
}

impl<'a> Live<'a> {
    /// The live row of `key`.
    pub fn get(&self, key: &[u8]) -> Result<Option<Bytes>, StoreError> {
        if self.end_of(key)?.is_some() {
            return Ok(None);
        }
        self.view.get(Family::Cur, key)
    }

    /// The version that ended the row of `key` in `cur`.
    pub fn end_of(&self, key: &[u8]) -> Result<Option<Version>, StoreError> {
        if !self.any_ended {
            return Ok(None);
        }
        let row = self.view.get(Family::Ended, key)?;
        row.map(|row| decode_end(key, &row)).transpose()
    }

    /// Walks the live rows.
    pub fn cursor(&self, bounds: Bounds<'_>) -> Result<Box<dyn Cursor + 'a>, StoreError> {
        let cur = self.view.cursor(Family::Cur, bounds)?;
        if !self.any_ended {
            return Ok(cur);
        }
        let mut live = LiveCursor {
            cur,
            ends: self.ends(bounds)?,
        };
        live.settle()?;
        Ok(Box::new(live))
    }

    /// Walks the ends of rows that are in `cur`, beside a cursor over `cur` with the same bounds.
    pub fn ends(&self, bounds: Bounds<'_>) -> Result<Ends<'a>, StoreError> {
        let ended = match self.any_ended {
            true => Some(self.view.cursor(Family::Ended, bounds)?),
            false => None,
        };
        Ok(Ends { ended })
    }
}

/// The ends of rows in `cur`, asked for in key order.
pub struct Ends<'a> {
    ended: Option<Box<dyn Cursor + 'a>>,
}

impl Ends<'_> {
    /// When the row of `key` ended. Keys must be asked for in ascending order.
    pub fn of(&mut self, key: &[u8]) -> Result<Option<Version>, StoreError> {
        let Some(ended) = &mut self.ended else {
            return Ok(None);
        };
        ended.seek(key)?;
        match ended.row() {
            Some((at, row)) if at == key => decode_end(key, row).map(Some),
            _ => Ok(None),
        }
    }
}

struct LiveCursor<'a> {
    cur: Box<dyn Cursor + 'a>,
    ends: Ends<'a>,
}

impl LiveCursor<'_> {
    fn settle(&mut self) -> Result<(), StoreError> {
        while let Some((key, _)) = self.cur.row() {
            if self.ends.of(key)?.is_none() {
                break;
            }
            self.cur.advance()?;
        }
        Ok(())
    }
}

impl Cursor for LiveCursor<'_> {
    fn row(&self) -> Option<(&[u8], &[u8])> {
        self.cur.row()
    }

    fn advance(&mut self) -> Result<(), StoreError> {
        self.cur.advance()?;
        self.settle()
    }

    fn seek(&mut self, key: &[u8]) -> Result<(), StoreError> {
        self.cur.seek(key)?;
        self.settle()
    }
}

/// A row of `ended`: the version alone.
pub fn encode_end(end: Version) -> Bytes {
    Bytes::copy_from_slice(&end.to_bytes())
}

pub fn decode_end(key: &[u8], row: &[u8]) -> Result<Version, StoreError> {
    let exact = row.len() == VERSION_LEN;
    let end = Version::from_bytes(row).filter(|_| exact);
    end.ok_or_else(|| StoreError::Corrupt {
        what: "end of a row",
        detail: format!("key {key:?}: {row:02x?}"),
    })
}

/// How many rows of `cur` are ended.
pub fn count_ended(view: &dyn View) -> Result<u64, StoreError> {
    let mut ended = view.cursor(Family::Ended, Bounds::ALL)?;
    let mut rows = 0;
    while ended.row().is_some() {
        rows += 1;
        ended.advance()?;
    }
    Ok(rows)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kv::{Batch, Engine, memory::MemoryEngine};

    #[test]
    fn golden_bytes() {
        let end = Version::new(9, 4);
        assert_eq!(encode_end(end).as_ref(), b"\0\0\0\0\0\0\0\x09\0\0\0\x04");
        assert_eq!(decode_end(b"b", &encode_end(end)).unwrap(), end);
        let error = decode_end(b"b", b"\x01").unwrap_err().to_string();
        assert_eq!(error, "corrupt end of a row: key [98]: [01]");
    }

    #[test]
    fn ended_rows_are_passed_over() {
        let engine = MemoryEngine::new();
        let mut batch = Batch::default();
        for key in ["a", "b", "c", "d", "e"] {
            batch.put(Family::Cur, key.into(), key.into());
        }
        for key in ["a", "c", "d"] {
            batch.put(Family::Ended, key.into(), encode_end(Version::new(9, 4)));
        }
        engine.write(batch).unwrap();
        let view = engine.view();
        let live = Live {
            view: &*view,
            any_ended: count_ended(&*view).unwrap() > 0,
        };
        let mut cursor = live.cursor(Bounds::ALL).unwrap();
        assert_eq!(cursor.row().unwrap().0, b"b");
        cursor.seek(b"c").unwrap();
        assert_eq!(cursor.row().unwrap().0, b"e");
        cursor.advance().unwrap();
        assert_eq!(cursor.row(), None);
        assert_eq!(live.get(b"a").unwrap(), None);
        assert_eq!(live.get(b"b").unwrap().unwrap(), "b");
        assert_eq!(live.end_of(b"d").unwrap(), Some(Version::new(9, 4)));
    }
}
