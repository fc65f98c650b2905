//! How many keys a range held at a revision.

use std::ops::ControlFlow;

use super::{At, Keyspace};
use crate::{
    KeyRange, StoreError,
    codec::{LogOp, LogRow},
    keys::Version,
    kv::{Bounds, Family},
};

impl Keyspace<'_> {
    /// At the head from the fences; in the past by taking back what the log says came after, or by walking
    /// the range when that is less.
    pub fn count(&self, range: &KeyRange, at: At) -> Result<i64, StoreError> {
        let now = self.counts.count(self.live(), range)? as i64;
        let At::Past(revision) = at else { return Ok(now) };
        if self.revision - revision > now {
            return self.count_by_scan(range, at);
        }
        Ok(now - self.grown_since(range, revision)?)
    }

    fn count_by_scan(&self, range: &KeyRange, at: At) -> Result<i64, StoreError> {
        let mut keys = 0;
        self.scan(range, at, &mut |_, _| {
            keys += 1;
            ControlFlow::Continue(())
        })?;
        Ok(keys)
    }

    /// Keys created minus keys deleted in the range after `revision`.
    fn grown_since(&self, range: &KeyRange, revision: i64) -> Result<i64, StoreError> {
        let from = Version::first_of(revision + 1).to_bytes();
        let mut log = self.view.cursor(Family::Log, Bounds::new(&from, None))?;
        let mut grown = 0;
        while let Some((_, row)) = log.row() {
            let change = LogRow::decode(row)?;
            if range.contains(change.key) {
                grown += match (change.op, change.prev) {
                    (LogOp::Put, None) => 1,
                    (LogOp::Put, Some(_)) => 0,
                    (LogOp::Delete, _) => -1,
                };
            }
            log.advance()?;
        }
        Ok(grown)
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::test_support::{self, put};

    #[test]
    fn both_ways_to_count_agree() {
        let (store, mut applier) = test_support::memory_store();
        let mut index = 0;
        for round in 0..6 {
            for key in 0..8 {
                index += 1;
                let key = format!("k{}", (key * 3 + round) % 11);
                let command = if (round + index) % 3 == 0 {
                    test_support::delete(&key)
                } else {
                    put(&key, "v")
                };
                test_support::apply(&mut applier, index, vec![command]);
            }
        }
        let reader = store.reader();
        let keyspace = reader.keyspace();
        let range = KeyRange {
            start: Bytes::from_static(b"k1"),
            end: Some(Bytes::from_static(b"k8")),
        };
        for revision in 1..keyspace.revision {
            let now = keyspace.count(&range, At::Head).unwrap();
            let taken_back = now - keyspace.grown_since(&range, revision).unwrap();
            assert_eq!(
                taken_back,
                keyspace.count_by_scan(&range, At::Past(revision)).unwrap()
            );
        }
    }
}
