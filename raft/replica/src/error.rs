//! Why a proposal or a read did not get its answer, told apart by what the caller may conclude.

use barque_store::{CommandError, StoreError};

#[derive(Debug, Clone, thiserror::Error)]
pub enum ProposeError {
    /// Applied on every member, and refused there; or, for want of space, refused by this one's quota before.
    #[error(transparent)]
    Refused(#[from] CommandError),
    /// Definitely not applied, and never will be.
    #[error("leader changed")]
    LeaderChanged,
    /// Definitely not applied: there was no leader to take it within the time allowed.
    #[error("no leader")]
    NoLeader,
    /// Unknown: it may be applied later.
    #[error("request timed out")]
    TimedOut,
    /// Definitely not applied: too many proposals are waiting.
    #[error("too many requests")]
    TooManyRequests,
    /// Definitely not applied: more bytes than a batch may have, or nested more deeply than can be read back.
    #[error("request is too large")]
    TooLarge,
    /// Unknown.
    #[error("server stopped")]
    Stopped,
}

#[derive(Debug, Clone, thiserror::Error)]
pub enum ReadBarrierError {
    #[error("no leader")]
    NoLeader,
    #[error("leader changed")]
    LeaderChanged,
    #[error("request timed out")]
    TimedOut,
    #[error("server stopped")]
    Stopped,
}

/// Why a replica did not start; each is one line for the operator.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error("{0}")]
    Config(String),
    #[error("{0}")]
    Identity(String),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Io(#[from] std::io::Error),
    #[error("raft: {0}")]
    Raft(String),
}
