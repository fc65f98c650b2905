//! Put: the next version of a key.

use barque_proto::command::{self, Put};

use super::{Applied, Machine, change::Newest};
use crate::{CommandError, IndexTerm, KeyValue, LeaseId, PutResponse, Revision, state::AlarmKind};

impl Machine {
    /// Contract line 14.
    pub(super) fn check_space(&self) -> Applied<()> {
        if self.state.has_alarm(AlarmKind::NoSpace) {
            return Err(CommandError::NoSpace.into());
        }
        Ok(())
    }

    /// Contract line 12.
    pub(super) fn put(&mut self, put: &Put) -> Applied<PutResponse> {
        if put.lease != 0 && !self.lease_exists(LeaseId(put.lease))? {
            return Err(CommandError::LeaseNotFound.into());
        }
        let row = self.live().get(&put.key)?;
        let old = row
            .map(|row| Newest::new(bytes::Bytes::copy_from_slice(&put.key), row))
            .transpose()?;
        if old.is_none() && (put.ignore_value || put.ignore_lease) {
            return Err(CommandError::KeyNotFound.into());
        }
        if let Some(old) = old.as_ref().filter(|_| put.prev_kv) {
            self.command.bill.prev(old.row.len(), &self.limits)?;
        }
        let mut kv = KeyValue {
            key: put.key.clone(),
            value: put.value.clone(),
            lease: LeaseId(put.lease),
            terms: put.terms.iter().map(term).collect(),
            splice_offset: put.splice_offset,
            ..KeyValue::default()
        };
        if let Some(old) = &old {
            if put.ignore_value {
                kv.value = old.kv.value.clone();
                kv.terms = old.kv.terms.clone();
                kv.splice_offset = old.kv.splice_offset;
            }
            if put.ignore_lease {
                kv.lease = old.kv.lease;
            }
        }
        self.write_put(kv, old.as_ref())?;
        let prev_kv = old.filter(|_| put.prev_kv).map(|old| old.kv);
        Ok(PutResponse {
            revision: Revision(self.revision_now()),
            prev_kv,
        })
    }
}

fn term(term: &command::IndexTerm) -> IndexTerm {
    IndexTerm {
        field: term.field.clone(),
        value: term.value.clone(),
    }
}
