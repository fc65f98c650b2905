//! Leases: granted, revoked, and how much of them is left. Time passes elsewhere.

use barque_proto::command::{LeaseCheckpoint, LeaseGrant, LeaseRevoke};
use bytes::Bytes;

use super::{
    Applied, Machine, Refusal,
    doomed::{Bill, Doomed},
};
use crate::{
    CommandError, LeaseGrantResponse, LeaseId, Response, Revision, StoreError,
    codec::LeaseRow,
    keys,
    kv::{Bounds, Family, View},
    planted,
    state_hash::Effect,
};

impl Machine {
    pub(super) fn lease_exists(&self, id: LeaseId) -> Result<bool, StoreError> {
        Ok(self.overlay.get(Family::Lease, &keys::lease(id))?.is_some())
    }

    pub(super) fn lease_grant(&mut self, grant: &LeaseGrant) -> Applied<LeaseGrantResponse> {
        self.check_space()?;
        let id = LeaseId(grant.id);
        if self.lease_exists(id)? {
            return Err(CommandError::LeaseExists.into());
        }
        self.write_lease(Effect::LeaseGrant, id, LeaseRow::new(grant.ttl_s, grant.ttl_s))?;
        Ok(LeaseGrantResponse {
            revision: Revision(self.state.revision),
            id,
            ttl_s: grant.ttl_s,
        })
    }

    /// Contract line 17: all its keys in one revision, in key order. A lease with more keys than one command may delete
    /// stays, without the first of them, to be revoked again: it could not be refused, or it would never expire.
    pub(super) fn lease_revoke(&mut self, revoke: &LeaseRevoke) -> Applied<Response> {
        let id = LeaseId(revoke.id);
        if !self.lease_exists(id)? {
            return Err(CommandError::LeaseNotFound.into());
        }
        let (mut doomed, complete) = self.doomed_of_lease(id)?;
        if planted("revoke-in-part") {
            doomed.truncate(64);
        }
        if complete {
            self.overlay.delete(Family::Lease, keys::lease(id));
            // Before its deletions, which come after the lease's end in the state hash.
            self.hash.absorb(Effect::LeaseRevoke, &[&keys::lease(id)]);
        }
        for old in doomed {
            self.write_delete(old)?;
        }
        Ok(Response::LeaseRevoke {
            revision: Revision(self.revision_now()),
            complete,
        })
    }

    /// The versions attached to a lease; `true` when these are all.
    fn doomed_of_lease(&self, id: LeaseId) -> Result<(Vec<Doomed>, bool), StoreError> {
        let start = keys::lease(id);
        let end = keys::after_prefix(&start);
        let mut attached = self
            .overlay
            .cursor(Family::LeaseKey, Bounds::new(&start, end.as_deref()))?;
        let mut found = Vec::new();
        let Some((first, _)) = attached.row() else {
            return Ok((found, true));
        };
        let mut live = self.live().cursor(Bounds::new(&first[start.len()..], None))?;
        let mut bill = Bill::default();
        while let Some((row, _)) = attached.row() {
            let key = &row[start.len()..];
            live.seek(key)?;
            let old = match live.row() {
                Some((at, row)) if at == key => Doomed::new(key, row)?,
                _ => return Err(dangling(id, key)),
            };
            match bill.delete(&old, &self.limits) {
                Err(Refusal::Command(_)) if !found.is_empty() => return Ok((found, false)),
                Err(Refusal::Store(error)) => return Err(error),
                _ => found.push(old),
            }
            attached.advance()?;
        }
        Ok((found, true))
    }

    /// Leases that are gone by now are passed over.
    pub(super) fn lease_checkpoint(&mut self, checkpoint: &LeaseCheckpoint) -> Applied<Response> {
        for remaining in &checkpoint.leases {
            let id = LeaseId(remaining.id);
            let Some(row) = self.overlay.get(Family::Lease, &keys::lease(id))? else {
                continue;
            };
            let row = LeaseRow::new(LeaseRow::decode(&row)?.ttl_s, remaining.remaining_ttl_s);
            self.write_lease(Effect::LeaseCheckpoint, id, row)?;
        }
        Ok(Response::LeaseCheckpoint {
            revision: Revision(self.state.revision),
        })
    }

    fn write_lease(&mut self, effect: Effect, id: LeaseId, row: LeaseRow) -> Result<(), StoreError> {
        let (key, row) = (keys::lease(id), row.encode()?);
        self.hash.absorb(effect, &[&key, &row]);
        self.overlay.put(Family::Lease, key, row);
        Ok(())
    }
}

fn dangling(id: LeaseId, key: &[u8]) -> StoreError {
    StoreError::Corrupt {
        what: "lease",
        detail: format!(
            "key {:?} of lease {:x} does not exist",
            Bytes::copy_from_slice(key),
            id.0
        ),
    }
}
