//! The one place where errors become what etcd's clients match on: a gRPC code and a text.
//!
//! Codes and texts are part of the contract. Nothing else in this crate writes a status.

use barque_replica::{MAX_TXN_DEPTH, MemberError, ProposeError, ReadBarrierError};
use barque_store::{CommandError, ReadError, StoreError};
use tonic::{Code, Status};

/// Why a request was not answered.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}", self.text())]
pub enum Error {
    EmptyKey,
    KeyNotFound,
    ValueProvided,
    LeaseProvided,
    TooManyOps,
    /// etcd has no such limit; the log has.
    TxnTooDeep,
    /// etcd has none of these two limits; memory has.
    TooManyKeys,
    PrevTooLarge,
    DuplicateKey,
    InvalidSortOption,
    InvalidCompare,
    RequestTooLarge,
    Compacted,
    FutureRevision,
    NoSpace,
    TooManyRequests,
    LeaseNotFound,
    LeaseExists,
    LeaseTtlTooLarge,
    MemberNotFound,
    PeerUrlExists,
    BadMemberUrls,
    MemberNotLearner,
    LearnerNotReady,
    TooManyLearners,
    NotEnoughStarted,
    /// Members that vote do not answer the leader.
    Unhealthy,
    NotLeader,
    BadLeaderTransferee,
    NotSupportedForLearner,
    NoLeader,
    LeaderChanged,
    Stopped,
    TimedOut,
    Corrupt,
    AuthNotEnabled,
    RootUserNotExist,
    UserNotFound,
    RoleNotFound,
    /// The prefix that belongs to the Kubernetes API.
    Protected {
        prefix: String,
    },
    /// What this version cannot do.
    Unimplemented {
        what: &'static str,
    },
    UnknownService,
    /// The local store failed; the member is about to stop.
    Internal {
        detail: String,
    },
}

impl Error {
    pub fn code(&self) -> Code {
        match self {
            Self::EmptyKey
            | Self::KeyNotFound
            | Self::ValueProvided
            | Self::LeaseProvided
            | Self::TooManyOps
            | Self::TxnTooDeep
            | Self::TooManyKeys
            | Self::DuplicateKey
            | Self::InvalidSortOption
            | Self::InvalidCompare
            | Self::RequestTooLarge
            | Self::BadMemberUrls => Code::InvalidArgument,
            Self::Compacted | Self::FutureRevision | Self::LeaseTtlTooLarge => Code::OutOfRange,
            Self::NoSpace | Self::TooManyRequests | Self::PrevTooLarge => Code::ResourceExhausted,
            Self::LeaseNotFound | Self::MemberNotFound | Self::UnknownService => Code::NotFound,
            Self::LeaseExists
            | Self::PeerUrlExists
            | Self::MemberNotLearner
            | Self::LearnerNotReady
            | Self::TooManyLearners
            | Self::NotEnoughStarted
            | Self::NotLeader
            | Self::BadLeaderTransferee
            | Self::NotSupportedForLearner
            | Self::AuthNotEnabled
            | Self::RootUserNotExist
            | Self::UserNotFound
            | Self::RoleNotFound => Code::FailedPrecondition,
            Self::Unhealthy | Self::NoLeader | Self::LeaderChanged | Self::Stopped | Self::TimedOut => {
                Code::Unavailable
            }
            Self::Corrupt => Code::DataLoss,
            Self::Protected { .. } => Code::PermissionDenied,
            Self::Unimplemented { .. } => Code::Unimplemented,
            Self::Internal { .. } => Code::Internal,
        }
    }

    pub fn text(&self) -> String {
        let text = match self {
            Self::EmptyKey => "key is not provided",
            Self::KeyNotFound => "key not found",
            Self::ValueProvided => "value is provided",
            Self::LeaseProvided => "lease is provided",
            Self::TooManyOps => "too many operations in txn request",
            Self::TooManyKeys => "too many keys to delete in one request: delete the range in parts",
            Self::PrevTooLarge => {
                "previous values too large for one response: delete the range in parts, or without prev_kv"
            }
            Self::DuplicateKey => "duplicate key given in txn request",
            Self::InvalidSortOption => "invalid sort option",
            Self::InvalidCompare => "invalid compare",
            Self::RequestTooLarge => "request is too large",
            Self::Compacted => "mvcc: required revision has been compacted",
            Self::FutureRevision => "mvcc: required revision is a future revision",
            Self::NoSpace => "mvcc: database space exceeded",
            Self::TooManyRequests => "too many requests",
            Self::LeaseNotFound => "requested lease not found",
            Self::LeaseExists => "lease already exists",
            Self::LeaseTtlTooLarge => "too large lease TTL",
            Self::MemberNotFound => "member not found",
            Self::PeerUrlExists => "Peer URLs already exists",
            Self::BadMemberUrls => "given member URLs are invalid",
            Self::MemberNotLearner => "can only promote a learner member",
            Self::LearnerNotReady => "can only promote a learner member which is in sync with leader",
            Self::TooManyLearners => "too many learner members in cluster",
            Self::Unhealthy => "unhealthy cluster",
            Self::NotEnoughStarted => "re-configuration failed due to not enough started members",
            Self::NotLeader => "not leader",
            Self::BadLeaderTransferee => "bad leader transferee",
            Self::NotSupportedForLearner => "rpc not supported for learner",
            Self::NoLeader => "no leader",
            Self::LeaderChanged => "leader changed",
            Self::Stopped => "server stopped",
            Self::TimedOut => "request timed out",
            Self::Corrupt => "corrupt cluster",
            Self::AuthNotEnabled => "authentication is not enabled",
            Self::RootUserNotExist => "root user does not exist",
            Self::UserNotFound => "user name not found",
            Self::RoleNotFound => "role name not found",
            Self::Protected { prefix } => {
                return format!(
                    "etcdserver: permission denied: keys below {prefix} are written by the Kubernetes API alone"
                );
            }
            Self::TxnTooDeep => {
                return format!("etcdserver: txn request is nested more than {MAX_TXN_DEPTH} levels deep");
            }
            Self::Unimplemented { what } => return format!("etcdserver: {what} is not implemented"),
            // The health service's own word, as every gRPC server says it.
            Self::UnknownService => return "unknown service".to_owned(),
            Self::Internal { detail } => return format!("etcdserver: {detail}"),
        };
        format!("etcdserver: {text}")
    }
}

impl From<Error> for Status {
    fn from(error: Error) -> Self {
        Status::new(error.code(), error.text())
    }
}

impl From<CommandError> for Error {
    fn from(error: CommandError) -> Self {
        match error {
            CommandError::KeyNotFound => Self::KeyNotFound,
            CommandError::LeaseNotFound => Self::LeaseNotFound,
            CommandError::LeaseExists => Self::LeaseExists,
            CommandError::Compacted { .. } => Self::Compacted,
            CommandError::FutureRevision => Self::FutureRevision,
            CommandError::NoSpace => Self::NoSpace,
            CommandError::Corrupt => Self::Corrupt,
            CommandError::FencedOut => Self::LeaderChanged,
            CommandError::TooManyKeys => Self::TooManyKeys,
            CommandError::PrevTooLarge => Self::PrevTooLarge,
        }
    }
}

impl From<ProposeError> for Error {
    fn from(error: ProposeError) -> Self {
        match error {
            ProposeError::Refused(refused) => refused.into(),
            ProposeError::LeaderChanged => Self::LeaderChanged,
            ProposeError::NoLeader => Self::NoLeader,
            ProposeError::TimedOut => Self::TimedOut,
            ProposeError::TooManyRequests => Self::TooManyRequests,
            ProposeError::TooLarge => Self::RequestTooLarge,
            ProposeError::Stopped => Self::Stopped,
        }
    }
}

impl From<ReadBarrierError> for Error {
    fn from(error: ReadBarrierError) -> Self {
        match error {
            ReadBarrierError::NoLeader => Self::NoLeader,
            ReadBarrierError::LeaderChanged => Self::LeaderChanged,
            ReadBarrierError::TimedOut => Self::TimedOut,
            ReadBarrierError::Stopped => Self::Stopped,
        }
    }
}

impl From<MemberError> for Error {
    fn from(error: MemberError) -> Self {
        match error {
            MemberError::NotFound => Self::MemberNotFound,
            MemberError::Exists => Self::PeerUrlExists,
            MemberError::LearnerNotReady => Self::LearnerNotReady,
            MemberError::NotLearner => Self::MemberNotLearner,
            MemberError::TooManyLearners => Self::TooManyLearners,
            MemberError::NotEnoughStarted => Self::NotEnoughStarted,
            MemberError::Unhealthy => Self::Unhealthy,
            MemberError::NoLeader | MemberError::InProgress => Self::NoLeader,
            MemberError::TimedOut => Self::TimedOut,
        }
    }
}

impl From<ReadError> for Error {
    fn from(error: ReadError) -> Self {
        match error {
            ReadError::Compacted { .. } => Self::Compacted,
            ReadError::FutureRevision => Self::FutureRevision,
            ReadError::Store(error) => error.into(),
        }
    }
}

/// Also of a damaged block: that is this member's own affair, and "corrupt cluster" is not what it means.
impl From<StoreError> for Error {
    fn from(error: StoreError) -> Self {
        Self::Internal {
            detail: error.to_string(),
        }
    }
}

/// tonic refuses an oversized message in words of its own; etcd's clients know grpc-go's.
pub(crate) fn oversized_message(status: &Status) -> Option<Status> {
    let rest = status
        .message()
        .strip_prefix("Error, decoded message length too large: found ")?;
    let mut numbers = rest
        .split(|c: char| !c.is_ascii_digit())
        .filter(|part| !part.is_empty());
    let (found, limit) = (numbers.next()?, numbers.next()?);
    Some(Status::resource_exhausted(format!(
        "grpc: received message larger than max ({found} vs. {limit})"
    )))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(error: impl Into<Error>, code: Code, text: &str) {
        let status = Status::from(error.into());
        assert_eq!((status.code(), status.message()), (code, text));
    }

    #[test]
    fn code_and_text_are_etcds() {
        check(
            Error::EmptyKey,
            Code::InvalidArgument,
            "etcdserver: key is not provided",
        );
        check(
            Error::DuplicateKey,
            Code::InvalidArgument,
            "etcdserver: duplicate key given in txn request",
        );
        check(
            Error::RequestTooLarge,
            Code::InvalidArgument,
            "etcdserver: request is too large",
        );
        check(
            CommandError::KeyNotFound,
            Code::InvalidArgument,
            "etcdserver: key not found",
        );
        check(
            CommandError::NoSpace,
            Code::ResourceExhausted,
            "etcdserver: mvcc: database space exceeded",
        );
        check(
            CommandError::TooManyKeys,
            Code::InvalidArgument,
            "etcdserver: too many keys to delete in one request: delete the range in parts",
        );
        check(
            CommandError::PrevTooLarge,
            Code::ResourceExhausted,
            "etcdserver: previous values too large for one response: delete the range in parts, or without prev_kv",
        );
        check(
            CommandError::LeaseNotFound,
            Code::NotFound,
            "etcdserver: requested lease not found",
        );
        check(
            CommandError::LeaseExists,
            Code::FailedPrecondition,
            "etcdserver: lease already exists",
        );
        check(
            Error::LeaseTtlTooLarge,
            Code::OutOfRange,
            "etcdserver: too large lease TTL",
        );
        check(
            ProposeError::TimedOut,
            Code::Unavailable,
            "etcdserver: request timed out",
        );
        check(ProposeError::NoLeader, Code::Unavailable, "etcdserver: no leader");
        check(
            ProposeError::LeaderChanged,
            Code::Unavailable,
            "etcdserver: leader changed",
        );
        check(
            ReadBarrierError::Stopped,
            Code::Unavailable,
            "etcdserver: server stopped",
        );
        check(
            ReadError::FutureRevision,
            Code::OutOfRange,
            "etcdserver: mvcc: required revision is a future revision",
        );
        check(
            ProposeError::Refused(CommandError::Compacted {
                compact_revision: barque_store::Revision(3),
            }),
            Code::OutOfRange,
            "etcdserver: mvcc: required revision has been compacted",
        );
        check(
            Error::NotSupportedForLearner,
            Code::FailedPrecondition,
            "etcdserver: rpc not supported for learner",
        );
        check(
            CommandError::Corrupt,
            Code::DataLoss,
            "etcdserver: corrupt cluster",
        );
        check(
            MemberError::Unhealthy,
            Code::Unavailable,
            "etcdserver: unhealthy cluster",
        );
        check(
            MemberError::NotEnoughStarted,
            Code::FailedPrecondition,
            "etcdserver: re-configuration failed due to not enough started members",
        );
        check(
            MemberError::TooManyLearners,
            Code::FailedPrecondition,
            "etcdserver: too many learner members in cluster",
        );
    }

    #[test]
    fn oversized_messages_speak_grpc_go() {
        let tonics = Status::out_of_range(
            "Error, decoded message length too large: found 2500000 bytes, the limit is: 2097152 bytes",
        );
        let ours = oversized_message(&tonics).unwrap();
        assert_eq!(ours.code(), Code::ResourceExhausted);
        assert_eq!(
            ours.message(),
            "grpc: received message larger than max (2500000 vs. 2097152)"
        );
        assert!(oversized_message(&Status::out_of_range("else")).is_none());
    }
}
