//! Whether a run counts: each kind of fault that it was asked for was seen to happen, and in between the service was used
//! with success, watches and leases included. A run that breaks nothing, or of which nothing is answered, proves nothing.

use std::collections::BTreeSet;

use crate::{
    history::{
        Committed, EventKind, FaultRecord, History, KubernetesCall, KubernetesRecord, KubernetesType,
        Operation, Request, Revision, WatchKind, WatchRecord,
    },
    verdict::{Check, Findings, Violation},
};

/// Of the operations in quiet times that were answered by the rules of the API, in per cent.
const MOST: u64 = 80;

/// A fault is felt for a while after its end: elections, reconnections, catching up.
pub const AFTERMATH_US: u64 = 5_000_000;

pub fn check(history: &History) -> Check {
    let mut findings = Findings::new("the run counts");
    check_faults(history, &mut findings);
    check_quiet_times(history, &mut findings);
    check_watches(history, &mut findings);
    check_leases(history, &mut findings);
    if history.has_objects {
        check_quiet_calls_for_objects(history, &mut findings);
        check_objects(history, &mut findings);
    }
    findings.done()
}

fn check_faults(history: &History, findings: &mut Findings) {
    let recorded = history.faults.iter().map(|fault| fault.kind.as_str());
    let asked: BTreeSet<&str> = recorded
        .chain(history.requested_faults.iter().map(String::as_str))
        .collect();
    for kind in asked {
        findings.count(1);
        let mut of_kind = history.faults.iter().filter(|fault| fault.kind == kind);
        if !of_kind.any(|fault| fault.observed.is_some()) {
            findings.add(Violation::new(format!("no {kind} was seen to happen")));
        }
    }
}

fn check_quiet_times(history: &History, findings: &mut Findings) {
    let operations = history.operations.iter();
    let quiet = operations.filter(|operation| {
        let end = operation.ret.unwrap_or(operation.call);
        is_quiet(history, operation.call, end)
    });
    let all = most_succeed(
        quiet.map(|operation| operation.outcome.is_answer()),
        "operations",
        findings,
    );
    let writes = history
        .operations
        .iter()
        .any(|operation| operation.request.may_write());
    // Compactions alone are too rare for every quiet time to see one.
    if all == 0 && (writes || !history.has_objects) {
        findings.add(Violation::new("nothing was called in quiet times"));
    }
}

fn check_quiet_calls_for_objects(history: &History, findings: &mut Findings) {
    let calls = history.kubernetes_calls.iter();
    let quiet = calls.filter(|call| is_quiet(history, call.call, call.ret));
    let all = most_succeed(
        quiet.map(KubernetesCall::is_answered),
        "calls for objects",
        findings,
    );
    if all == 0 {
        findings.add(Violation::new("no objects were called for in quiet times"));
    }
}

/// How many there were.
fn most_succeed(answers: impl Iterator<Item = bool>, what: &str, findings: &mut Findings) -> u64 {
    let (mut all, mut answered) = (0u64, 0u64);
    for is_answer in answers {
        all += 1;
        answered += u64::from(is_answer);
    }
    findings.count(usize::try_from(all).unwrap_or(usize::MAX));
    if answered * 100 < all * MOST {
        let text = format!("only {answered} of {all} {what} in quiet times succeeded");
        findings.add(Violation::new(text));
    }
    all
}

/// Watches that are told nothing prove nothing, if there was something to tell.
fn check_watches(history: &History, findings: &mut Findings) {
    let responses = history.watches.iter().flat_map(|watch| &watch.responses);
    let told = responses.map(|response| match &response.kind {
        WatchKind::Events { events, .. } => events.len(),
        _ => 0,
    });
    let told: usize = told.sum();
    findings.count(told);
    if told > 0 {
        return;
    }
    let Some(committed) = &history.committed else {
        return;
    };
    let mut watches = history.watches.iter();
    if watches.any(|watch| has_news(watch, committed)) {
        findings.add(Violation::new(
            "keys that are watched were changed, and no watch was told of any",
        ));
    }
}

/// Whether anything that the watch asks for was committed from its start on.
fn has_news(watch: &WatchRecord, committed: &Committed) -> bool {
    let created = watch.responses.first();
    let start = match watch.start_revision {
        0 => created.map_or(0, |created| created.header_revision) + 1,
        start => start,
    };
    let mut events = committed.revisions.iter().flat_map(|listed| &listed.events);
    events.any(|event| event.revision >= start && watch.wants(event))
}

/// Leases that were all outlived, and of which none was seen to end, prove nothing.
fn check_leases(history: &History, findings: &mut Findings) {
    let granted = done(history, |request| matches!(request, Request::LeaseGrant { .. }));
    let Some(committed) = history.committed.as_ref().filter(|_| granted > 0) else {
        return;
    };
    let revoked = done(history, |request| matches!(request, Request::LeaseRevoke { .. }));
    let ended = revoked + deletes_by_leases(history, committed);
    findings.count(ended);
    if ended == 0 && history.outlived_leases {
        let text = format!("{granted} leases were granted, and none was seen to end");
        findings.add(Violation::new(text));
    }
}

/// How many calls of a kind succeeded.
fn done(history: &History, is_of_kind: impl Fn(&Request) -> bool) -> usize {
    let all = history.operations.iter();
    let of_kind = all.filter(|operation| is_of_kind(&operation.request));
    of_kind.filter(|operation| operation.response().is_some()).count()
}

/// Keys with a lease that went, and nobody was told that it was by his call.
fn deletes_by_leases(history: &History, committed: &Committed) -> usize {
    let changes = history.operations.iter().filter(|operation| operation.changed());
    let acknowledged: BTreeSet<Revision> = changes
        .filter_map(Operation::response)
        .map(|response| response.revision)
        .collect();
    let mut leased: BTreeSet<&str> = BTreeSet::new();
    let mut deletes = 0;
    for event in committed.revisions.iter().flat_map(|listed| &listed.events) {
        let had_lease = leased.remove(event.key.as_str());
        if event.lease != 0 {
            leased.insert(&event.key);
        }
        let is_delete = event.kind == EventKind::Delete;
        deletes += usize::from(is_delete && had_lease && !acknowledged.contains(&event.revision));
    }
    deletes
}

fn check_objects(history: &History, findings: &mut Findings) {
    let is_event = |record: &&KubernetesRecord| {
        use KubernetesType::{Added, Deleted, Modified};
        matches!(record.kind, Added | Modified | Deleted)
    };
    let (written, told) = (
        history.kubernetes_writes.len(),
        history.kubernetes.iter().filter(is_event).count(),
    );
    findings.count(written + told);
    if written == 0 || told == 0 {
        let text = format!("{written} changes of objects were acknowledged, {told} were told to watchers");
        findings.add(Violation::new(text));
    }
}

/// Whether no fault is felt from one moment to the other.
pub(crate) fn is_quiet(history: &History, from: u64, until: u64) -> bool {
    let aftermath = history.aftermath_us.unwrap_or(AFTERMATH_US);
    let apart = |fault: &FaultRecord| until < fault.from || from > fault.until.saturating_add(aftermath);
    history.faults.iter().all(apart)
}
