//! Bugs planted on purpose, to show that the checks find them.
//!
//! The places are in the production crates and ask [`on`], which is never so but with the feature `planted`, which no
//! program that is run has. With it at most one bug is on in a process, and none until [`plant`] is called.

#[cfg(feature = "planted")]
use std::sync::OnceLock;

/// A bug: its name, and what it does wrong.
pub struct Bug {
    pub name: &'static str,
    pub what: &'static str,
}

const fn bug(name: &'static str, what: &'static str) -> Bug {
    Bug { name, what }
}

pub const BUGS: &[Bug] = &[
    bug(
        "ack-before-fsync",
        "the log completes a write that was not synced",
    ),
    bug("sync-error-ignored", "the log goes on after a sync that failed"),
    bug("vote-forgotten", "a vote is granted and not written"),
    bug(
        "truncate-not-written",
        "removed entries come back after a restart",
    ),
    bug(
        "position-outside-batch",
        "the applied position is written with the next batch",
    ),
    bug(
        "batch-without-overlay",
        "a command does not see those before it in its batch",
    ),
    bug(
        "compaction-drops-visible",
        "the version that is current at the compact revision is removed",
    ),
    bug(
        "snapshot-misses-family",
        "an installed snapshot has no keys of leases",
    ),
    bug(
        "watch-gap-at-handover",
        "a watch loses the last change before it has caught up",
    ),
    bug(
        "watch-gap-at-snapshot",
        "a watch is not told of what a snapshot brought",
    ),
    bug(
        "progress-before-events",
        "progress is told ahead of events that are pending",
    ),
    bug(
        "read-without-quorum",
        "a leader answers reads without asking whether it still leads",
    ),
    bug(
        "read-without-barrier",
        "linearizable reads are answered from local state",
    ),
    bug(
        "stale-after-restart",
        "a member serves before it has what it had served",
    ),
    bug(
        "committed-not-saved",
        "a member serves when it has applied up to the committed index on its disk, which was not saved",
    ),
    bug(
        "apply-before-durable",
        "a member serves what its own log does not hold yet",
    ),
    bug(
        "proposal-sent-twice",
        "a batch whose stream broke is sent to the next leader again",
    ),
    bug(
        "purge-before-flush",
        "the log is purged of what the state on disk does not cover",
    ),
    bug(
        "keep-alive-lost",
        "a keep-alive is answered and the lease ends when it would have",
    ),
    bug(
        "expired-by-deposed-leader",
        "a leader that has been replaced ends leases that its successor renewed",
    ),
    bug(
        "snapshot-metadata-first",
        "a snapshot says a position from before its content was read",
    ),
    bug(
        "conflicting-membership-changes",
        "of two changes at a time the second undoes the first",
    ),
    bug(
        "wiped-voter-votes",
        "a member that lost its data votes under its old ID",
    ),
    bug(
        "corrupt-not-told",
        "a member whose state differs from its leader's is neither stopped nor told of",
    ),
    bug(
        "identity-not-synced",
        "what a member notes of itself and of its peers is written and not synced",
    ),
];

#[cfg(feature = "planted")]
static PLANTED: OnceLock<&'static str> = OnceLock::new();

/// Turns one bug on, for good; `false` when there is none of this name.
#[cfg(feature = "planted")]
pub fn plant(name: &str) -> bool {
    let bug = BUGS.iter().find(|bug| bug.name == name);
    bug.is_some_and(|bug| PLANTED.set(bug.name).is_ok())
}

/// Whether this bug is on: nothing else can be, without the feature.
#[cfg(not(feature = "planted"))]
#[inline(always)]
pub const fn on(_: &str) -> bool {
    false
}

/// Whether this bug is on.
#[cfg(feature = "planted")]
pub fn on(name: &str) -> bool {
    debug_assert!(BUGS.iter().any(|bug| bug.name == name), "{name} is on no list");
    PLANTED.get() == Some(&name)
}
