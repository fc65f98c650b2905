//! DeleteRange: every live key of a range, in key order, in one revision.

use barque_proto::command::DeleteRange;
use bytes::Bytes;

use super::{Applied, Machine, change::Newest};
use crate::{
    DeleteRangeResponse, KeyRange, Revision, StoreError,
    kv::{Bounds, Family, View},
};

impl Machine {
    pub(super) fn delete_range(&mut self, delete: &DeleteRange) -> Applied<DeleteRangeResponse> {
        let range = KeyRange::from_etcd(delete.key.clone(), delete.range_end.clone());
        let doomed = self.newest_in(&range)?;
        for old in &doomed {
            self.write_delete(old)?;
        }
        let deleted = doomed.len() as i64;
        let prev_kvs = match delete.prev_kv {
            true => doomed.into_iter().map(|old| old.kv).collect(),
            false => Vec::new(),
        };
        Ok(DeleteRangeResponse {
            revision: Revision(self.revision_now()),
            deleted,
            prev_kvs,
        })
    }

    fn newest_in(&self, range: &KeyRange) -> Result<Vec<Newest>, StoreError> {
        if let Some(key) = range.as_single() {
            let row = self.overlay.get(Family::Cur, key)?;
            return row
                .map(|row| Newest::new(Bytes::copy_from_slice(key), row))
                .into_iter()
                .collect();
        }
        let mut cursor = self
            .overlay
            .cursor(Family::Cur, Bounds::new(&range.start, range.end.as_deref()))?;
        let mut found = Vec::new();
        while let Some((key, row)) = cursor.row() {
            found.push(Newest::new(
                Bytes::copy_from_slice(key),
                Bytes::copy_from_slice(row),
            )?);
            cursor.advance()?;
        }
        Ok(found)
    }
}
