//! Leases that end early, late or in pieces.

use barque_checks::history::{Answer, Outcome, Request};

use super::{assert_caught, check, handmade::Handmade, store::Lease, traffic::Traffic};

const LEASES: &str = "leases";
const SECOND: u64 = 1_000_000;

fn put(key: &str, value: &str, lease: i64) -> Request {
    Request::Put {
        key: key.to_owned(),
        value: value.to_owned(),
        prev_kv: false,
        lease,
    }
}

/// Two keys on a lease of two seconds, kept alive at one second: it ends at three at the earliest.
fn kept_alive() -> Handmade {
    let mut made = Handmade::new();
    made.run(1, 10, Request::LeaseGrant { id: 7, ttl: 2 });
    made.run(1, 20, put("a", "1/1", 7));
    made.run(1, 30, put("b", "1/2", 7));
    made.run(1, SECOND, Request::LeaseKeepAlive { id: 7 });
    made
}

fn ends_at(made: &mut Handmade, deadline: u64) {
    made.store.leases.get_mut(&7).expect("it lives").deadline = deadline;
}

#[test]
fn the_traffic_of_leases_ends_some_with_keys() {
    let traffic = Traffic {
        leases: true,
        pause: 200_000,
        keys: 20,
        operations: 400,
        ..Traffic::default()
    };
    let (history, store) = traffic.history_and_store();
    let ended = store
        .log
        .iter()
        .filter(|listed| listed.events.len() > 1 && listed.events.iter().all(|e| e.version == 0));
    assert!(ended.count() > 0);
    assert!(check(&history, LEASES).checked > 50);
}

#[test]
fn early() {
    let mut made = kept_alive();
    made.run(2, 3 * SECOND + 10, Request::get("a"));
    assert!(check(&made.history(), LEASES).passed());

    let mut made = kept_alive();
    ends_at(&mut made, 2 * SECOND + 500_000);
    made.run(2, 2 * SECOND + 600_000, Request::get("a"));
    assert_caught(&made.history(), LEASES, "early");
    let mut history = made.history();
    history.clock_tolerance_us = 500_000;
    assert!(check(&history, LEASES).passed(), "a tolerance is granted");
}

/// Seen after its time, whenever it happened: nothing can be said.
#[test]
fn early_but_seen_late() {
    let mut made = kept_alive();
    ends_at(&mut made, 2 * SECOND);
    made.run(2, 4 * SECOND, Request::get("a"));
    assert!(check(&made.history(), LEASES).passed());
}

/// A revoke whose outcome is not known may have ended it.
#[test]
fn early_by_a_revoke() {
    let mut made = kept_alive();
    made.unknown(3, SECOND + 500_000, Request::LeaseRevoke { id: 7 });
    ends_at(&mut made, 2 * SECOND);
    made.run(2, 2 * SECOND + 100, Request::get("a"));
    assert!(check(&made.history(), LEASES).passed());
    made.operations[4].outcome = Outcome::NotApplied("etcdserver: no leader".to_owned());
    assert_caught(&made.history(), LEASES, "early");
}

#[test]
fn said_to_be_gone_before_its_time() {
    let mut made = Handmade::new();
    made.run(1, 10, Request::LeaseGrant { id: 7, ttl: 2 });
    made.store.leases.clear();
    made.run(1, SECOND, Request::LeaseKeepAlive { id: 7 });
    assert_caught(&made.history(), LEASES, "gone before its time");
    made.operations[1].request = Request::LeaseTimeToLive { id: 7 };
    made.operations[1].outcome = Outcome::Done(barque_checks::history::Response {
        revision: 1,
        answer: Answer::LeaseTimeToLive {
            ttl: -1,
            granted_ttl: 0,
        },
    });
    assert_caught(&made.history(), LEASES, "gone before its time");
}

#[test]
fn kept_after_a_revoke() {
    let mut made = kept_alive();
    made.claim(
        1,
        SECOND + 100,
        Request::LeaseRevoke { id: 7 },
        Answer::LeaseRevoke,
    );
    assert_caught(&made.history(), LEASES, "hangs on a lease that was revoked");
    made.run(2, SECOND + 200, Request::LeaseKeepAlive { id: 7 });
    assert_caught(&made.history(), LEASES, "alive after it was revoked");
}

#[test]
fn alive_after_its_keys_had_gone() {
    let mut made = kept_alive();
    made.run(2, 4 * SECOND, Request::get("a"));
    let (ttl, granted_ttl) = (1, 2);
    let answer = Answer::LeaseTimeToLive { ttl, granted_ttl };
    made.claim(2, 5 * SECOND, Request::LeaseTimeToLive { id: 7 }, answer);
    assert_caught(&made.history(), LEASES, "alive after its keys had gone");
}

#[test]
fn a_put_with_a_lease_that_is_gone() {
    let mut made = kept_alive();
    made.run(2, 4 * SECOND, Request::get("a"));
    let refused = made.run(2, 5 * SECOND, put("a", "2/1", 7));
    assert!(made.operations[refused].is_not_applied());
    assert!(check(&made.history(), LEASES).passed());
    let (ttl, deadline) = (2, u64::MAX);
    made.store.leases.insert(7, Lease { ttl, deadline });
    made.run(2, 6 * SECOND, put("a", "2/2", 7));
    assert_caught(&made.history(), LEASES, "attached to a lease that was gone");
}

#[test]
fn a_put_with_a_lease_that_was_not_granted() {
    let mut made = Handmade::new();
    let (ttl, deadline) = (2, u64::MAX);
    made.store.leases.insert(7, Lease { ttl, deadline });
    made.run(1, 10, put("a", "1/1", 7));
    assert_caught(&made.history(), LEASES, "that nobody granted");
    made.run(1, 100, Request::LeaseGrant { id: 7, ttl: 2 });
    assert_caught(&made.history(), LEASES, "that was not granted yet");
}

#[test]
fn keys_that_go_one_by_one() {
    let mut made = kept_alive();
    made.store
        .run(&Request::delete("a"), 2 * SECOND)
        .expect("a delete");
    made.store
        .run(&Request::delete("b"), 2 * SECOND + 1)
        .expect("a delete");
    assert_caught(&made.history(), LEASES, "did not go together");
}

#[test]
fn granted_for_less() {
    let mut made = Handmade::new();
    let answer = Answer::LeaseGrant { id: 7, ttl: 1 };
    made.claim(1, 10, Request::LeaseGrant { id: 7, ttl: 2 }, answer);
    assert_caught(&made.history(), LEASES, "granted for less");
}

/// Nobody renews it any more, and it is still there.
#[test]
fn for_ever() {
    let mut made = kept_alive();
    ends_at(&mut made, 100 * SECOND);
    made.run(2, 20 * SECOND, Request::get("a"));
    let mut history = made.history();
    assert!(
        check(&history, LEASES).passed(),
        "nobody says that it was waited for"
    );
    history.outlived_leases = true;
    assert_caught(&history, LEASES, "for longer than it lives");
    let mut made = kept_alive();
    made.run(2, 20 * SECOND, Request::get("a"));
    let mut history = made.history();
    history.outlived_leases = true;
    assert!(check(&history, LEASES).passed());
}
