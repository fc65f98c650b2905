//! Whether a run counts: each kind of fault that it was asked for was seen to happen, and in between the service was used
//! with success. A run that breaks nothing, or of which nothing is answered, proves nothing.

use std::collections::BTreeSet;

use crate::{
    history::{FaultRecord, History, KubernetesRecord, KubernetesType, Operation},
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
    if history.has_objects {
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
    let aftermath = history.aftermath_us.unwrap_or(AFTERMATH_US);
    let is_quiet = |operation: &&Operation| is_quiet(operation, &history.faults, aftermath);
    let quiet = history.operations.iter().filter(is_quiet);
    let (mut all, mut answered) = (0, 0);
    for operation in quiet {
        all += 1;
        answered += u64::from(operation.outcome.is_answer());
    }
    findings.count(usize::try_from(all).unwrap_or(usize::MAX));
    if answered * 100 < all * MOST {
        let text = format!("only {answered} of {all} operations in quiet times succeeded");
        findings.add(Violation::new(text));
    }
    if all == 0 && !(history.has_objects && history.operations.is_empty()) {
        findings.add(Violation::new("nothing was called in quiet times"));
    }
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

fn is_quiet(operation: &Operation, faults: &[FaultRecord], aftermath: u64) -> bool {
    let until = operation.ret.unwrap_or(operation.call);
    let apart =
        |fault: &FaultRecord| until < fault.from || operation.call > fault.until.saturating_add(aftermath);
    faults.iter().all(apart)
}
