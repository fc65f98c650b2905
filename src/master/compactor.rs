//! `--auto-compaction-mode` and `-retention`: the leader forgets old revisions, by etcd's rules for when.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use barque_proto::command::{Command, Compact, command::Op};
use barque_replica::Replica;
use barque_store::Revision;
use tokio_util::sync::CancellationToken;

use super::config::AutoCompaction;

/// By revisions, etcd looks this often.
const REVISION_INTERVAL: Duration = Duration::from_secs(5 * 60);
/// By age, it looks ten times per period, or per hour when the period is longer.
const SAMPLES_PER_PERIOD: u32 = 10;
const PERIOD_MAX: Duration = Duration::from_secs(3600);

/// Runs until `stop`. Every member samples, so that one that becomes the leader knows how old revisions are.
pub async fn run(replica: Replica, policy: AutoCompaction, stop: CancellationToken) {
    let (mut plan, interval) = match policy {
        AutoCompaction::Off => return,
        AutoCompaction::Periodic(period) => (
            Plan::Periodic(Samples::new(period)),
            period.min(PERIOD_MAX) / SAMPLES_PER_PERIOD,
        ),
        AutoCompaction::Revisions(keep) => (Plan::Revisions(keep), REVISION_INTERVAL),
    };
    let mut ticks = tokio::time::interval(interval.max(Duration::from_millis(1)));
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            _ = ticks.tick() => {}
        }
        let head = replica.store().head();
        let Some(target) = plan.target(Instant::now(), head.revision) else {
            continue;
        };
        let leadership = *replica.leadership().borrow();
        if leadership.is_self && target > head.compact_revision {
            compact(&replica, target, leadership.term).await;
        }
    }
}

async fn compact(replica: &Replica, target: Revision, term: u64) {
    let op = Op::Compact(Compact { revision: target.0 });
    let command = Command {
        fence_term: term,
        op: Some(op),
        ..Command::default()
    };
    match replica.propose(command).await {
        Ok(_) => tracing::debug!(revision = target.0, "compacted"),
        // The next round tries again, here or at the next leader.
        Err(error) => tracing::warn!(revision = target.0, %error, "compaction failed"),
    }
}

enum Plan {
    Periodic(Samples),
    Revisions(i64),
}

impl Plan {
    fn target(&mut self, now: Instant, head: Revision) -> Option<Revision> {
        match self {
            Plan::Periodic(samples) => samples.target(now, head),
            Plan::Revisions(keep) => Some(Revision(head.0 - *keep)).filter(|revision| revision.0 > 0),
        }
    }
}

/// When which revision was the newest, over one period.
struct Samples {
    period: Duration,
    seen: VecDeque<(Instant, Revision)>,
}

impl Samples {
    fn new(period: Duration) -> Self {
        Self {
            period,
            seen: VecDeque::new(),
        }
    }

    /// The newest revision that is a whole period old.
    fn target(&mut self, now: Instant, head: Revision) -> Option<Revision> {
        self.seen.push_back((now, head));
        let mut target = None;
        while let Some((at, revision)) = self.seen.front().copied() {
            if now.duration_since(at) < self.period {
                break;
            }
            target = Some(revision);
            self.seen.pop_front();
        }
        target
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn by_age_the_newest_revision_of_a_period_ago() {
        let start = Instant::now();
        let mut samples = Samples::new(Duration::from_secs(10));
        let targets: Vec<Option<i64>> = (0..14u64)
            .map(|s| {
                samples
                    .target(start + Duration::from_secs(s), Revision(100 + s as i64))
                    .map(|r| r.0)
            })
            .collect();
        assert_eq!(targets[..10], [None; 10]);
        assert_eq!(targets[10..], [Some(100), Some(101), Some(102), Some(103)]);
        let late = samples.target(start + Duration::from_secs(60), Revision(200));
        assert_eq!(late, Some(Revision(113)));
    }

    #[test]
    fn by_revisions_so_many_are_kept() {
        let mut plan = Plan::Revisions(10);
        assert_eq!(plan.target(Instant::now(), Revision(11)), Some(Revision(1)));
        assert_eq!(plan.target(Instant::now(), Revision(10)), None);
    }
}
