//! Linearizability judged by the revisions that answers carry: exact, and fast.
//!
//! A write's revision is its place in the order; a read's header says which prefix it saw. So it is enough that the
//! order agrees with real time, that every answer is what the state at its revision gives, and that what was committed
//! is what somebody asked for, once.

use super::answers::difference;
use crate::{
    history::{Operation, Outcome, Request, Response, Revision},
    model::{Evidence, Owner, Owners, Timeline, check_consistency, evaluate, same_changes},
    verdict::{Check, Findings, Violation},
};

pub(crate) fn check(evidence: &Evidence<'_>) -> Check {
    let mut findings = Findings::new("linearizable by revision");
    check_order(evidence, &mut findings);
    check_compaction(evidence, &mut findings);
    match &evidence.committed {
        None => findings.undecided("the history does not tell what was committed"),
        Some((timeline, owners)) => {
            check_consistency(timeline, &mut findings);
            findings.add_all(owners.violations.iter().cloned());
            check_future(evidence, timeline, owners, &mut findings);
            check_answers(evidence, timeline, owners, &mut findings);
        }
    }
    findings.done()
}

/// Nothing is answered from before what anybody had seen when it was called.
fn check_order(evidence: &Evidence<'_>, findings: &mut Findings) {
    for (index, operation) in ordered(evidence) {
        let (Some(response), Some(seen)) = (operation.response(), evidence.sightings.before(operation.call))
        else {
            continue;
        };
        findings.count(1);
        let oldest = seen.revision + Revision::from(response.answer.changed());
        if response.revision < oldest {
            let text = format!(
                "revision {} had been seen before this was called: {operation}",
                seen.revision
            );
            let both = seen.operation.into_iter().chain([index]);
            findings.add(Violation::new(text).of(both).at(response.revision));
        }
    }
}

fn ordered<'e>(evidence: &Evidence<'e>) -> impl Iterator<Item = (usize, &'e Operation)> {
    let all = evidence.history.operations.iter().enumerate();
    all.filter(|(_, operation)| operation.request.is_ordered())
}

/// What was compacted is refused once the compaction was acknowledged; and nothing is refused as compacted that cannot
/// have been.
fn check_compaction(evidence: &Evidence<'_>, findings: &mut Findings) {
    for (index, operation) in ordered(evidence) {
        let revision = match operation.request {
            Request::Get { revision, .. } | Request::Range { revision, .. } if revision > 0 => revision,
            _ => continue,
        };
        findings.count(1);
        let compacted = evidence.compactions.acknowledged_before(operation.call);
        if operation.response().is_some() && revision < compacted {
            let text = format!("answered from below the compacted revision {compacted}: {operation}");
            findings.add(Violation::new(text).of([index]).at(revision));
        }
        let refused = matches!(&operation.outcome, Outcome::NotApplied(error) if error.contains("compacted"));
        let by = operation.ret.unwrap_or(u64::MAX);
        if refused && !evidence.compactions.may_have_reached(revision + 1, by) {
            let text = format!("refused as compacted, which it was not: {operation}");
            findings.add(Violation::new(text).of([index]).at(revision));
        }
    }
}

/// Nothing is seen before the operation was called that made it.
fn check_future(evidence: &Evidence<'_>, timeline: &Timeline<'_>, owners: &Owners, findings: &mut Findings) {
    let history = evidence.history;
    let mut latest: Vec<(Revision, u64, usize)> = Vec::new();
    for (revision, owner) in owners.iter() {
        let Owner::Operation(index) = owner else { continue };
        let call = history.operations[index].call;
        if latest.last().is_none_or(|(_, latest, _)| call > *latest) {
            latest.push((revision, call, index));
        }
    }
    let future = Future { latest, timeline };
    for (index, operation) in history.operations.iter().enumerate() {
        if let Some((response, ret)) = operation.answered() {
            let found = future.seen(response.revision, ret);
            findings.add_all(found.map(|violation| violation.of([index])));
        }
    }
    for watch in &history.watches {
        for response in &watch.responses {
            let found = future.seen(response.newest(), response.time);
            findings.add_all(found.map(|violation| violation.watched(watch.id)));
        }
    }
}

struct Future<'t> {
    /// (revision, call, operation): the latest call among the makers of all revisions up to this one.
    latest: Vec<(Revision, u64, usize)>,
    timeline: &'t Timeline<'t>,
}

impl Future<'_> {
    fn seen(&self, revision: Revision, time: u64) -> Option<Violation> {
        if self.timeline.lists_all() && revision > self.timeline.last() {
            let text = format!("revision {revision} was answered, and never committed");
            return Some(Violation::new(text).at(revision));
        }
        let up_to = self.latest.partition_point(|(made, _, _)| *made <= revision);
        let (made, call, maker) = self.latest[..up_to].last()?;
        (*call > time).then(|| {
            let text =
                format!("revision {revision} was seen before the operation was called that made {made}");
            Violation::new(text).of([*maker]).at(revision)
        })
    }
}

/// Every answer is what the state of its revision gives, and every write did what it asked for.
fn check_answers(evidence: &Evidence<'_>, timeline: &Timeline<'_>, owners: &Owners, findings: &mut Findings) {
    for (index, operation) in ordered(evidence) {
        let Some(response) = operation.response().filter(|_| operation.request.is_keyed()) else {
            continue;
        };
        let changed = response.answer.changed();
        if changed && owners.of(response.revision) != Some(Owner::Operation(index)) {
            continue;
        }
        let base = response.revision - Revision::from(changed);
        if let Some(wrong) = wrong(operation, response, timeline, base, findings) {
            let text = format!("{wrong}: {operation}");
            findings.add(Violation::new(text).of([index]).at(response.revision));
        }
    }
    for (revision, owner) in owners.iter() {
        if let (Owner::Operation(index), Some(listed)) = (owner, timeline.revision(revision)) {
            let operation = &evidence.history.operations[index];
            let done = evaluate(&operation.request, timeline, revision - 1);
            if done.is_some_and(|(_, events)| !same_changes(&events, &listed.events)) {
                let shown: Vec<String> = listed.events.iter().map(ToString::to_string).collect();
                let text = format!("did something else: {}; {operation}", shown.join(", "));
                findings.add(Violation::new(text).of([index]).at(revision));
            }
        }
    }
}

/// What is wrong with an answer that was given from the state at `base`. Counts it, if that state is known.
pub(super) fn wrong(
    operation: &Operation,
    response: &Response,
    timeline: &Timeline<'_>,
    base: Revision,
    findings: &mut Findings,
) -> Option<String> {
    let (expected, _) = evaluate(&operation.request, timeline, base)?;
    findings.count(1);
    difference(&expected, response)
}
