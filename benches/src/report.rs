//! Measurements, their medians, and the table: [`Sample`], [`Row`].

use serde::Serialize;

/// One run of one workload on one side.
#[derive(Debug, Clone, Serialize)]
pub struct Sample {
    pub workload: String,
    pub members: usize,
    pub side: String,
    pub repetition: usize,
    pub per_second: f64,
    pub p50_ms: f64,
    pub p99_ms: f64,
    pub worst_ms: f64,
    pub server_cpu_seconds_per_1000: f64,
    /// Of the processor time that servers and generator used together.
    pub generator_share: f64,
    /// Of all members together.
    pub resident_mib: f64,
    pub fsyncs_per_put: Option<f64>,
    pub elections: Option<f64>,
}

/// All repetitions of one workload on one side.
#[derive(Debug, Serialize)]
pub struct Row {
    pub workload: String,
    pub members: usize,
    pub side: String,
    pub repetitions: usize,
    pub per_second: f64,
    pub per_second_least: f64,
    pub per_second_most: f64,
    pub p50_ms: f64,
    pub p99_ms: f64,
    pub server_cpu_seconds_per_1000: f64,
    pub generator_share: f64,
    pub resident_mib: f64,
    pub fsyncs_per_put: Option<f64>,
    /// The sum: one election is one too many.
    pub elections: Option<f64>,
}

/// Medians in the order in which workload, members and side first appear.
pub fn rows(samples: &[Sample]) -> Vec<Row> {
    let mut rows = Vec::new();
    for (at, first) in samples.iter().enumerate() {
        let same = |other: &&Sample| {
            (&other.workload, other.members, &other.side) == (&first.workload, first.members, &first.side)
        };
        if !samples[..at].iter().any(|other| same(&other)) {
            rows.push(row(samples.iter().filter(same).collect()));
        }
    }
    rows
}

fn row(samples: Vec<&Sample>) -> Row {
    let of = |field: fn(&Sample) -> f64| median(samples.iter().map(|sample| field(sample)).collect());
    let optional = |field: fn(&Sample) -> Option<f64>| {
        samples
            .iter()
            .map(|sample| field(sample))
            .collect::<Option<Vec<f64>>>()
    };
    let rates = || samples.iter().map(|sample| sample.per_second);
    Row {
        workload: samples[0].workload.clone(),
        members: samples[0].members,
        side: samples[0].side.clone(),
        repetitions: samples.len(),
        per_second: of(|sample| sample.per_second),
        per_second_least: rates().fold(f64::INFINITY, f64::min),
        per_second_most: rates().fold(0.0, f64::max),
        p50_ms: of(|sample| sample.p50_ms),
        p99_ms: of(|sample| sample.p99_ms),
        server_cpu_seconds_per_1000: of(|sample| sample.server_cpu_seconds_per_1000),
        generator_share: of(|sample| sample.generator_share),
        resident_mib: of(|sample| sample.resident_mib),
        fsyncs_per_put: optional(|sample| sample.fsyncs_per_put).map(median),
        elections: optional(|sample| sample.elections).map(|all| all.iter().sum()),
    }
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    if values.len() % 2 == 1 {
        values[middle]
    } else {
        (values[middle - 1] + values[middle]) / 2.0
    }
}

/// One line per row, ours and theirs under one another, with the ratio of their throughputs and CPU.
pub fn table(rows: &[Row]) -> String {
    let mut lines = vec![format!(
        "{:<12} {:>2} {:<7} {:>9} {:>17} {:>8} {:>8} {:>10} {:>6} {:>8} {:>10} {:>9}",
        "workload",
        "m",
        "server",
        "per s",
        "least-most",
        "p50 ms",
        "p99 ms",
        "CPU s/1000",
        "gen %",
        "RSS MiB",
        "fsyncs/put",
        "elections"
    )];
    let mut ordered: Vec<&Row> = rows.iter().collect();
    ordered.sort_by_key(|row| (row.members, position(rows, &row.workload), row.side != "barque"));
    for row in &ordered {
        lines.push(format!(
            "{:<12} {:>2} {:<7} {:>9.0} {:>17} {:>8.2} {:>8.2} {:>10.4} {:>6.0} {:>8.0} {:>10} {:>9}",
            row.workload,
            row.members,
            row.side,
            row.per_second,
            format!("{:.0}-{:.0}", row.per_second_least, row.per_second_most),
            row.p50_ms,
            row.p99_ms,
            row.server_cpu_seconds_per_1000,
            row.generator_share * 100.0,
            row.resident_mib,
            row.fsyncs_per_put
                .map_or_else(|| "-".into(), |value| format!("{value:.3}")),
            row.elections
                .map_or_else(|| "-".into(), |value| format!("{value:.0}")),
        ));
    }
    for pair in ordered.chunk_by(|a, b| (a.members, &a.workload) == (b.members, &b.workload)) {
        if let [ours, theirs] = pair {
            lines.push(format!(
                "{:<12} {:>2} ours/etcd: throughput {:.2}, p99 {:.2}, server CPU {:.2}",
                ours.workload,
                ours.members,
                ours.per_second / theirs.per_second,
                ours.p99_ms / theirs.p99_ms,
                ours.server_cpu_seconds_per_1000 / theirs.server_cpu_seconds_per_1000,
            ));
        }
    }
    lines.join("\n")
}

fn position(rows: &[Row], workload: &str) -> usize {
    rows.iter()
        .position(|row| row.workload == workload)
        .unwrap_or(rows.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians() {
        assert_eq!(median(vec![3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(vec![4.0, 1.0, 2.0, 3.0]), 2.5);
    }
}
