//! The prefix that belongs to the Kubernetes API: which requests of the etcd API would write below it.

use barque_proto::etcd::etcdserverpb::{RequestOp, TxnRequest, request_op::Request};
use barque_store::{KeyRange, LeaseId};
use bytes::Bytes;

use crate::{Error, server::Shared};

impl Shared {
    pub(crate) fn may_write(&self, key: &[u8]) -> Result<(), Error> {
        match &self.config.protected_prefix {
            Some(prefix) if key.starts_with(prefix) => Err(refused(prefix)),
            _ => Ok(()),
        }
    }

    pub(crate) fn may_delete(&self, key: &Bytes, range_end: &Bytes) -> Result<(), Error> {
        match &self.config.protected_prefix {
            Some(prefix) if reaches(&KeyRange::from_etcd(key.clone(), range_end.clone()), prefix) => {
                Err(refused(prefix))
            }
            _ => Ok(()),
        }
    }

    /// Either branch counts: which one runs is not known before apply.
    pub(crate) fn may_run(&self, txn: &TxnRequest) -> Result<(), Error> {
        if self.config.protected_prefix.is_none() {
            return Ok(());
        }
        txn.success
            .iter()
            .chain(&txn.failure)
            .try_for_each(|operation| self.may_operate(operation))
    }

    fn may_operate(&self, operation: &RequestOp) -> Result<(), Error> {
        match &operation.request {
            Some(Request::RequestPut(request)) => self.may_write(&request.key),
            Some(Request::RequestDeleteRange(request)) => self.may_delete(&request.key, &request.range_end),
            Some(Request::RequestTxn(txn)) => self.may_run(txn),
            Some(Request::RequestRange(_)) | None => Ok(()),
        }
    }

    /// Revoking a lease deletes its keys.
    pub(crate) fn may_revoke(&self, lease: LeaseId) -> Result<(), Error> {
        let Some(prefix) = &self.config.protected_prefix else {
            return Ok(());
        };
        let keys = self.replica.store().reader().lease_keys(lease)?;
        if keys.iter().any(|key| key.starts_with(prefix)) {
            Err(refused(prefix))
        } else {
            Ok(())
        }
    }
}

fn refused(prefix: &Bytes) -> Error {
    Error::Protected {
        prefix: String::from_utf8_lossy(prefix).into_owned(),
    }
}

/// Whether `range` holds any key that starts with `prefix`.
fn reaches(range: &KeyRange, prefix: &[u8]) -> bool {
    let empty = range.end.as_ref().is_some_and(|end| *end <= range.start);
    let begins_after = range.start.as_ref() > prefix && !range.start.starts_with(prefix);
    let ends_before = range.end.as_ref().is_some_and(|end| end.as_ref() <= prefix);
    !empty && !begins_after && !ends_before
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_reach_the_prefix_when_they_hold_a_key_of_it() {
        let check = |start: &'static str, end: &'static str, expect: bool| {
            let range = KeyRange::from_etcd(start.into(), end.into());
            assert_eq!(reaches(&range, b"/r/"), expect, "{start:?}..{end:?}");
        };
        check("/r/a", "", true);
        check("/r/", "", true);
        check("/r", "", false);
        check("/r0", "", false);
        check("/a", "/r/", false);
        check("/a", "/r/\0", true);
        check("/r/x", "/z", true);
        check("/r0", "/z", false);
        check("\0", "\0", true);
        check("/s", "\0", false);
        check("/z", "/a", false);
    }
}
