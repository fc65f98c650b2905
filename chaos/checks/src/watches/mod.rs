//! Watches: filtered, ordered, unique, atomic per revision, gapless, honest about progress, resumable.

mod delivery;
mod expected;

use crate::{
    history::{History, WatchRecord},
    model::Evidence,
    verdict::{Check, Findings, Violation},
};
use delivery::Delivery;

pub fn check(history: &History) -> Check {
    check_with(&Evidence::new(history))
}

pub(crate) fn check_with(evidence: &Evidence<'_>) -> Check {
    let mut findings = Findings::new("watches");
    for watch in &evidence.history.watches {
        check_resumption(watch, &mut findings);
        Delivery::new(watch, evidence).check(&mut findings);
    }
    if evidence.committed.is_none() && !evidence.history.watches.is_empty() {
        findings.undecided("the history does not tell what was committed");
    }
    findings.done()
}

/// A watch that goes on where another stopped begins with the next revision.
fn check_resumption(watch: &WatchRecord, findings: &mut Findings) {
    let Some(last) = watch.resumed_from else { return };
    if watch.start_revision != last + 1 {
        let text = format!(
            "resumed after revision {last} with start revision {}",
            watch.start_revision
        );
        findings.add(Violation::new(text).watched(watch.id));
    }
}
