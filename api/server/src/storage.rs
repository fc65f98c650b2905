//! The way from the API to the local replica: barriers, views, transactions.

use barque_machinery::{resource_version::ReadAt, status::Status};
use barque_proto::command::{
    Command, Compare, DeleteRange, LeaseGrant, Operation, Put, Range, Txn, command, compare, operation,
};
use barque_replica::{ProposeError, Replica};
use barque_store::{CommandError, KeyValue, Reader, Response, Revision, TxnResponse};
use bytes::Bytes;
use parking_lot::Mutex;
use rand::Rng;
use tokio::time::{Duration, Instant};

use crate::errors;

/// Every object lies below this, and nothing else may.
pub const PREFIX: &str = "/registry/";

#[derive(Clone)]
pub struct Storage {
    replica: Replica,
    event_lease: std::sync::Arc<Mutex<Option<SharedLease>>>,
    event_ttl: Duration,
}

/// A lease that the events of about a minute share.
#[derive(Clone, Copy)]
struct SharedLease {
    id: i64,
    renew_at: Instant,
}

/// How long events go on being attached to one lease, which lives so much longer than they must.
const LEASE_SHARING: Duration = Duration::from_secs(60);

impl Storage {
    pub fn new(replica: Replica, event_ttl: Duration) -> Self {
        Self {
            replica,
            event_lease: Default::default(),
            event_ttl,
        }
    }

    pub fn replica(&self) -> &Replica {
        &self.replica
    }

    pub fn reader(&self) -> Reader {
        self.replica.store().reader()
    }

    pub async fn barrier(&self) -> Result<(), Status> {
        self.replica.read_barrier().await.map_err(errors::from_barrier)
    }

    /// A key as this member has it now.
    pub fn get_local(&self, key: &[u8]) -> Result<Option<KeyValue>, Status> {
        self.reader().get(key, Revision(0)).map_err(errors::from_read)
    }

    /// A view that satisfies `at`, and the revision to read at.
    pub async fn read_at(&self, at: ReadAt) -> Result<(Reader, Revision), Status> {
        match at {
            ReadAt::MostRecent => self.barrier().await?,
            ReadAt::Any => {}
            ReadAt::NotOlderThan(revision) | ReadAt::Exact(revision) => {
                if self.replica.store().head().revision.0 < revision {
                    self.barrier().await?;
                }
            }
        }
        let reader = self.reader();
        let head = reader.head().clone();
        match at {
            ReadAt::MostRecent | ReadAt::Any => Ok((reader, head.revision)),
            ReadAt::NotOlderThan(revision) | ReadAt::Exact(revision) if head.revision.0 < revision => {
                Err(Status::too_large_resource_version(revision, head.revision.0))
            }
            ReadAt::NotOlderThan(_) => Ok((reader, head.revision)),
            ReadAt::Exact(revision) if revision < head.compact_revision.0 => Err(Status::expired(
                "The resourceVersion for the provided list is too old.",
            )),
            ReadAt::Exact(revision) => Ok((reader, Revision(revision))),
        }
    }

    /// Proposes a transaction; `fence_term` is not 0 for the leader's own work.
    pub async fn txn(&self, txn: Txn, fence_term: u64) -> Result<TxnResponse, Status> {
        let command = Command {
            fence_term,
            op: Some(command::Op::Txn(txn)),
            ..Default::default()
        };
        match self
            .replica
            .propose(command)
            .await
            .map_err(errors::from_propose)?
        {
            Response::Txn(response) => Ok(response),
            other => Err(Status::internal(format!(
                "a transaction was answered by {other:?}"
            ))),
        }
    }

    /// A lease that lives at least as long as an event should.
    pub async fn event_lease(&self) -> Result<i64, Status> {
        let now = Instant::now();
        let current = *self.event_lease.lock();
        if let Some(lease) = current.filter(|l| now < l.renew_at) {
            return Ok(lease.id);
        }
        let ttl_s = (self.event_ttl + LEASE_SHARING).as_secs() as i64;
        loop {
            let id = rand::rng().random_range(1..i64::MAX);
            let grant = LeaseGrant { id, ttl_s };
            let command = Command {
                op: Some(command::Op::LeaseGrant(grant)),
                ..Default::default()
            };
            match self.replica.propose(command).await {
                Ok(_) => {
                    *self.event_lease.lock() = Some(SharedLease {
                        id,
                        renew_at: now + LEASE_SHARING,
                    });
                    return Ok(id);
                }
                Err(ProposeError::Refused(CommandError::LeaseExists)) => continue,
                Err(error) => return Err(errors::from_propose(error)),
            }
        }
    }
}

/// `key` must not exist.
pub fn absent(key: &Bytes) -> Compare {
    compare(key, compare::Target::CreateRevision(0))
}

/// `key` must still be as it was at `revision`.
pub fn unchanged(key: &Bytes, revision: Revision) -> Compare {
    compare(key, compare::Target::ModRevision(revision.0))
}

fn compare(key: &Bytes, target: compare::Target) -> Compare {
    Compare {
        result: compare::Result::Equal as i32,
        key: key.clone(),
        range_end: Bytes::new(),
        target: Some(target),
    }
}

pub fn put(put: Put) -> Operation {
    Operation {
        op: Some(operation::Op::Put(put)),
    }
}

pub fn delete(key: &Bytes) -> Operation {
    let delete = DeleteRange {
        key: key.clone(),
        ..Default::default()
    };
    Operation {
        op: Some(operation::Op::DeleteRange(delete)),
    }
}

pub fn get(key: &Bytes) -> Operation {
    let range = Range {
        key: key.clone(),
        ..Default::default()
    };
    Operation {
        op: Some(operation::Op::Range(range)),
    }
}

/// What the `at`th operation, a [`get`], found.
pub fn found(response: &TxnResponse, at: usize) -> Result<Option<KeyValue>, Status> {
    match response.responses.get(at) {
        Some(Response::Range(range)) => Ok(range.kvs.first().cloned()),
        other => Err(Status::internal(format!(
            "a range in a transaction was answered by {other:?}"
        ))),
    }
}

/// The end of the range of all keys that start with `prefix`.
pub fn prefix_end(prefix: &[u8]) -> Option<Bytes> {
    let last = prefix.iter().rposition(|b| *b != 0xff)?;
    let mut end = prefix[..=last].to_vec();
    end[last] += 1;
    Some(end.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ends_of_prefixes() {
        assert_eq!(
            prefix_end(b"/registry/pods/").as_deref(),
            Some(&b"/registry/pods0"[..])
        );
        assert_eq!(prefix_end(b"a\xff").as_deref(), Some(&b"b"[..]));
        assert_eq!(prefix_end(b"\xff"), None);
    }
}
