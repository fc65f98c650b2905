//! What can be wrong with a command, with a read, and with the store itself.

use crate::Revision;

/// A command that apply refused. Part of the deterministic outcome: every member refuses alike.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CommandError {
    #[error("key not found")]
    KeyNotFound,
    #[error("requested lease not found")]
    LeaseNotFound,
    #[error("lease already exists")]
    LeaseExists,
    #[error("required revision has been compacted")]
    Compacted { compact_revision: Revision },
    #[error("required revision is a future revision")]
    FutureRevision,
    #[error("database space exceeded")]
    NoSpace,
    /// The members were found to differ: nothing is changed until somebody has decided which of them is right.
    #[error("corrupt cluster")]
    Corrupt,
    #[error("the command was proposed in another term")]
    FencedOut,
    #[error("too many keys to delete in one request: delete the range in parts")]
    TooManyKeys,
    #[error(
        "the previous values are too large for one response: delete the range in parts, or without prev_kv"
    )]
    PrevTooLarge,
}

/// A read that cannot be answered at the revision asked for, or at all.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    #[error("required revision has been compacted")]
    Compacted { compact_revision: Revision },
    #[error("required revision is a future revision")]
    FutureRevision,
    #[error(transparent)]
    Store(#[from] StoreError),
}

pub(crate) const IN_USE: &str = "is in use by another process";

/// The store itself failed: the member must stop.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    #[error("storage engine: {0}")]
    Engine(String),
    #[error("corrupt {what}: {detail}")]
    Corrupt { what: &'static str, detail: String },
    #[error("unknown command or rule in log entry {index}: this member is older than the cluster")]
    UnknownCommand { index: u64 },
    #[error("data directory: {0}")]
    DataDir(String),
    #[error(transparent)]
    Io(#[from] std::io::Error),
}

impl StoreError {
    /// Whether it says that what is on disk is not what was written. Such a member is mended from the others alone.
    pub fn is_damage(&self) -> bool {
        match self {
            StoreError::Corrupt { .. } => true,
            // RocksDB's own word for a block, a file or a manifest that does not fit its checksum.
            StoreError::Engine(text) => text.starts_with("Corruption"),
            StoreError::UnknownCommand { .. } | StoreError::DataDir(_) | StoreError::Io(_) => false,
        }
    }

    /// Nothing is wrong with the database: another process has it open.
    pub fn is_in_use(&self) -> bool {
        matches!(self, StoreError::DataDir(text) if text.ends_with(IN_USE))
    }
}
