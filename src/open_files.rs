//! The limit of open files: a server of many watchers wants all that the system allows.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Descriptors that the process itself may need: RocksDB's files, the log, peers.
const OWN_FILES: u64 = 2048;
const FALLBACK: u64 = 1024;

/// Raises the soft limit to the hard one; returns how many connections that leaves room for.
pub fn raise() -> usize {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: limit.maximum,
        maximum: limit.maximum,
    };
    let allowed = match setrlimit(Resource::Nofile, raised) {
        Ok(()) => limit.maximum.unwrap_or(1 << 20),
        Err(error) => {
            tracing::warn!(%error, "the limit of open files stays as it is");
            limit.current.unwrap_or(FALLBACK)
        }
    };
    let room = allowed.saturating_sub(OWN_FILES).max(allowed / 2);
    usize::try_from(room).unwrap_or(usize::MAX).min(1 << 20)
}
