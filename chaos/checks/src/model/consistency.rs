//! Whether the list of revisions is itself a possible history: consecutive revisions, versions that count up.

use std::collections::BTreeMap;

use super::{Known, Timeline};
use crate::{
    history::{CommittedRevision, EventKind, KeyValue, Revision, WatchEvent},
    verdict::{Findings, Violation},
};

/// Adds what is impossible in the list to the findings, and counts the revisions.
pub(crate) fn check(timeline: &Timeline<'_>, findings: &mut Findings) {
    let mut last = timeline.after();
    for listed in timeline.listed {
        findings.count(1);
        if let Some(text) = misplaced(listed, last, timeline.lists_all()) {
            findings.add(Violation::new(text).at(listed.revision));
        }
        last = last.max(listed.revision);
        check_events(listed, timeline, findings);
    }
}

fn misplaced(listed: &CommittedRevision, last: Revision, lists_all: bool) -> Option<String> {
    let revision = listed.revision;
    if revision <= last {
        return Some(format!("revision {revision} is listed after {last}"));
    }
    if lists_all && revision != last + 1 {
        return Some(format!("revisions {} to {} are missing", last + 1, revision - 1));
    }
    listed
        .events
        .is_empty()
        .then(|| format!("revision {revision} changes nothing"))
}

fn check_events(listed: &CommittedRevision, timeline: &Timeline<'_>, findings: &mut Findings) {
    let revision = listed.revision;
    let mut changed: BTreeMap<&str, Option<KeyValue>> = BTreeMap::new();
    for event in &listed.events {
        let before = match changed.get(event.key.as_str()) {
            Some(Some(kv)) => Known::Present(kv),
            Some(None) => Known::Absent,
            None => timeline.at(&event.key, revision - 1),
        };
        if let Some(text) = impossible(event, before, revision) {
            findings.add(Violation::new(text).at(revision));
        }
        changed.insert(&event.key, event.key_value());
    }
}

fn impossible(event: &WatchEvent, before: Known<'_>, revision: Revision) -> Option<String> {
    if event.revision != revision {
        return Some(format!(
            "revision {revision} holds an event of {}",
            event.revision
        ));
    }
    match (event.kind, before) {
        (_, Known::Unknown) => None,
        (EventKind::Delete, Known::Present(_)) => None,
        (EventKind::Delete, Known::Absent) => Some(format!(
            "revision {revision} deletes {}, which is not there",
            event.key
        )),
        (EventKind::Put, before) => {
            let expected = match before {
                Known::Present(kv) => (kv.create_revision, kv.version + 1),
                _ => (revision, 1),
            };
            let got = (event.create_revision, event.version);
            (got != expected).then(|| {
                let (create, version) = expected;
                format!("{event} should have create revision {create} and version {version}")
            })
        }
    }
}
