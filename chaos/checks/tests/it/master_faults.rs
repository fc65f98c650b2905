//! Members that differ, Kubernetes watchers that miss things, runs that prove nothing.

use barque_checks::{
    History,
    availability::availability,
    history::{
        FaultRecord, KubernetesRecord,
        KubernetesType::{self, Added, Bookmark, Deleted, Item, Listed, Modified},
        KubernetesWrite, LeaderRecord, Outcome, Request, WatchKind, WatchRecord, WatchResponse,
    },
};

use super::{assert_caught, check, handmade::Handmade, traffic::Traffic};

const EQUAL: &str = "members equal";
pub const KUBERNETES: &str = "kubernetes watches";
pub const COUNTS: &str = "the run counts";
pub const RECOVERS: &str = "recovers after the last fault";

#[test]
fn members_that_differ() {
    let mut history = Traffic::default().history();
    history.states[2].hash ^= 1;
    assert_caught(&history, EQUAL, "of member 2");
    history.states[2].compact_revision += 1;
    assert!(
        check(&history, EQUAL).passed(),
        "hashes after different compactions are not compared"
    );
    history.states[1].revision -= 1;
    assert_caught(&history, EQUAL, "having applied entry");
}

#[test]
fn two_leaders_of_one_term() {
    let mut history = Traffic::default().history();
    history.leaders.push(LeaderRecord {
        time: 9,
        term: 2,
        member: 2,
    });
    assert_caught(&history, "one leader a term", "both led in term 2");
}

/// (watcher, master, resourceVersion, kind, name, uid)
pub type Told = (u32, u32, i64, KubernetesType, &'static str, &'static str);

pub fn told(records: &[Told]) -> History {
    let record = |(time, told): (usize, &Told)| {
        let (watcher, master, resource_version, kind, name, uid) = *told;
        KubernetesRecord {
            watcher,
            master,
            time: time as u64,
            selection: "pods".to_owned(),
            resource_version,
            kind,
            name: name.to_owned(),
            uid: uid.to_owned(),
        }
    };
    History {
        kubernetes: records.iter().enumerate().map(record).collect(),
        ..History::default()
    }
}

/// Two watchers; the first goes on at another master after revision 12.
const RIGHT: [Told; 12] = [
    (1, 0, 10, Listed, "", ""),
    (1, 0, 8, Item, "a", "u1"),
    (2, 1, 11, Listed, "", ""),
    (2, 1, 8, Item, "a", "u1"),
    (2, 1, 11, Item, "b", "u2"),
    (1, 0, 11, Added, "b", "u2"),
    (1, 0, 12, Modified, "a", "u1"),
    (1, 2, 15, Deleted, "a", "u1"),
    (2, 1, 12, Modified, "a", "u1"),
    (2, 1, 15, Deleted, "a", "u1"),
    (2, 1, 20, Bookmark, "", ""),
    (1, 2, 21, Added, "a", "u3"),
];

/// The right records with one replaced or, given nothing, left out.
fn but(at: usize, told_instead: Option<Told>) -> History {
    let mut records = RIGHT.to_vec();
    records.splice(at..=at, told_instead);
    told(&records)
}

#[test]
fn kubernetes_watchers() {
    assert!(
        check(&told(&RIGHT), KUBERNETES).passed(),
        "{}",
        check(&told(&RIGHT), KUBERNETES)
    );
    assert_caught(
        &but(6, None),
        KUBERNETES,
        "watcher 1 of pods was not told: modified a",
    );
    assert_caught(
        &but(9, None),
        KUBERNETES,
        "watcher 2 of pods was not told: deleted a",
    );
    assert_caught(
        &but(7, Some((1, 2, 12, Modified, "a", "u1"))),
        KUBERNETES,
        "an event again, or too late",
    );
    assert_caught(
        &but(10, Some((2, 1, 14, Bookmark, "", ""))),
        KUBERNETES,
        "a bookmark went back",
    );
    assert_caught(
        &but(11, Some((1, 2, 14, Listed, "", ""))),
        KUBERNETES,
        "a list went back",
    );
    assert_caught(
        &but(7, Some((1, 2, 15, Deleted, "a", "u9"))),
        KUBERNETES,
        "uid u9 instead of u1",
    );
    assert_caught(
        &but(5, Some((1, 0, 11, Added, "a", "u2"))),
        KUBERNETES,
        "added, and was there",
    );
    assert_caught(&but(1, None), KUBERNETES, "an object that was never added");
    assert_caught(
        &but(1, Some((1, 0, 11, Item, "a", "u1"))),
        KUBERNETES,
        "newer than its list",
    );
}

#[test]
fn runs_that_prove_nothing() {
    let right = Traffic::default().history();
    assert!(check(&right, COUNTS).passed());
    let mut history = right.clone();
    history.faults[0].observed = None;
    assert_caught(&history, COUNTS, "no kill was seen to happen");
    let mut history = right.clone();
    history.requested_faults.push("full disk".to_owned());
    assert_caught(&history, COUNTS, "no full disk was seen to happen");
    let mut history = right;
    let half = history.operations.len() / 2;
    for operation in &mut history.operations[half..] {
        operation.outcome = Outcome::Unknown("etcdserver: request timed out".to_owned());
    }
    assert_caught(&history, COUNTS, "operations in quiet times succeeded");
    assert_caught(&history, RECOVERS, "after the last fault succeeded");
}

/// One watch may be told nothing; if all are, though what they watch is changed, the run proves nothing of watches.
#[test]
fn watches_that_were_told_nothing() {
    let mut made = Handmade::new();
    made.run(1, 100, Request::put("k", "1/1"));
    made.run(1, 200, Request::put("k", "1/2"));
    let watch = |start_revision| WatchRecord {
        from: "k".to_owned(),
        start_revision,
        responses: vec![WatchResponse {
            time: 50,
            header_revision: 1,
            kind: WatchKind::Created,
        }],
        ..WatchRecord::default()
    };
    let with = |watches: Vec<WatchRecord>| History {
        watches,
        ..made.history()
    };
    assert_caught(&with(vec![watch(0)]), COUNTS, "no watch was told of any");
    assert_caught(
        &with(vec![watch(9), watch(3)]),
        COUNTS,
        "no watch was told of any",
    );
    assert!(check(&with(vec![watch(4)]), COUNTS).passed(), "all was over");
    let mut told = watch(3);
    told.responses.push(WatchResponse {
        time: 250,
        header_revision: 3,
        kind: WatchKind::Events {
            events: made.store.committed().revisions[1].events.clone(),
            fragment: false,
        },
    });
    assert!(check(&with(vec![watch(0), told]), COUNTS).passed());
    let uninterested = WatchRecord {
        no_put: true,
        ..watch(0)
    };
    assert!(check(&with(vec![uninterested]), COUNTS).passed());
}

/// One lease with a key, from its grant until long after its time.
#[test]
fn leases_that_never_end() {
    let leased = Request::Put {
        key: "k".to_owned(),
        value: "1/1".to_owned(),
        prev_kv: false,
        lease: 7,
    };
    let begun = || {
        let mut made = Handmade::new();
        made.run(1, 100, Request::LeaseGrant { id: 7, ttl: 1 });
        made.run(1, 200, leased.clone());
        made
    };
    let outlived = |made: &Handmade| History {
        outlived_leases: true,
        ..made.history()
    };
    let made = begun();
    assert_caught(&outlived(&made), COUNTS, "none was seen to end");
    assert!(check(&made.history(), COUNTS).passed(), "it may still live");

    let mut revoked = begun();
    revoked.run(1, 300, Request::LeaseRevoke { id: 7 });
    assert!(check(&outlived(&revoked), COUNTS).passed());

    let mut expired = begun();
    expired.store.expire(10_000_000);
    assert!(
        check(&outlived(&expired), COUNTS).passed(),
        "{}",
        check(&outlived(&expired), COUNTS)
    );

    // A delete by a client is no end of a lease.
    let mut deleted = begun();
    deleted.run(1, 300, Request::delete("k"));
    assert_caught(&outlived(&deleted), COUNTS, "none was seen to end");
}

#[test]
fn times_of_availability() {
    let mut made = Handmade::new();
    for (at, call) in [100, 200, 300, 2_000_300, 2_000_400].into_iter().enumerate() {
        made.run(1, call, Request::put("k", format!("1/{at}")));
    }
    made.unknown(2, 400, Request::get("k"));
    let mut history = made.history();
    history.faults.push(FaultRecord {
        kind: "kill".to_owned(),
        from: 350,
        until: 500,
        observed: Some("gone".to_owned()),
        ..FaultRecord::default()
    });
    let found = availability(&history);
    assert_eq!(found.median_gap, Some(100));
    assert_eq!(found.worst_gap, Some((302, 2_000_302)));
    assert_eq!(found.recovery, Some(1_999_802));
    let counts: Vec<u64> = found.seconds.iter().map(|second| second.done).collect();
    assert_eq!(counts, [3, 0, 2]);
    assert_eq!(
        (found.outcomes["put"].done, found.outcomes["get"].unknown),
        (5, 1)
    );
}

#[test]
fn what_was_acknowledged_is_told() {
    let write = |resource_version, name: &str| KubernetesWrite {
        writer: 1,
        master: 0,
        time: 1,
        selection: "pods".to_owned(),
        resource_version,
        kind: Added,
        name: name.to_owned(),
        uid: "u9".to_owned(),
    };
    let with = |writes: &[KubernetesWrite]| History {
        kubernetes_writes: writes.to_vec(),
        ..told(&RIGHT)
    };
    // Before anybody looked, and after.
    assert!(check(&with(&[write(5, "x"), write(30, "y")]), KUBERNETES).passed());
    assert_caught(
        &with(&[write(13, "x")]),
        KUBERNETES,
        "watcher 1 of pods was not told: added x",
    );
    assert_caught(
        &with(&[write(5, "x"), write(5, "y")]),
        KUBERNETES,
        "with the same resourceVersion",
    );
}

#[test]
fn objects_that_nobody_served() {
    let mut history = Traffic::default().history();
    assert!(check(&history, COUNTS).passed());
    history.has_objects = true;
    assert_caught(&history, COUNTS, "0 changes of objects were acknowledged");
}
