//! How well the service was there: [`Availability`].

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{
    history::{History, KubernetesCall, KubernetesOutcome, Outcome},
    verdict::{Check, Findings, Violation},
};

const SECOND_US: u64 = 1_000_000;

/// Times are microseconds.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Availability {
    /// Between acknowledged writes, one after the other.
    pub median_gap: Option<u64>,
    /// The longest time without an acknowledged write, from one to the next.
    pub worst_gap: Option<(u64, u64)>,
    /// From the end of the last fault to the first success of what was called after it.
    pub recovery: Option<u64>,
    pub seconds: Vec<Bucket>,
    /// By kind of request, to either API.
    pub outcomes: BTreeMap<String, Outcomes>,
}

/// What was answered with success in a stretch of time.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bucket {
    pub from: u64,
    pub done: u64,
    pub median_latency: u64,
    pub worst_latency: u64,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outcomes {
    pub done: u64,
    pub not_applied: u64,
    pub unknown: u64,
}

impl Outcomes {
    pub fn all(&self) -> u64 {
        self.done + self.not_applied + self.unknown
    }
}

pub fn availability(history: &History) -> Availability {
    let (median_gap, worst_gap) = gaps(history);
    Availability {
        median_gap,
        worst_gap,
        recovery: recovery(history),
        seconds: buckets(history, SECOND_US),
        outcomes: outcomes(history),
    }
}

/// After the last fault something that needs a quorum succeeds again, on each API that is called.
pub fn check(history: &History) -> Check {
    let mut findings = Findings::new("recovers after the last fault");
    let Some(last) = last_fault(history) else {
        return findings.done();
    };
    let groups = [
        ("operations", operations_after(history, last)),
        ("changes of objects", changes_after(history, last)),
    ];
    if groups.iter().all(|(_, calls)| calls.is_empty()) {
        findings.undecided("nothing was called after the last fault");
    }
    for (what, calls) in groups {
        findings.count(calls.len());
        if !calls.is_empty() && calls.iter().all(Option::is_none) {
            let text = format!("none of {} {what} after the last fault succeeded", calls.len());
            findings.add(Violation::new(text));
        }
    }
    findings.done()
}

/// Throughput and latency in stretches of `width`, from the beginning to the end without a hole.
pub fn buckets(history: &History, width: u64) -> Vec<Bucket> {
    let (first, last) = history.bounds();
    let width = width.max(1);
    let count = usize::try_from((last - first) / width).unwrap_or_default() + 1;
    let mut latencies: Vec<Vec<u64>> = vec![Vec::new(); count];
    for operation in &history.operations {
        if let Some((_, ret)) = operation.answered() {
            let at = usize::try_from((ret - first) / width).unwrap_or_default();
            latencies[at].push(ret.saturating_sub(operation.call));
        }
    }
    let bucket = |(at, mut latencies): (usize, Vec<u64>)| Bucket {
        from: first + at as u64 * width,
        done: latencies.len() as u64,
        median_latency: median(&mut latencies).unwrap_or_default(),
        worst_latency: latencies.last().copied().unwrap_or_default(),
    };
    latencies.into_iter().enumerate().map(bucket).collect()
}

/// Sorts.
fn median(numbers: &mut [u64]) -> Option<u64> {
    numbers.sort_unstable();
    numbers.get(numbers.len() / 2).copied()
}

fn gaps(history: &History) -> (Option<u64>, Option<(u64, u64)>) {
    let writes = history.operations.iter().filter(|operation| operation.changed());
    let mut returns: Vec<u64> = writes.filter_map(|operation| operation.ret).collect();
    returns.sort_unstable();
    let pairs = returns.iter().zip(returns.iter().skip(1));
    let worst = pairs.clone().max_by_key(|(from, to)| *to - *from);
    let mut lengths: Vec<u64> = pairs.map(|(from, to)| to - from).collect();
    (median(&mut lengths), worst.map(|(from, to)| (*from, *to)))
}

fn last_fault(history: &History) -> Option<u64> {
    history.faults.iter().map(|fault| fault.until).max()
}

fn recovery(history: &History) -> Option<u64> {
    let last = last_fault(history)?;
    let calls = operations_after(history, last).into_iter();
    let first = calls.chain(changes_after(history, last)).flatten().min()?;
    Some(first - last)
}

/// Of what takes more than the one member that is asked: when each call succeeded, if it did.
fn operations_after(history: &History, moment: u64) -> Vec<Option<u64>> {
    let all = history.operations.iter();
    let called = all.filter(|operation| operation.call >= moment && operation.request.is_ordered());
    called
        .map(|operation| operation.answered().map(|(_, ret)| ret))
        .collect()
}

/// The same of the Kubernetes API.
fn changes_after(history: &History, moment: u64) -> Vec<Option<u64>> {
    let all = history.kubernetes_calls.iter();
    let called = all.filter(|call| call.call >= moment && call.verb.changes());
    called.map(KubernetesCall::succeeded).collect()
}

fn outcomes(history: &History) -> BTreeMap<String, Outcomes> {
    let mut all: BTreeMap<String, Outcomes> = BTreeMap::new();
    for operation in &history.operations {
        let of_kind = all.entry(operation.request.kind().to_owned()).or_default();
        match operation.outcome {
            Outcome::Done(_) => of_kind.done += 1,
            Outcome::NotApplied(_) => of_kind.not_applied += 1,
            Outcome::Unknown(_) => of_kind.unknown += 1,
        }
    }
    for call in &history.kubernetes_calls {
        let of_kind = all.entry(call.verb.name().to_owned()).or_default();
        match call.outcome {
            KubernetesOutcome::Done => of_kind.done += 1,
            KubernetesOutcome::Refused(_) => of_kind.not_applied += 1,
            KubernetesOutcome::Failed(_) => of_kind.unknown += 1,
        }
    }
    all
}
