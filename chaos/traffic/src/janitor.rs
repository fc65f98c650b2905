//! Clients that compact, never beyond what the collector has: one now and then, another when it is told to.

use std::time::Duration;

use barque_checks::history::{Outcome, Request, Shape};
use barque_proto::etcd::etcdserverpb::alarm_request::AlarmAction;
use rand::Rng;
use tokio::time::sleep;

use crate::{COMPACTOR, Collector, Plan, Recorder, Target, caller::Caller, choice::Choice};

pub async fn run(number: u32, target: Target, plan: Plan, recorder: Recorder, collector: Collector) {
    let mut choice = Choice::new(&plan, number);
    let mut caller = Caller::new(number, target.clone(), plan.timeout, recorder.clone());
    let mut compacted = 0;
    while !recorder.is_stopping() {
        sleep(Duration::from_millis(choice.rng.random_range(500..3000))).await;
        let revision = collector.collected() - choice.rng.random_range(0..30);
        if revision > compacted && revision > 1 {
            caller
                .call(choice.member(&target.members), Request::Compact { revision })
                .await;
            compacted = revision;
            // The oldest revision that may still be read, once what lay before it is gone on disk as well.
            sleep(Duration::from_millis(choice.rng.random_range(0..1000))).await;
            let read = Request::Range {
                from: plan.prefix.clone(),
                to: format!("{}\u{7f}", plan.prefix),
                serializable: choice.rng.random_bool(0.5),
                revision,
                limit: 0,
                shape: Shape::default(),
            };
            caller.call(choice.member(&target.members), read).await;
        }
    }
}

/// As long as members say that there is no room: compacts all that the collector has, and disarms the alarm.
pub async fn disarm(number: u32, target: Target, plan: Plan, recorder: Recorder, collector: Collector) {
    let mut choice = Choice::new(&plan, number);
    let mut caller = Caller::new(number, target.clone(), plan.timeout, recorder.clone());
    while !recorder.is_stopping() {
        sleep(Duration::from_millis(choice.rng.random_range(300..2000))).await;
        let member = choice.member(&target.members);
        let Some(alarms) = caller.alarm(member, AlarmAction::Get, 0).await else {
            continue;
        };
        if alarms.is_empty() {
            continue;
        }
        let revision = collector.collected();
        if revision > 1 {
            caller.call(member, Request::Compact { revision }).await;
            // The space is given back a little later.
            sleep(Duration::from_millis(choice.rng.random_range(0..1500))).await;
        }
        for member_id in alarms {
            caller.alarm(member, AlarmAction::Deactivate, member_id).await;
        }
    }
}

/// Compacts everything that the collector has, and says up to which revision if that was acknowledged.
pub async fn compact(
    target: Target,
    member: u32,
    timeout: Duration,
    recorder: Recorder,
    collector: Collector,
) -> Option<i64> {
    let revision = collector.collected();
    let mut caller = Caller::new(COMPACTOR, target, timeout, recorder);
    let outcome = caller.call(member, Request::Compact { revision }).await;
    matches!(outcome, Outcome::Done(_)).then_some(revision)
}
