//! A client of keys, at one member until it is tired of it or of being refused.

use barque_checks::history::{Answer, Outcome, Request, Response};
use rand::Rng;
use tokio::time::sleep;

use crate::{Plan, Recorder, Target, caller::Caller, choice::Choice};

pub async fn run(number: u32, target: Target, plan: Plan, recorder: Recorder) {
    call(number, target, plan, recorder, Choice::request).await;
}

pub async fn only_read(number: u32, target: Target, plan: Plan, recorder: Recorder) {
    call(number, target, plan, recorder, Choice::read).await;
}

async fn call(
    number: u32,
    target: Target,
    plan: Plan,
    recorder: Recorder,
    next: impl Fn(&mut Choice) -> Request,
) {
    let mut choice = Choice::new(&plan, number);
    let mut caller = Caller::new(number, target.clone(), plan.timeout, recorder.clone());
    let mut member = choice.member(&target.members);
    while !recorder.is_stopping() {
        let request = next(&mut choice);
        let outcome = caller.call(member, request).await;
        if let Outcome::Done(response) = &outcome {
            learn(&mut choice, response);
        }
        if !matches!(outcome, Outcome::Done(_)) || choice.rng.random_bool(0.03) {
            member = choice.member(&target.members);
        }
        sleep(plan.pause.mul_f64(choice.rng.random_range(0.0..1.0))).await;
    }
}

fn learn(choice: &mut Choice, response: &Response) {
    choice.seen = choice.seen.max(response.revision);
    if let Answer::Range { kvs, .. } = &response.answer {
        for kv in kvs {
            let newest = (kv.value.clone(), kv.mod_revision);
            choice.values.insert(kv.key.clone(), newest);
        }
    }
    if let Answer::Txn { responses, .. } = &response.answer {
        responses.iter().for_each(|nested| learn(choice, nested));
    }
}
