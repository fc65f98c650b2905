//! Leases: granted, revoked, and how much of them is left. Time passes elsewhere.

use barque_proto::command::{LeaseCheckpoint, LeaseGrant, LeaseRevoke};

use super::{Applied, Machine, change::Newest};
use crate::{
    CommandError, LeaseGrantResponse, LeaseId, Response, Revision, StoreError,
    codec::LeaseRow,
    keys,
    kv::{Family, View},
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

    /// Contract line 17: all its keys in one revision, in key order.
    pub(super) fn lease_revoke(&mut self, revoke: &LeaseRevoke) -> Applied<Response> {
        let id = LeaseId(revoke.id);
        if !self.lease_exists(id)? {
            return Err(CommandError::LeaseNotFound.into());
        }
        let most = if planted("revoke-in-part") { 64 } else { usize::MAX };
        for key in self.keyspace().lease_keys(id)?.into_iter().take(most) {
            let row = self.overlay.get(Family::Cur, &key)?;
            let row = row.ok_or_else(|| StoreError::Corrupt {
                what: "lease",
                detail: format!("key {key:?} of lease {:x} does not exist", id.0),
            })?;
            self.write_delete(&Newest::new(key, row)?)?;
        }
        self.overlay.delete(Family::Lease, keys::lease(id));
        self.hash.absorb(Effect::LeaseRevoke, &[&keys::lease(id)]);
        Ok(Response::LeaseRevoke {
            revision: Revision(self.revision_now()),
        })
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
