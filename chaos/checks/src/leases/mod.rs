//! Leases: never early, never kept after a revoke or for ever, all keys in one revision.
//!
//! Times are taken such that nothing right is found wrong: a lease was renewed no earlier than the renewal was called,
//! and had ended no later than that was first seen. Nothing is said of a lease id that was granted twice.

mod lives;

use crate::{
    history::{EventKind, History, Operation, Revision, WatchEvent},
    model::{Evidence, Owner, Owners, Timeline},
    verdict::{Check, Findings, Violation},
};
use lives::{Life, Lives};

pub fn check(history: &History) -> Check {
    check_with(&Evidence::new(history))
}

pub(crate) fn check_with(evidence: &Evidence<'_>) -> Check {
    let mut findings = Findings::new("leases");
    let lives = Lives::new(evidence.history);
    for life in lives.all() {
        findings.count(1);
        check_grant(evidence, life, &mut findings);
        check_denials(evidence, life, &mut findings);
        check_renewals_after_revoke(evidence, life, &mut findings);
    }
    match &evidence.committed {
        None if lives.is_empty() => {}
        None => findings.undecided("the history does not tell what was committed"),
        Some((timeline, owners)) => {
            check_ends(evidence, timeline, owners, &lives, &mut findings);
            check_revoked(evidence, timeline, &lives, &mut findings);
            check_puts(evidence, timeline, owners, &lives, &mut findings);
            if evidence.history.outlived_leases {
                check_all_ended(timeline, &lives, &mut findings);
            }
        }
    }
    findings.done()
}

fn check_grant(evidence: &Evidence<'_>, life: &Life, findings: &mut Findings) {
    for renewal in life
        .renewals
        .iter()
        .filter(|renewal| renewal.is_grant && renewal.ttl < life.asked_ttl)
    {
        let text = format!(
            "granted for less than was asked: {}",
            evidence.history.operations[renewal.operation]
        );
        findings.add(Violation::new(text).of([renewal.operation]));
    }
}

/// An answer that the lease is gone, before its time.
fn check_denials(evidence: &Evidence<'_>, life: &Life, findings: &mut Findings) {
    for &index in &life.denials {
        let denial = &evidence.history.operations[index];
        let Some((_, ret)) = denial.answered() else {
            continue;
        };
        if life.may_be_revoked(evidence.history, ret) {
            continue;
        }
        let alive = life.renewals.iter().find(|renewal| {
            renewal.ret < denial.call && ret < renewal.runs_until(evidence.history.clock_tolerance_us)
        });
        if let Some(renewal) = alive {
            let text = format!("said to be gone before its time: {denial}");
            findings.add(Violation::new(text).of([renewal.operation, index]));
        }
    }
}

fn check_renewals_after_revoke(evidence: &Evidence<'_>, life: &Life, findings: &mut Findings) {
    let operations = &evidence.history.operations;
    for &revoke in &life.revokes {
        let Some((_, revoked)) = operations[revoke].answered() else {
            continue;
        };
        for &index in life
            .signs
            .iter()
            .filter(|index| operations[**index].call > revoked)
        {
            let text = format!("alive after it was revoked: {}", operations[index]);
            findings.add(Violation::new(text).of([revoke, index]));
        }
    }
}

/// Revisions that are the end of a lease, or of a part of its keys.
fn check_ends(
    evidence: &Evidence<'_>,
    timeline: &Timeline<'_>,
    owners: &Owners,
    lives: &Lives,
    findings: &mut Findings,
) {
    for listed in timeline.revisions(0) {
        match owners.of(listed.revision) {
            Some(Owner::Lease { lease, certain: true }) => {
                findings.count(1);
                if let Some(life) = lives.of(lease) {
                    check_end(evidence, life, listed.revision, findings);
                }
            }
            None => check_part(timeline, listed.revision, &listed.events, findings),
            Some(_) => {}
        }
    }
}

fn check_end(evidence: &Evidence<'_>, life: &Life, revision: Revision, findings: &mut Findings) {
    let Some(seen) = evidence.sightings.first(revision) else {
        return;
    };
    let operations = &evidence.history.operations;
    if !life.may_be_revoked(evidence.history, seen.time) {
        let tolerance = evidence.history.clock_tolerance_us;
        let early = life
            .renewals
            .iter()
            .filter(|renewal| seen.time < renewal.runs_until(tolerance));
        if let Some(renewal) = early.max_by_key(|renewal| renewal.runs_until(tolerance)) {
            let left = renewal.runs_until(tolerance) - seen.time;
            let text = format!(
                "lease {} ended at least {left} µs early, after {}",
                life.lease, operations[renewal.operation]
            );
            findings.add(Violation::new(text).of([renewal.operation]).at(revision));
        }
    }
    for &index in life
        .signs
        .iter()
        .filter(|index| operations[**index].call > seen.time)
    {
        let text = format!("alive after its keys had gone: {}", operations[index]);
        findings.add(Violation::new(text).of([index]).at(revision));
    }
}

/// A revision that nobody made and that deletes keys of a lease deletes too few, or others besides.
fn check_part(timeline: &Timeline<'_>, revision: Revision, events: &[WatchEvent], findings: &mut Findings) {
    let deleted = events.iter().filter(|event| event.kind == EventKind::Delete);
    let leases = deleted.filter_map(|event| timeline.lease_of(&event.key, revision - 1));
    if let Some(lease) = leases.filter(|lease| *lease != 0).min() {
        let keys = timeline.attached(lease, revision - 1).len();
        let text = format!(
            "lease {lease} has {keys} keys, and they did not go together: {} events",
            events.len()
        );
        findings.add(Violation::new(text).at(revision));
    }
}

/// Once a revoke was acknowledged, no key hangs on the lease.
fn check_revoked(evidence: &Evidence<'_>, timeline: &Timeline<'_>, lives: &Lives, findings: &mut Findings) {
    for life in lives.all() {
        for &revoke in &life.revokes {
            let operation = &evidence.history.operations[revoke];
            let Some(response) = operation.response() else {
                continue;
            };
            findings.count(1);
            if let Some(key) = timeline.attached(life.lease, response.revision).first() {
                let text = format!("{key} hangs on a lease that was revoked: {operation}");
                findings.add(Violation::new(text).of([revoke]).at(response.revision));
            }
        }
    }
}

/// At the very end no key hangs on any lease.
fn check_all_ended(timeline: &Timeline<'_>, lives: &Lives, findings: &mut Findings) {
    let last = timeline.last();
    for lease in lives.asked_for() {
        findings.count(1);
        if let Some(key) = timeline.attached(lease, last).first() {
            let text =
                format!("{key} hangs on lease {lease}, which nobody has renewed for longer than it lives");
            findings.add(Violation::new(text).at(last));
        }
    }
}

/// Nothing is attached to a lease that is gone, or that nobody granted.
fn check_puts(
    evidence: &Evidence<'_>,
    timeline: &Timeline<'_>,
    owners: &Owners,
    lives: &Lives,
    findings: &mut Findings,
) {
    let gone = lives.gone(evidence.history, owners);
    let in_scope = |event: &&WatchEvent| evidence.history.in_scope(&event.key);
    for event in timeline
        .revisions(0)
        .flat_map(|listed| &listed.events)
        .filter(in_scope)
    {
        if event.lease == 0 {
            continue;
        }
        findings.count(1);
        let writer = match owners.of(event.revision) {
            Some(Owner::Operation(index)) => Some(index),
            _ => None,
        };
        let written = writer.map(|index| &evidence.history.operations[index]);
        let wrong = match gone.get(&event.lease) {
            _ if !lives.was_asked_for(event.lease) => "that nobody granted",
            Some(since) if *since < event.revision => "that was gone",
            _ if written.is_some_and(|put| ended_before_grant(evidence, lives, event.lease, put)) => {
                "that was not granted yet"
            }
            _ => continue,
        };
        let text = format!("attached to a lease {wrong}: {event}");
        findings.add(Violation::new(text).of(writer).at(event.revision));
    }
}

fn ended_before_grant(evidence: &Evidence<'_>, lives: &Lives, lease: i64, put: &Operation) -> bool {
    let grant = lives.of(lease).and_then(|life| life.grant);
    let called = grant.map(|index| evidence.history.operations[index].call);
    put.answered()
        .zip(called)
        .is_some_and(|((_, ret), called)| ret < called)
}
