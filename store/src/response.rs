//! What apply answers to each command.

use crate::{CommandError, KeyValue, LeaseId, RangeResult, Revision};

/// The outcome of one command: the same on every member.
pub type Outcome = Result<Response, CommandError>;

/// Every response carries the keyspace's revision right after its command (etcd's `header.revision`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Response {
    Put(PutResponse),
    DeleteRange(DeleteRangeResponse),
    Txn(TxnResponse),
    /// Only inside a txn.
    Range(RangeResult),
    Compact {
        revision: Revision,
    },
    LeaseGrant(LeaseGrantResponse),
    LeaseRevoke {
        revision: Revision,
        /// Whether the lease is gone; if not, it has more keys than one command deletes, and is to be revoked again.
        complete: bool,
    },
    LeaseCheckpoint {
        revision: Revision,
    },
    Alarm {
        revision: Revision,
    },
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PutResponse {
    pub revision: Revision,
    pub prev_kv: Option<KeyValue>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeleteRangeResponse {
    pub revision: Revision,
    pub deleted: i64,
    pub prev_kvs: Vec<KeyValue>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TxnResponse {
    pub revision: Revision,
    pub succeeded: bool,
    pub responses: Vec<Response>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeaseGrantResponse {
    pub revision: Revision,
    pub id: LeaseId,
    pub ttl_s: i64,
}
