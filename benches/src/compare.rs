//! Ours beside Debian's etcd: the same workloads on clusters started here, on the same file system, each with its
//! own defaults (both sync their log before they acknowledge), one cluster at a time, in interleaved pairs.

use std::{path::PathBuf, time::Duration};

use anyhow::{Context, bail};
use barque_chaos::cluster::{Cluster, Kind, Options};
use serde::Serialize;

use crate::{
    CompareArgs,
    connect::Peer,
    machine::Machine,
    report::{Row, Sample, rows, table},
    server::{Counters, Processes},
    workload::{Outcome, Pace, WORKLOADS, Workload},
};

struct Plan {
    sides: Vec<Kind>,
    members: Vec<usize>,
    workloads: Vec<Workload>,
    repetitions: usize,
    pace: Pace,
    dir: PathBuf,
}

#[derive(Serialize)]
struct Report<'a> {
    machine: &'a Machine,
    medians: &'a [Row],
    samples: &'a [Sample],
}

pub async fn run(args: CompareArgs) -> anyhow::Result<()> {
    let plan = Plan::new(&args)?;
    let machine = Machine::read(&plan.dir)?;
    println!("{}\n{}\n", machine.header(), plan.header());
    let mut samples = Vec::new();
    for &members in &plan.members {
        for repetition in 1..=plan.repetitions {
            for &side in &plan.sides {
                plan.measure(side, members, repetition, &mut samples).await?;
            }
        }
    }
    let medians = rows(&samples);
    println!("{}", table(&medians));
    if let Some(path) = &args.json {
        let report = Report {
            machine: &machine,
            medians: &medians,
            samples: &samples,
        };
        std::fs::write(path, serde_json::to_vec_pretty(&report)?)
            .with_context(|| path.display().to_string())?;
    }
    Ok(())
}

impl Plan {
    fn new(args: &CompareArgs) -> anyhow::Result<Plan> {
        let sides = match args.only.as_deref() {
            None => vec![Kind::Barque, Kind::Etcd],
            Some("barque") => vec![Kind::Barque],
            Some("etcd") => vec![Kind::Etcd],
            Some(other) => bail!("--only {other}: barque or etcd"),
        };
        let workloads = if args.workloads.is_empty() {
            WORKLOADS.to_vec()
        } else {
            args.workloads
                .iter()
                .map(|name| Workload::named(name).copied())
                .collect::<anyhow::Result<_>>()?
        };
        let seconds = args.seconds.unwrap_or(if args.quick { 1.5 } else { 6.0 });
        let warm_up = Duration::from_secs_f64(if args.quick { 0.5 } else { 2.0 });
        Ok(Plan {
            sides,
            members: args.members.clone(),
            workloads,
            repetitions: args.repetitions.unwrap_or(if args.quick { 2 } else { 3 }),
            pace: Pace {
                warm_up,
                measured: Duration::from_secs_f64(seconds),
            },
            dir: args.dir.clone().unwrap_or_else(std::env::temp_dir),
        })
    }

    fn header(&self) -> String {
        format!(
            "{} repetitions of {:?} each after {:?} of warming up; medians; spread is least-most",
            self.repetitions, self.pace.measured, self.pace.warm_up,
        )
    }

    /// All workloads on a fresh cluster of one side.
    async fn measure(
        &self,
        side: Kind,
        members: usize,
        repetition: usize,
        samples: &mut Vec<Sample>,
    ) -> anyhow::Result<()> {
        let data = tempfile::Builder::new()
            .prefix("barque-bench-")
            .tempdir_in(&self.dir)?;
        let options = Options {
            data_root: Some(data.path().to_owned()),
            ..Options::default()
        };
        let cluster = Cluster::start(side, members, options).await?;
        for workload in &self.workloads {
            let sample = self
                .sample(&cluster, workload, repetition)
                .await
                .with_context(|| format!("{} on {members} members of {}", workload.name, name(side)))?;
            eprintln!(
                "{:<12} {members} {:<7} #{repetition}: {:>8.0}/s, p50 {:.2} ms, p99 {:.2} ms",
                workload.name,
                name(side),
                sample.per_second,
                sample.p50_ms,
                sample.p99_ms
            );
            samples.push(sample);
        }
        Ok(())
    }

    async fn sample(
        &self,
        cluster: &Cluster,
        workload: &Workload,
        repetition: usize,
    ) -> anyhow::Result<Sample> {
        let peer = Peer::new(cluster.endpoints(), cluster.client_certificate());
        let mut load = workload.prepare(&peer, self.pace).await?;
        let before = Counters::read(cluster).await?;
        let mut readings = Vec::new();
        let outcome = load
            .run(|| {
                readings.push(Processes::read(cluster)?);
                Ok(())
            })
            .await?;
        let after = Counters::read(cluster).await?;
        let [start, end] = readings[..] else {
            bail!("a run marks its start and its end")
        };
        let used = |of: fn(&Processes) -> f64| of(&end) - of(&start);
        let servers = used(|reading| reading.servers.cpu_seconds);
        let generator = used(|reading| reading.generator.cpu_seconds);
        Ok(Sample {
            workload: workload.name.to_owned(),
            members: cluster.len(),
            side: name(cluster.kind()).to_owned(),
            repetition,
            per_second: outcome.per_second(),
            p50_ms: outcome.latency.quantile_ms(0.5),
            p99_ms: outcome.latency.quantile_ms(0.99),
            worst_ms: outcome.latency.quantile_ms(1.0),
            server_cpu_seconds_per_1000: servers * 1000.0 / outcome.operations as f64,
            generator_share: generator / (generator + servers),
            resident_mib: end.servers.resident_bytes as f64 / f64::from(1 << 20),
            fsyncs_per_put: fsyncs_per_put(before.fsyncs, after.fsyncs, &outcome),
            elections: before
                .leader_changes
                .zip(after.leader_changes)
                .map(|(before, after)| after - before),
        })
    }
}

/// The counters are read around the whole run, and so are the writes counted.
fn fsyncs_per_put(before: Option<f64>, after: Option<f64>, outcome: &Outcome) -> Option<f64> {
    let (before, after) = before.zip(after)?;
    (outcome.writes > 0).then(|| (after - before) / outcome.writes as f64)
}

fn name(side: Kind) -> &'static str {
    match side {
        Kind::Barque => "barque",
        Kind::Etcd => "etcd",
    }
}
