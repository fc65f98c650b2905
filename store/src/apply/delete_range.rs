//! DeleteRange: every live key of a range, in key order, in one revision.

use barque_proto::command::DeleteRange;
use bytes::Bytes;

use super::{Applied, Machine, doomed::Doomed};
use crate::{DeleteRangeResponse, KeyRange, Revision, kv::Bounds};

impl Machine {
    pub(super) fn delete_range(&mut self, delete: &DeleteRange) -> Applied<DeleteRangeResponse> {
        let range = KeyRange::from_etcd(delete.key.clone(), delete.range_end.clone());
        let doomed = self.doomed_in(&range, delete.prev_kv)?;
        let deleted = doomed.len() as i64;
        let mut prev_kvs = Vec::new();
        for old in doomed {
            if delete.prev_kv {
                prev_kvs.extend(old.key_value()?);
            }
            self.write_delete(old)?;
        }
        Ok(DeleteRangeResponse {
            revision: Revision(self.revision_now()),
            deleted,
            prev_kvs,
        })
    }

    /// Values are kept only where they are returned, that is where somebody waits for the outcome. What is refused is
    /// the same everywhere.
    fn doomed_in(&mut self, range: &KeyRange, prev_kv: bool) -> Applied<Vec<Doomed>> {
        let mut bill = self.command.bill;
        let mut found = Vec::new();
        let mut add = |key: &[u8], row: &[u8]| -> Applied<()> {
            let mut old = Doomed::new(key, row)?;
            bill.delete(&old, &self.limits)?;
            if prev_kv {
                bill.prev(row.len(), &self.limits)?;
                old.row = self.awaited.then(|| Bytes::copy_from_slice(row));
            }
            found.push(old);
            Ok(())
        };
        if let Some(key) = range.as_single() {
            if let Some(row) = self.live().get(key)? {
                add(key, &row)?;
            }
        } else {
            let bounds = Bounds::new(&range.start, range.end.as_deref());
            let mut cursor = self.live().cursor(bounds)?;
            while let Some((key, row)) = cursor.row() {
                add(key, row)?;
                cursor.advance()?;
            }
        }
        self.command.bill = bill;
        Ok(found)
    }
}
