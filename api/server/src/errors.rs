//! The one place where the replica's and the store's errors become a Status.
//!
//! What was definitely refused invites a retry; what may still be applied never does.

use barque_machinery::status::Status;
use barque_replica::{ProposeError, ReadBarrierError};
use barque_store::{CommandError, ReadError};

pub fn from_propose(error: ProposeError) -> Status {
    match error {
        // What a kube-apiserver says whose etcd is full.
        ProposeError::Refused(CommandError::NoSpace) => {
            Status::internal("etcdserver: mvcc: database space exceeded")
        }
        ProposeError::Refused(CommandError::Corrupt) => Status::internal("etcdserver: corrupt cluster"),
        ProposeError::Refused(refused) => Status::internal(refused),
        ProposeError::LeaderChanged | ProposeError::NoLeader => {
            Status::service_unavailable(error.to_string()).retry_after(1)
        }
        ProposeError::TooManyRequests => {
            Status::too_many_requests("Too many requests, please try again later.", 1)
        }
        ProposeError::TooLarge => Status::too_large(crate::config::MAX_BODY_BYTES),
        ProposeError::TimedOut | ProposeError::Stopped => Status::timeout(error),
    }
}

/// A read has no outcome to be unsure of: it may always be sent again.
pub fn from_barrier(error: ReadBarrierError) -> Status {
    match error {
        ReadBarrierError::NoLeader | ReadBarrierError::LeaderChanged | ReadBarrierError::Stopped => {
            Status::service_unavailable(error.to_string()).retry_after(1)
        }
        ReadBarrierError::TimedOut => Status::timeout(error),
    }
}

pub fn from_read(error: ReadError) -> Status {
    match error {
        ReadError::Compacted { .. } => {
            Status::expired("The resourceVersion for the provided list is too old.")
        }
        ReadError::FutureRevision | ReadError::Store(_) => Status::internal(error),
    }
}
