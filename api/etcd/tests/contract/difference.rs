//! Where Debian's etcd 3.4 does not do what the contract (3.6) says, and why the contract wins.

use crate::{client::Target, suite::Side};

/// One row: known under `id` to the check that meets it.
pub struct Difference {
    pub id: &'static str,
    pub line: &'static str,
    pub oracle: &'static str,
    pub contract: &'static str,
    pub reason: &'static str,
}

pub const DIFFERENCES: &[Difference] = &[
    Difference {
        id: "version",
        line: "26",
        oracle: "reports 3.4.x",
        contract: "reports 3.6.x or 3.7.x",
        reason: "clients use RequestProgress by version, and kube-apiserver only from 3.5.13 on",
    },
    Difference {
        id: "sort-option",
        line: "errors",
        oracle: "takes an unknown sort order for none; dies of an unknown target, which it is therefore not sent",
        contract: "InvalidArgument, invalid sort option",
        reason: "3.5 began to check: an answer in an order that was not asked for is worse than an error",
    },
    Difference {
        id: "future-progress",
        line: "23",
        oracle: "answers a progress request at a revision before the watcher's start",
        contract: "answers only once the start is reached",
        reason: "a client that resumes from the progress would be sent events from before its start",
    },
    Difference {
        id: "progress-order",
        line: "22",
        oracle: "may answer a progress request ahead of events that it covers, and while a watch is behind",
        contract: "events first; no answer while a watch of the stream is behind",
        reason: "a client that trusts the progress misses the events (etcd 15220, fixed in 3.5.8 and 3.6)",
    },
    Difference {
        id: "nested-space",
        line: "14",
        oracle: "lets a put in a nested txn pass under the space alarm",
        contract: "any txn with a put is refused",
        reason: "the alarm is there to stop growth, by whichever path it comes",
    },
    Difference {
        id: "tombstone",
        line: "13",
        oracle: "drops the tombstone that lies exactly at the compact revision",
        contract: "keeps it, and a watch from there sends the DELETE",
        reason: "a watcher allowed to start there would miss the event (fixed in 3.5.21 and 3.6)",
    },
];

/// Rows that are met when members are lost, outside the suite.
pub const DIFFERENCES_OF_MEMBERS: &[Difference] = &[Difference {
    id: "cut-off-write",
    line: "errors",
    oracle: "may answer Unknown, context deadline exceeded, to a write that found no leader",
    contract: "Unavailable, request timed out (or one of its variants), or no leader",
    reason: "clients decide by code and text; the table of errors knows no such answer",
}];

pub fn row(id: &str) -> &'static Difference {
    let row = DIFFERENCES
        .iter()
        .chain(DIFFERENCES_OF_MEMBERS)
        .find(|row| row.id == id);
    row.unwrap_or_else(|| panic!("{id} is not in the table of differences"))
}

/// The oracle met every row: the table holds nothing that is no longer so.
pub fn assert_all_met(target: &Target) {
    assert_eq!(target.side(), Side::Oracle);
    for row in DIFFERENCES {
        assert!(
            target.met(row.id),
            "nothing met `{}` (line {}: {}; {}; {})",
            row.id,
            row.line,
            row.oracle,
            row.contract,
            row.reason
        );
    }
}
