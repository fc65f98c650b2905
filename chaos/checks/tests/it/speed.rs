//! Fifty thousand operations on a hundred keys; how long that took is printed, not judged.

use std::time::Instant;

use barque_checks::{
    History,
    history::{Answer, Outcome, Request},
};

use super::{assert_caught, assert_right, check, handmade::VALUES, traffic::Traffic};

fn large(tied: bool) -> Traffic {
    Traffic {
        seed: 11,
        clients: 10,
        operations: 50_000,
        keys: 100,
        tied,
        watches: 10,
        ..Traffic::default()
    }
}

#[test]
fn fifty_thousand_operations() {
    for tied in [false, true] {
        let history = large(tied).history();
        let start = Instant::now();
        assert_right(&history);
        println!("right, tied: {tied}, {:?}", start.elapsed());
    }
}

#[test]
fn fifty_thousand_operations_with_leases() {
    let traffic = Traffic {
        leases: true,
        pause: 20_000,
        ..large(true)
    };
    let history = traffic.history();
    let start = Instant::now();
    assert_right(&history);
    println!("right, with leases: {:?}", start.elapsed());
}

/// One get, late in the history, that is answered with what the key was half the history ago.
fn make_stale(history: &mut History) {
    let middle = history.operations.len() / 2;
    let (early, late) = history.operations.split_at_mut(middle);
    let is_get = |request: &Request| {
        matches!(
            request,
            Request::Get {
                serializable: false,
                revision: 0,
                ..
            }
        )
    };
    let gets = early.iter().filter(|operation| is_get(&operation.request));
    let mut full = gets.filter(|get| match get.response().map(|response| &response.answer) {
        Some(Answer::Range { count, .. }) => *count > 0,
        _ => false,
    });
    let old = full.next_back().expect("some key is there in the middle");
    let mut later = late
        .iter_mut()
        .rev()
        .filter(|operation| operation.response().is_some());
    let stale = later
        .find(|operation| operation.request == old.request)
        .expect("a get of the same key");
    let (Outcome::Done(stale), Some(old)) = (&mut stale.outcome, old.response()) else {
        panic!("both were answered");
    };
    stale.answer = old.answer.clone();
}

#[test]
fn one_stale_read_among_fifty_thousand_operations() {
    for tied in [false, true] {
        let mut history = large(tied).history();
        make_stale(&mut history);
        let start = Instant::now();
        assert_caught(&history, VALUES, "no order");
        println!("wrong, tied: {tied}, {:?}", start.elapsed());
        let found = check(&history, VALUES);
        assert!(found.violations[0].operations.len() <= 6, "{found}");
    }
}

/// As of members that went different ways: every key contradicts itself over and over.
#[test]
fn thousands_of_stale_reads() {
    let traffic = Traffic {
        keys: 5,
        operations: 20_000,
        ..large(false)
    };
    let mut history = traffic.history();
    let half = history.operations.len() / 2;
    let (early, late) = history.operations.split_at_mut(half);
    for (now, before) in late.iter_mut().zip(early.iter()) {
        let both = (&mut now.outcome, before.response());
        if let (Outcome::Done(now), Some(before)) = both
            && matches!(
                (&now.answer, &before.answer),
                (Answer::Range { .. }, Answer::Range { .. })
            )
        {
            now.answer = before.answer.clone();
        }
    }
    let start = Instant::now();
    assert_caught(&history, VALUES, "no order");
    println!("thousands wrong: {:?}", start.elapsed());
}
