//! The run along one axis: faults, leaders, throughput and latency.

use std::collections::BTreeMap;

use super::{
    summary::seconds,
    svg::{COLOURS, Svg},
};
use crate::{
    availability::{Bucket, buckets},
    history::{FaultRecord, History, LeaderRecord},
};

const WIDTH: u64 = 1040;
const LEFT: u64 = 150;
const LANE: u64 = 18;
const CHART: u64 = 70;
const BUCKETS: u64 = 150;
const TICKS: u64 = 8;

pub(super) fn timeline(history: &History) -> String {
    let (first, last) = history.bounds();
    let mut drawing = Timeline {
        svg: Svg::new(WIDTH),
        first,
        length: (last - first).max(1),
        y: 8,
    };
    drawing.faults(&history.faults);
    drawing.leaders(&history.leaders);
    let buckets = buckets(history, (drawing.length / BUCKETS).max(1));
    drawing.throughput(&buckets);
    drawing.latency(&buckets);
    drawing.axis();
    let height = drawing.y;
    drawing
        .svg
        .done(height, "Faults, leaders, throughput and latency over time")
}

struct Timeline {
    svg: Svg,
    first: u64,
    length: u64,
    /// Where the next lane goes.
    y: u64,
}

impl Timeline {
    fn x(&self, time: u64) -> u64 {
        let span = u128::from(WIDTH - LEFT - 10);
        let at =
            u128::from(time.saturating_sub(self.first).min(self.length)) * span / u128::from(self.length);
        LEFT + u64::try_from(at).unwrap_or_default()
    }

    fn lane(&mut self, name: &str, height: u64) -> u64 {
        let top = self.y;
        self.svg.text((4, top + height.min(LANE) - 5), "name", name);
        self.svg.line((LEFT, top + height), (WIDTH - 10, top + height));
        self.y += height + 6;
        top
    }

    fn faults(&mut self, faults: &[FaultRecord]) {
        let mut kinds: BTreeMap<&str, Vec<&FaultRecord>> = BTreeMap::new();
        for fault in faults {
            kinds.entry(&fault.kind).or_default().push(fault);
        }
        for (at, (kind, faults)) in kinds.into_iter().enumerate() {
            let top = self.lane(kind, LANE);
            let colour = COLOURS[(at + 1) % COLOURS.len()];
            for fault in faults {
                self.fault(fault, top, colour);
            }
        }
    }

    fn fault(&mut self, fault: &FaultRecord, top: u64, colour: &str) {
        let (from, until) = (self.x(fault.from), self.x(fault.until));
        let (at, size) = ((from, top + 2), ((until - from).max(3), LANE - 4));
        let members = &fault.members;
        match &fault.observed {
            Some(observed) => {
                self.svg.rect(
                    at,
                    size,
                    colour,
                    &format!("{} of {members:?}: {observed}", fault.kind),
                );
            }
            None => {
                self.svg.dashed(
                    at,
                    size,
                    colour,
                    &format!("{} of {members:?}: not observed", fault.kind),
                );
            }
        }
    }

    /// Each leads until the next one says that it does.
    fn leaders(&mut self, leaders: &[LeaderRecord]) {
        if leaders.is_empty() {
            return;
        }
        let top = self.lane("leader", LANE);
        let mut sorted: Vec<&LeaderRecord> = leaders.iter().collect();
        sorted.sort_by_key(|leader| (leader.time, leader.term));
        for (at, leader) in sorted.iter().enumerate() {
            let until = sorted
                .get(at + 1)
                .map_or(self.first + self.length, |next| next.time);
            let (from, until) = (self.x(leader.time), self.x(until));
            let colour = COLOURS[leader.member as usize % COLOURS.len()];
            let title = format!(
                "member {} in term {} from {}",
                leader.member,
                leader.term,
                seconds(leader.time)
            );
            self.svg.rect(
                (from, top + 2),
                (until.saturating_sub(from), LANE - 4),
                colour,
                &title,
            );
            if until.saturating_sub(from) > 24 {
                self.svg
                    .text((from + 4, top + LANE - 5), "inside", &leader.member.to_string());
            }
        }
    }

    fn throughput(&mut self, buckets: &[Bucket]) {
        let most = buckets
            .iter()
            .map(|bucket| bucket.done)
            .max()
            .unwrap_or_default()
            .max(1);
        let width = buckets
            .get(1)
            .map_or(self.length, |second| second.from - self.first)
            .max(1);
        let top = self.lane("answered", CHART);
        let rate = most * 1_000_000 / width;
        self.svg
            .text((4, top + 30), "small", &format!("at most {rate}/s"));
        for bucket in buckets.iter().filter(|bucket| bucket.done > 0) {
            let height = (bucket.done * CHART / most).max(1);
            let (from, until) = (self.x(bucket.from), self.x(bucket.from + width));
            let title = format!(
                "{} answered from {}",
                bucket.done,
                seconds(bucket.from - self.first)
            );
            let size = (until.saturating_sub(from), height);
            self.svg
                .rect((from, top + CHART - height), size, COLOURS[0], &title);
        }
    }

    fn latency(&mut self, buckets: &[Bucket]) {
        let most = buckets
            .iter()
            .map(|bucket| bucket.worst_latency)
            .max()
            .unwrap_or_default()
            .max(1);
        let top = self.lane("latency", CHART);
        self.svg
            .text((4, top + 30), "small", &format!("worst {}", seconds(most)));
        self.svg.text((4, top + 46), "small", "worst and median");
        for (colour, latency) in [
            (COLOURS[1], (|bucket| bucket.worst_latency) as fn(&Bucket) -> u64),
            (COLOURS[2], |bucket| bucket.median_latency),
        ] {
            let answered = buckets.iter().filter(|bucket| bucket.done > 0);
            let points = answered.map(|bucket| {
                let height = u128::from(latency(bucket)) * u128::from(CHART) / u128::from(most);
                (
                    self.x(bucket.from),
                    top + CHART - u64::try_from(height).unwrap_or_default(),
                )
            });
            let points: Vec<(u64, u64)> = points.collect();
            self.svg.path(&points, colour);
        }
    }

    fn axis(&mut self) {
        for tick in 0..=TICKS {
            let time = self.first + self.length * tick / TICKS;
            let x = self.x(time);
            self.svg.line((x, self.y), (x, self.y + 4));
            let label = seconds(time - self.first);
            self.svg
                .text((x.saturating_sub(24), self.y + 16), "small", &label);
        }
        self.y += 24;
    }
}
