//! Bugs planted on purpose, to show that the checks find them.
//!
//! The places are in the production crates and ask [`on`], which is never so but with the feature `planted`, which no
//! program that is run has. With it at most one bug is on in a process, and none until [`plant`] is called or the
//! environment names one (`BARQUE_PLANT`).

#[cfg(feature = "planted")]
use std::sync::{LazyLock, OnceLock};

/// A bug: its name, and what it does wrong.
pub struct Bug {
    pub name: &'static str,
    pub what: &'static str,
    /// The test that finds it where simulation cannot see it; run with the feature and with `BARQUE_PLANT` set to the
    /// name it fails.
    pub test: Option<&'static str>,
}

const fn bug(name: &'static str, what: &'static str) -> Bug {
    let test = None;
    Bug { name, what, test }
}

const fn by_test(name: &'static str, what: &'static str, test: &'static str) -> Bug {
    let test = Some(test);
    Bug { name, what, test }
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
        "older-copy-votes",
        "a member whose data went back to an earlier copy votes and acknowledges",
    ),
    bug(
        "lost-entries-accepted",
        "a follower that lacks what it had acknowledged goes on as if it had not",
    ),
    bug(
        "corrupt-not-told",
        "a member whose state differs from its leader's is neither stopped nor told of",
    ),
    bug(
        "identity-not-synced",
        "what a member notes of itself and of its peers is written and not synced",
    ),
    bug(
        "read-joins-round",
        "a read that came while a round was under way gets the index of that round",
    ),
    bug("revoke-in-part", "a revoke deletes 64 keys of a lease at most"),
    bug(
        "progress-of-head",
        "progress that was asked for is told as the store's head, not as the stream's cursor",
    ),
    bug(
        "watch-gap-at-compaction",
        "a slow watch passes over what was compacted meanwhile, in silence",
    ),
    bug(
        "neighbour-not-covered",
        "a slow watch joins the scan of another that does not cover its keys",
    ),
    bug(
        "damage-taken-for-torn-end",
        "a log that is damaged in the middle goes on where the damage begins",
    ),
    bug(
        "checkpoint-not-restored",
        "a lease is kept alive, and the next leader goes on from what was left at its checkpoint",
    ),
    bug(
        "range-compare-of-first-key",
        "a compare over a range looks at its first key alone",
    ),
    bug(
        "limit-before-sort",
        "a read with an order and a limit is cut before it is sorted",
    ),
    bug(
        "row-lost-in-snapshot",
        "an installed snapshot lacks one superseded version",
    ),
    bug(
        "delete-needs-space",
        "where there is no room, deletes are refused as well",
    ),
    by_test(
        "settled-entries-removed",
        "entries that were applied are taken back because a leader says so",
        "barque-replica: what_was_applied_is_never_taken_back",
    ),
    by_test(
        "repair-not-synced",
        "the last batch is written again after a start, and not synced",
        "barque-wal: what_was_seen_after_a_kill_is_there_after_a_power_cut",
    ),
    by_test(
        "forward-in-any-term",
        "a forwarded batch is appended in a later term than it was meant for",
        "barque-replica: a_batch_is_appended_in_no_other_term_than_it_was_meant_for",
    ),
    by_test(
        "families-flushed-apart",
        "RocksDB flushes each family by itself",
        NO_TEST,
    ),
    by_test(
        "state-pointer-not-synced",
        "the pointer to an installed snapshot is renamed, and its directory not synced",
        NO_TEST,
    ),
];

/// Nothing finds it: a hole in the proof.
pub const NO_TEST: &str = "nothing yet";

#[cfg(feature = "planted")]
static PLANTED: OnceLock<&'static str> = OnceLock::new();

/// Plants a bug in a process that nobody tells otherwise, such as that of a test.
#[cfg(feature = "planted")]
static BY_ENVIRONMENT: LazyLock<Option<String>> = LazyLock::new(|| std::env::var("BARQUE_PLANT").ok());

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
    match PLANTED.get() {
        Some(planted) => *planted == name,
        None => BY_ENVIRONMENT.as_deref() == Some(name),
    }
}
