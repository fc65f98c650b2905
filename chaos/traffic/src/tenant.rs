//! A client that holds leases: grants, attaches keys, keeps alive for a while, then revokes or lets expire.

use std::time::Duration;

use barque_checks::history::{Outcome, Request};
use rand::Rng;
use tokio::time::sleep;

use crate::{Plan, Recorder, Target, caller::Caller, choice::Choice};

/// Seconds: longer than checkpoints are apart in some runs, and over before a run ends.
const LONG_TTL: std::ops::Range<i64> = 6..14;

pub async fn run(number: u32, target: Target, plan: Plan, recorder: Recorder) {
    let mut choice = Choice::new(&plan, number);
    let mut caller = Caller::new(number, target.clone(), plan.timeout, recorder.clone());
    let mut count = 0;
    while !recorder.is_stopping() {
        count += 1;
        // Unique in the run, and never one that a member draws by itself for these clients.
        let id = i64::from(number) * 1_000_000 + count;
        match plan.large_leases && choice.rng.random_bool(0.3) {
            true => hold_many(id, &mut choice, &mut caller, &recorder).await,
            false => hold(id, &mut choice, &mut caller, &recorder).await,
        }
        sleep(Duration::from_millis(choice.rng.random_range(0..500))).await;
    }
}

/// With more keys than fit a word of bits, and for long enough to be checkpointed where that is done soon.
async fn hold_many(id: i64, choice: &mut Choice, caller: &mut Caller, recorder: &Recorder) {
    let members = caller.target.members.clone();
    let ttl = choice.rng.random_range(LONG_TTL);
    let member = choice.member(&members);
    let granted = caller.call(member, Request::LeaseGrant { id, ttl }).await;
    if !matches!(granted, Outcome::Done(_)) {
        return;
    }
    for number in 0..choice.rng.random_range(66..80) {
        let put = Request::Put {
            key: choice.leased_key(number),
            value: choice.value(),
            prev_kv: false,
            lease: id,
        };
        if !matches!(caller.call(member, put).await, Outcome::Done(_)) {
            break;
        }
    }
    for _ in 0..choice.rng.random_range(0..5) {
        if recorder.is_stopping() {
            return;
        }
        sleep(Duration::from_millis(choice.rng.random_range(500..4000))).await;
        caller
            .call(choice.member(&members), Request::LeaseKeepAlive { id })
            .await;
    }
    if choice.rng.random_bool(0.5) {
        caller
            .call(choice.member(&members), Request::LeaseRevoke { id })
            .await;
    }
}

async fn hold(id: i64, choice: &mut Choice, caller: &mut Caller, recorder: &Recorder) {
    let members = caller.target.members.clone();
    let ttl = choice.rng.random_range(2..6);
    let member = choice.member(&members);
    let granted = caller.call(member, Request::LeaseGrant { id, ttl }).await;
    if !matches!(granted, Outcome::Done(_)) {
        return;
    }
    for _ in 0..choice.rng.random_range(1..4) {
        // Those that all write are soon written without the lease.
        let key = match choice.rng.random_bool(0.7) {
            true => choice.own_key(),
            false => choice.key(),
        };
        let put = Request::Put {
            key,
            value: choice.value(),
            prev_kv: false,
            lease: id,
        };
        caller.call(choice.member(&members), put).await;
    }
    for _ in 0..choice.rng.random_range(0..6) {
        if recorder.is_stopping() {
            return;
        }
        sleep(Duration::from_millis(choice.rng.random_range(200..1500))).await;
        let request = match choice.rng.random_bool(0.8) {
            true => Request::LeaseKeepAlive { id },
            false => Request::LeaseTimeToLive { id },
        };
        caller.call(choice.member(&members), request).await;
    }
    match choice.rng.random_bool(0.5) {
        true => drop(
            caller
                .call(choice.member(&members), Request::LeaseRevoke { id })
                .await,
        ),
        // Expires by itself, most likely while nobody looks.
        false => sleep(Duration::from_secs(choice.rng.random_range(0..4))).await,
    }
}
