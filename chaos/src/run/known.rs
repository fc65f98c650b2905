//! What a program is known to do wrong and its later versions do right: found by the checks, told, and not counted
//! against a run that is about something else. Of `barque` nothing is known: whatever is found fails.

use barque_chaos::cluster::Kind as Program;
use barque_checks::{
    Check, Verdict, Violation,
    history::{
        EventKind, FaultRecord, History, Operation, Request, WatchEvent, WatchKind, WatchRecord,
        WatchResponse,
    },
};

use super::kind::Kind;

/// A leader that goes on after it stood still takes no longer than this to hear that another leads.
const UNTIL_DEPOSED_US: u64 = 1_000_000;

type IsKnown = fn(&History, &Violation) -> bool;

/// The check that sees it, the issue that tells of it, and what is nothing else.
const DEFECTS: [(&str, u32, IsKnown); 3] = [
    ("watches", 18089, lost_delete),
    ("watches", 15220, progress_beside_events),
    ("leases", 15247, deposed_lessor),
];

/// Takes the violations out of the checks that are nothing but a known defect, and says what they were.
pub fn set_aside(program: Program, history: &History, checks: &mut [Check]) -> Vec<String> {
    let mut told = Vec::new();
    if program == Program::Barque {
        return told;
    }
    for (name, issue, is_known) in DEFECTS {
        for check in checks.iter_mut().filter(|check| check.name == name) {
            let (known, others) = check
                .violations
                .drain(..)
                .partition(|violation| is_known(history, violation));
            check.violations = others;
            told.extend(describe(issue, known));
            if check.failed() && check.violations.is_empty() && check.more_violations == 0 {
                check.verdict = Verdict::Passed;
            }
        }
    }
    told
}

fn describe(issue: u32, known: Vec<Violation>) -> impl Iterator<Item = String> {
    known
        .into_iter()
        .map(move |violation| format!("etcd-io/etcd issue {issue}: {violation}"))
}

/// A leader that goes on after it stood still keeps its leases for a moment longer: it ends those that others renewed
/// meanwhile, knows nothing of those that others granted, and renews and shows what others have ended.
fn deposed_lessor(history: &History, violation: &Violation) -> bool {
    let is_early = violation.text.starts_with("said to be gone before its time: ")
        || violation.text.contains(" µs early, after ");
    let is_late = violation.text.starts_with("alive after ");
    let suspects = match violation.operations.as_slice() {
        operations if is_early => operations,
        [.., last] if is_late => std::slice::from_ref(last),
        _ => &[],
    };
    let mut operations = suspects.iter().map(|index| &history.operations[*index]);
    operations.any(|operation| met_deposed_leader(history, operation))
}

/// Whether it was under way while a leader stood still, or hardly later.
fn met_deposed_leader(history: &History, operation: &Operation) -> bool {
    let is_of_lease = matches!(
        operation.request,
        Request::LeaseKeepAlive { .. } | Request::LeaseTimeToLive { .. }
    );
    let met = |fault: &FaultRecord| {
        fault.kind == Kind::StopLeader.name()
            && operation.call <= fault.until + UNTIL_DEPOSED_US
            && operation.ret.is_none_or(|ret| fault.from <= ret)
    };
    is_of_lease && history.faults.iter().any(met)
}

/// The answer to a request for progress does not go the way of the events: it comes ahead of events that it covers, or
/// behind newer ones.
fn progress_beside_events(history: &History, violation: &Violation) -> bool {
    let (Some(watch), Some(revision)) = (watch_of(history, violation), violation.revision) else {
        return false;
    };
    let text = &violation.text;
    text.starts_with("after a progress of revision ")
        || text.starts_with("progress of revision ") && told(watch).any(|event| event.revision == revision)
        || text.starts_with("the header's revision went back from ")
            && only_progress_went_back(watch, revision)
}

/// Whether the responses of this header revision that came behind a newer one are progress, or it is all that they came
/// behind.
fn only_progress_went_back(watch: &WatchRecord, revision: i64) -> bool {
    let is_progress = |response: &&WatchResponse| response.kind == WatchKind::Progress;
    let mut late = watch
        .responses
        .iter()
        .enumerate()
        .filter(|(_, response)| response.header_revision == revision);
    late.all(|(place, response)| {
        let mut newer = watch.responses[..place]
            .iter()
            .filter(|earlier| earlier.header_revision > revision);
        is_progress(&response) || newer.all(|earlier| is_progress(&earlier))
    })
}

/// A delete at the very revision at which a compaction was asked for is not told to a watch that begins there.
fn lost_delete(history: &History, violation: &Violation) -> bool {
    let Some(watch) = watch_of(history, violation) else {
        return false;
    };
    let start = watch.start_revision;
    let deletes = deletes_at(history, watch);
    let is_compacted = history
        .operations
        .iter()
        .any(|operation| operation.request == Request::Compact { revision: start });
    // The violation is that these are missing and nothing else, and not one of them was told.
    let is_about_them = deletes.iter().any(|delete| {
        let first_of = |skipped: usize| {
            skipped <= deletes.len() && violation.text.ends_with(&format!(", first {delete}"))
        };
        violation.text.ends_with(&format!(" without {delete}"))
            || skipped(&violation.text).is_some_and(first_of)
    });
    let is_told = told(watch).any(|event| event.revision == start && event.kind == EventKind::Delete);
    is_compacted && is_about_them && !is_told
}

fn watch_of<'h>(history: &'h History, violation: &Violation) -> Option<&'h WatchRecord> {
    history
        .watches
        .iter()
        .find(|watch| Some(watch.id) == violation.watch)
}

/// How many events a watch is said to have missed.
fn skipped(text: &str) -> Option<usize> {
    text.split_once(" missing before ")?.0.parse().ok()
}

/// What the watch should have been told of deletes at its start.
fn deletes_at<'h>(history: &'h History, watch: &WatchRecord) -> Vec<&'h WatchEvent> {
    let span = watch.span();
    let revisions = history
        .committed
        .iter()
        .flat_map(|committed| &committed.revisions);
    revisions
        .filter(|revision| revision.revision == watch.start_revision)
        .flat_map(|revision| &revision.events)
        .filter(|event| event.kind == EventKind::Delete && !watch.no_delete && span.contains(&event.key))
        .collect()
}

fn told(watch: &WatchRecord) -> impl Iterator<Item = &WatchEvent> {
    watch.responses.iter().flat_map(|response| match &response.kind {
        WatchKind::Events { events, .. } => events.as_slice(),
        _ => &[],
    })
}

#[cfg(test)]
mod tests {
    use std::ops::Range;

    use barque_checks::{
        check_all,
        history::{Answer, Committed, Operation, Outcome, Response},
    };

    use super::*;

    fn event(revision: i64, kind: EventKind, version: i64) -> WatchEvent {
        WatchEvent {
            revision,
            create_revision: if version == 0 { 0 } else { revision - version + 1 },
            version,
            key: "k/1".into(),
            kind,
            value: if version == 0 {
                String::new()
            } else {
                format!("0/{revision}")
            },
            lease: 0,
            prev_kv: None,
        }
    }

    fn response(header_revision: i64, kind: WatchKind) -> WatchResponse {
        WatchResponse {
            time: 100,
            header_revision,
            kind,
        }
    }

    /// Put, delete, put; compacted at the delete or not; watched from there on, with progress, without being told of the
    /// delete.
    fn history(compacted: i64) -> History {
        let events = [
            event(2, EventKind::Put, 1),
            event(3, EventKind::Delete, 0),
            event(4, EventKind::Put, 1),
        ];
        let told = WatchKind::Events {
            events: vec![events[2].clone()],
            fragment: false,
        };
        let progress = WatchKind::Progress;
        let compact = Operation {
            client: 1,
            member: 1,
            life: 0,
            call: 10,
            ret: Some(20),
            request: Request::Compact { revision: compacted },
            outcome: Outcome::Done(Response {
                revision: 4,
                answer: Answer::Compact,
            }),
        };
        History {
            members: vec![1],
            operations: vec![compact],
            watches: vec![WatchRecord {
                member: 1,
                from: "k/1".into(),
                start_revision: 3,
                responses: vec![
                    response(3, WatchKind::Created),
                    response(3, progress),
                    response(4, told),
                ],
                ..WatchRecord::default()
            }],
            committed: Some(Committed::from_events(1, Some(Vec::new()), events)),
            ..History::default()
        }
    }

    fn judged(program: Program, history: &History, name: &str) -> (Vec<String>, bool) {
        let mut checks = check_all(history);
        let told = set_aside(program, history, &mut checks);
        let check = checks.iter().find(|check| check.name == name).unwrap();
        (told, check.passed())
    }

    fn watches(program: Program, compacted: i64) -> (Vec<String>, bool) {
        judged(program, &history(compacted), "watches")
    }

    #[test]
    fn only_etcd_is_forgiven_and_only_at_the_compacted_revision() {
        let (told, passed) = watches(Program::Etcd, 3);
        assert!(passed && told.len() == 2, "{told:?}");
        assert!(told.iter().all(|told| told.contains("18089")), "{told:?}");
        assert_eq!(watches(Program::Etcd, 2), (Vec::new(), false));
        assert_eq!(watches(Program::Barque, 3), (Vec::new(), false));
    }

    fn put(revision: i64) -> WatchResponse {
        let events = vec![event(revision, EventKind::Put, revision - 1)];
        response(
            revision,
            WatchKind::Events {
                events,
                fragment: false,
            },
        )
    }

    /// Three puts of a key at the revisions 2 to 4; a watch of it answers in this order after its creation.
    fn watch_of_puts(responses: Vec<WatchResponse>) -> History {
        let created = response(1, WatchKind::Created);
        History {
            members: vec![1],
            watches: vec![WatchRecord {
                member: 1,
                from: "k/1".into(),
                start_revision: 2,
                responses: [vec![created], responses].concat(),
                ..WatchRecord::default()
            }],
            committed: Some(Committed::from_events(
                1,
                Some(Vec::new()),
                (2..5).map(|revision| event(revision, EventKind::Put, revision - 1)),
            )),
            ..History::default()
        }
    }

    #[test]
    fn only_etcd_is_forgiven_and_only_progress_beside_the_events() {
        let progress = |revision| response(revision, WatchKind::Progress);
        let behind = watch_of_puts(vec![put(2), put(3), progress(2), put(4)]);
        let ahead = watch_of_puts(vec![progress(4), put(2), put(3), put(4)]);
        for (history, violations) in [(&behind, 1), (&ahead, 1 + 2 + 3)] {
            let (told, passed) = judged(Program::Etcd, history, "watches");
            assert!(passed && told.len() == violations, "{told:?}");
            assert!(told.iter().all(|told| told.contains("15220")), "{told:?}");
            assert_eq!(judged(Program::Barque, history, "watches"), (Vec::new(), false));
        }
        let never_told = watch_of_puts(vec![put(2), put(3), progress(4)]);
        let older = WatchResponse {
            header_revision: 2,
            ..put(4)
        };
        let events_went_back = watch_of_puts(vec![put(2), put(3), older]);
        for history in [never_told, events_went_back] {
            assert_eq!(judged(Program::Etcd, &history, "watches"), (Vec::new(), false));
        }
    }

    fn lease(call: u64, request: Request, revision: i64, answer: Answer) -> Operation {
        Operation {
            client: 1,
            member: 1,
            life: 0,
            call,
            ret: Some(call + 1_000),
            request,
            outcome: Outcome::Done(Response { revision, answer }),
        }
    }

    /// Granted for five seconds at 1 s, renewed at 4 s and gone at 7 s; a leader stood still meanwhile.
    fn ended_early(stopped: Range<u64>) -> History {
        let grant = Request::LeaseGrant { id: 7, ttl: 5 };
        let keep_alive = Request::LeaseKeepAlive { id: 7 };
        let operations = vec![
            lease(1_000_000, grant, 1, Answer::LeaseGrant { id: 7, ttl: 5 }),
            lease(
                4_000_000,
                keep_alive.clone(),
                1,
                Answer::LeaseKeepAlive { ttl: 5 },
            ),
            lease(7_000_000, keep_alive, 1, Answer::LeaseKeepAlive { ttl: 0 }),
        ];
        let stopped = FaultRecord {
            kind: "stop-leader".into(),
            members: vec![1],
            from: stopped.start,
            until: stopped.end,
            observed: Some("state T".into()),
        };
        History {
            members: vec![1],
            operations,
            faults: vec![stopped],
            committed: Some(Committed::from_events(1, Some(Vec::new()), [])),
            ..History::default()
        }
    }

    fn leases(program: Program, stopped: Range<u64>) -> (Vec<String>, bool) {
        judged(program, &ended_early(stopped), "leases")
    }

    #[test]
    fn only_etcd_is_forgiven_and_only_what_was_renewed_or_asked_while_its_leader_stood_still() {
        for stopped in [3_000_000..5_500_000, 4_500_000..6_800_000] {
            let (told, passed) = leases(Program::Etcd, stopped.clone());
            assert!(passed && told.len() == 1 && told[0].contains("15247"), "{told:?}");
            assert_eq!(leases(Program::Barque, stopped), (Vec::new(), false));
        }
        assert_eq!(leases(Program::Etcd, 4_500_000..5_500_000), (Vec::new(), false));
    }
}
