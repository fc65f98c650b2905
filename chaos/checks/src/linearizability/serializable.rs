//! Reads that a member answers alone: it may be behind, but never goes back, and never makes anything up.

use std::collections::BTreeMap;

use super::revisions::wrong;
use crate::{
    history::{Operation, Revision},
    model::Evidence,
    verdict::{Check, Findings, Violation},
};

pub(crate) fn check(evidence: &Evidence<'_>) -> Check {
    let mut findings = Findings::new("serializable reads");
    let mut lives: BTreeMap<(u32, u32), Vec<(usize, &Operation)>> = BTreeMap::new();
    for (index, operation) in evidence.history.operations.iter().enumerate() {
        if operation.answered().is_some() {
            lives
                .entry((operation.member, operation.life))
                .or_default()
                .push((index, operation));
        }
    }
    for operations in lives.values_mut() {
        check_never_back(operations, &mut findings);
    }
    check_content(evidence, &mut findings);
    findings.done()
}

/// A member that has answered with a revision, to whatever request, has applied it: what is called later sees it.
fn check_never_back(operations: &mut [(usize, &Operation)], findings: &mut Findings) {
    let mut returned: Vec<(u64, Revision, usize)> = Vec::new();
    for (index, operation) in operations.iter() {
        if let Some((response, ret)) = operation.answered() {
            returned.push((ret, response.revision, *index));
        }
    }
    returned.sort_unstable();
    operations.sort_by_key(|(index, operation)| (operation.call, *index));
    let mut returned = returned.into_iter().peekable();
    let (mut newest, mut shown_by) = (0, None);
    for (index, operation) in operations {
        while let Some((_, revision, by)) = returned.next_if(|(ret, _, _)| *ret < operation.call) {
            if revision > newest {
                (newest, shown_by) = (revision, Some(by));
            }
        }
        let Some(response) = operation
            .response()
            .filter(|_| operation.request.is_serializable())
        else {
            continue;
        };
        findings.count(1);
        if response.revision < newest {
            let text = format!("the member had answered with revision {newest} before: {operation}");
            let both = shown_by.into_iter().chain([*index]);
            findings.add(Violation::new(text).of(both).at(response.revision));
        }
    }
}

fn check_content(evidence: &Evidence<'_>, findings: &mut Findings) {
    let Some(timeline) = evidence.timeline() else {
        return findings.undecided("the history does not tell what was committed");
    };
    for (index, operation) in evidence.history.operations.iter().enumerate() {
        let Some(response) = operation
            .response()
            .filter(|_| operation.request.is_serializable())
        else {
            continue;
        };
        if let Some(wrong) = wrong(operation, response, timeline, response.revision, findings) {
            let text = format!("{wrong}: {operation}");
            findings.add(Violation::new(text).of([index]).at(response.revision));
        }
    }
}
