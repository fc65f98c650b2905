//! Finding keys by what they carry: index terms, leases.

use bytes::Bytes;

use super::Keyspace;
use crate::{
    IndexTerm, LeaseId, StoreError,
    codec::LeaseRow,
    keys,
    kv::{Bounds, Family},
};

impl Keyspace<'_> {
    pub fn keys_with_term(&self, term: &IndexTerm, prefix: &[u8]) -> Result<Vec<Bytes>, StoreError> {
        let mut start = keys::idx_prefix(term);
        let skip = start.len();
        start.extend_from_slice(prefix);
        self.keys_below(Family::Idx, &start, skip)
    }

    pub fn lease_keys(&self, lease: LeaseId) -> Result<Vec<Bytes>, StoreError> {
        let start = keys::lease(lease);
        self.keys_below(Family::LeaseKey, &start, start.len())
    }

    /// The rest after `skip` bytes of every row's key that starts with `start`.
    fn keys_below(&self, family: Family, start: &[u8], skip: usize) -> Result<Vec<Bytes>, StoreError> {
        let end = keys::after_prefix(start);
        let mut cursor = self.view.cursor(family, Bounds::new(start, end.as_deref()))?;
        let mut found = Vec::new();
        while let Some((row, _)) = cursor.row() {
            found.push(Bytes::copy_from_slice(&row[skip..]));
            cursor.advance()?;
        }
        Ok(found)
    }

    /// Leases with their granted and remaining TTL in seconds, in id order.
    pub fn leases(&self) -> Result<Vec<(LeaseId, i64, i64)>, StoreError> {
        let mut cursor = self.view.cursor(Family::Lease, Bounds::ALL)?;
        let mut leases = Vec::new();
        while let Some((row, value)) = cursor.row() {
            let lease = LeaseRow::decode(value)?;
            leases.push((keys::split_lease(row)?, lease.ttl_s, lease.remaining_s));
            cursor.advance()?;
        }
        Ok(leases)
    }
}
