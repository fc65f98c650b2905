//! Clients of the Kubernetes API that are sent away, told old things, or not served at all.

use barque_checks::{
    History,
    availability::availability,
    history::{
        Answer, FaultRecord, KubernetesCall, KubernetesError, KubernetesOutcome,
        KubernetesType::{Added, Bookmark, Deleted, Item, Listed, Modified},
        KubernetesVerb, LeaderRecord, Request,
    },
};

use super::{
    assert_caught, check,
    handmade::Handmade,
    master_faults::{COUNTS, KUBERNETES, RECOVERS, Told, told},
};

const SECOND: u64 = 1_000_000;

/// One watcher was told up to 15, when its watch was ended at this moment.
fn ended(code: u16, time: u64) -> History {
    let mut history = told(&[
        (1, 0, 10, Listed, "", ""),
        (1, 0, 8, Item, "a", "u1"),
        (1, 0, 15, Modified, "a", "u1"),
    ]);
    history.kubernetes_errors.push(KubernetesError {
        watcher: 1,
        master: 0,
        time,
        selection: "pods".to_owned(),
        resource_version: 15,
        code,
        text: "too old".to_owned(),
    });
    history
}

/// The same, with a compaction asked for at a moment.
fn compacted(mut history: History, revision: i64, call: u64) -> History {
    let mut made = Handmade::new();
    made.claim(1, call, Request::Compact { revision }, Answer::Compact);
    history.operations = made.operations;
    history
}

#[test]
fn a_watch_is_gone_only_if_that_was_compacted() {
    assert_caught(&ended(410, 1000), KUBERNETES, "which nobody had asked for");
    let right = compacted(ended(410, 1000), 16, 500);
    assert!(
        check(&right, KUBERNETES).passed(),
        "{}",
        check(&right, KUBERNETES)
    );
    // What it was told was enough to go on.
    let too_low = compacted(ended(410, 1000), 15, 500);
    assert_caught(
        &too_low,
        KUBERNETES,
        "watcher 1 of pods at master 0: ended as compacted",
    );
    let too_late = compacted(ended(410, 1000), 16, 2000);
    assert_caught(&too_late, KUBERNETES, "which nobody had asked for");
}

#[test]
fn a_watch_is_not_ended_with_an_error_in_quiet_times() {
    let with = |code: u16, time: u64| History {
        faults: vec![FaultRecord {
            from: 20 * SECOND,
            until: 30 * SECOND,
            ..FaultRecord::default()
        }],
        leaders: vec![LeaderRecord {
            time: 60 * SECOND,
            term: 2,
            member: 1,
        }],
        ..ended(code, time)
    };
    for moment in [25, 32, 57, 63] {
        assert!(
            check(&with(503, moment * SECOND), KUBERNETES).passed(),
            "{moment}"
        );
    }
    for moment in [10, 45, 80] {
        assert_caught(
            &with(503, moment * SECOND),
            KUBERNETES,
            "ended with an error: too old",
        );
    }
    // Whatever is done to the members.
    assert_caught(&with(400, 25 * SECOND), KUBERNETES, "ended with an error");
    assert_caught(&with(0, 25 * SECOND), KUBERNETES, "what is no event");
}

/// Listed again at a revision, after a was changed at 12 and b was deleted at 13.
fn listed_again(items: &[Told]) -> History {
    let mut records: Vec<Told> = vec![
        (1, 0, 10, Listed, "", ""),
        (1, 0, 8, Item, "a", "u1"),
        (1, 0, 9, Item, "b", "u2"),
        (1, 0, 12, Modified, "a", "u1"),
        (1, 0, 13, Deleted, "b", "u2"),
        (1, 0, 14, Bookmark, "", ""),
        (1, 2, 20, Listed, "", ""),
    ];
    records.extend(items);
    told(&records)
}

#[test]
fn a_list_is_not_older_than_what_was_told() {
    let right = listed_again(&[
        (1, 2, 12, Item, "a", "u1"),
        (1, 2, 16, Item, "b", "u3"),
        (1, 2, 21, Added, "c", "u4"),
    ]);
    assert!(
        check(&right, KUBERNETES).passed(),
        "{}",
        check(&right, KUBERNETES)
    );
    let deleted_since = listed_again(&[]);
    assert!(check(&deleted_since, KUBERNETES).passed());
    assert_caught(
        &listed_again(&[(1, 2, 8, Item, "a", "u1")]),
        KUBERNETES,
        "listed as it was before 12",
    );
    assert_caught(
        &listed_again(&[(1, 2, 9, Item, "b", "u2")]),
        KUBERNETES,
        "listed as it was before 13",
    );
}

fn call(at: u64, verb: KubernetesVerb, outcome: KubernetesOutcome) -> KubernetesCall {
    KubernetesCall {
        master: 0,
        call: at,
        ret: at + 10,
        verb,
        outcome,
    }
}

fn failed() -> KubernetesOutcome {
    KubernetesOutcome::Failed("no answer".to_owned())
}

/// Nobody but clients of the Kubernetes API, and a fault from 1000 to 2000.
fn objects(calls: Vec<KubernetesCall>) -> History {
    History {
        kubernetes_calls: calls,
        has_objects: true,
        faults: vec![FaultRecord {
            kind: "kill".to_owned(),
            from: 1000,
            until: 2000,
            observed: Some("gone".to_owned()),
            ..FaultRecord::default()
        }],
        aftermath_us: Some(500),
        ..History::default()
    }
}

#[test]
fn objects_are_changed_again_after_the_last_fault() {
    use KubernetesVerb::{Create, List};
    let done = || KubernetesOutcome::Done;
    let right = objects(vec![
        call(1500, Create, failed()),
        call(2100, Create, failed()),
        call(3000, Create, done()),
    ]);
    assert!(check(&right, RECOVERS).passed(), "{}", check(&right, RECOVERS));
    assert_eq!(availability(&right).recovery, Some(1010));
    assert_eq!(availability(&right).outcomes["object create"].unknown, 2);
    // A list may be answered by one member alone.
    let only_listed = objects(vec![call(2100, Create, failed()), call(2200, List, done())]);
    assert_caught(
        &only_listed,
        RECOVERS,
        "none of 1 changes of objects after the last fault succeeded",
    );
    let silent = check(&objects(vec![call(500, Create, done())]), RECOVERS);
    assert!(!silent.passed() && !silent.failed(), "{silent}");
    // One API does not stand for the other.
    let mut made = Handmade::new();
    made.unknown(1, 2500, Request::get("x"));
    let half = History {
        operations: made.operations,
        ..right
    };
    assert_caught(
        &half,
        RECOVERS,
        "none of 1 operations after the last fault succeeded",
    );
}

#[test]
fn most_calls_for_objects_in_quiet_times_succeed() {
    use KubernetesVerb::{Delete, Patch, Watch};
    let says = "calls for objects in quiet times succeeded";
    let refused = || KubernetesOutcome::Refused("404 Not Found".to_owned());
    // While the fault is felt, anything may fail; a refusal by the rules is an answer.
    let felt = objects(vec![
        call(995, Patch, failed()),
        call(1500, Patch, failed()),
        call(2400, Watch, failed()),
        call(3000, Delete, refused()),
    ]);
    let found = check(&felt, COUNTS);
    assert!(
        !found
            .violations
            .iter()
            .any(|violation| violation.text.contains(says)),
        "{found}"
    );
    let quiet = objects(vec![call(2600, Watch, failed()), call(3000, Delete, refused())]);
    assert_caught(
        &quiet,
        COUNTS,
        "only 1 of 2 calls for objects in quiet times succeeded",
    );
    let none = objects(vec![call(1500, Patch, KubernetesOutcome::Done)]);
    assert_caught(&none, COUNTS, "no objects were called for in quiet times");
}
