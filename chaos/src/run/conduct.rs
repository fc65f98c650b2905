//! The course of a run, from the first start to the last look: [`conduct`].

use std::{collections::BTreeSet, time::Duration};

use anyhow::Context;
use barque_chaos::{cluster::Kind as Program, lan::Lan};
use barque_checks::history::{History, KeySpan};
use barque_traffic::{Collector, Plan, Recorder, tasks};
use rand::{Rng, seq::SliceRandom};
use tokio::{
    task::AbortHandle,
    time::{Instant, sleep, timeout},
};

use super::{
    flags::{Settings, Traffic},
    inflict::inflict,
    kind::Kind,
    objects::Api,
    resources::Resources,
    site::Site,
    watching,
};

/// Between faults, once the cluster has recovered.
const QUIET: Duration = Duration::from_secs(4);
/// How much of it may still be felt.
const AFTERMATH: Duration = Duration::from_secs(3);
/// Longer than any lease of the traffic lives after its last sign.
const LEASES_END: Duration = Duration::from_secs(8);
const PATIENCE: Duration = Duration::from_secs(60);
/// Closed connections are noticed.
const SETTLE: Duration = Duration::from_secs(3);

/// Everything that is known when a run is over.
pub struct Ran {
    pub history: History,
    pub before: Vec<Resources>,
    pub after: Vec<Resources>,
    /// Why the run ended before its time, or what could not be looked at.
    pub broken: Vec<String>,
    /// The last words of the members, if it did.
    pub logs: Vec<String>,
}

/// The tasks that call, watch and ask.
struct Clients {
    recorder: Recorder,
    collector: Collector,
    plan: Plan,
    tasks: Vec<AbortHandle>,
}

impl Clients {
    fn start(site: &mut Site, settings: &Settings) -> anyhow::Result<Clients> {
        let (recorder, collector) = (Recorder::default(), Collector::default());
        let plan = plan(site, settings);
        let target = site.target()?;
        let mut handles = Vec::new();
        for task in tasks(&target, &plan, &recorder, &collector) {
            handles.push(tokio::spawn(task).abort_handle());
        }
        for index in 0..site.cluster.len() {
            let asking = watching::note_leaders(
                site.cluster.access(index),
                Site::id(index),
                target.now_us.clone(),
                recorder.clone(),
            );
            handles.push(tokio::spawn(asking).abort_handle());
        }
        if settings.traffic.contains(&Traffic::Kubernetes) {
            let api = Api::of(
                &site.cluster,
                target.now_us.clone(),
                recorder.clone(),
                settings.seed,
            )?;
            let tasks = api.tasks().into_iter();
            handles.extend(tasks.map(|task| tokio::spawn(task).abort_handle()));
        }
        Ok(Clients {
            recorder,
            collector,
            plan,
            tasks: handles,
        })
    }

    /// No new calls; those under way get their answers.
    async fn stop(&self) {
        self.recorder.stop();
        sleep(self.plan.timeout + LEASES_END).await;
    }
}

impl Drop for Clients {
    fn drop(&mut self) {
        self.tasks.iter().for_each(AbortHandle::abort);
    }
}

fn plan(site: &mut Site, settings: &Settings) -> Plan {
    let does = |traffic| settings.traffic.contains(&traffic);
    let dice = &mut site.dice;
    let (clients, watchers, tenants) = (
        dice.random_range(4..8),
        dice.random_range(2..6),
        dice.random_range(1..3),
    );
    let when = |traffic, count| if does(traffic) { count } else { 0 };
    Plan {
        seed: settings.seed,
        prefix: "k/".into(),
        keys: dice.random_range(4..12),
        clients: when(Traffic::Kv, clients),
        readers: when(Traffic::Kv, 1),
        watchers: when(Traffic::Watch, watchers),
        tenants: when(Traffic::Lease, tenants),
        compactions: does(Traffic::Compact),
        watches: 1,
        wide_requests: false,
        large_values: false,
        large_leases: false,
        disarms: false,
        eager_progress: settings.program == Program::Barque,
        pause: Duration::from_millis(dice.random_range(40..120)),
        timeout: Duration::from_secs(4),
    }
}

/// An error only if there was never a cluster; what goes wrong later is part of what is returned.
pub async fn conduct(settings: &Settings, lan: Option<Lan>) -> anyhow::Result<Ran> {
    let mut site = Site::start(settings, lan).await.context("starting the cluster")?;
    let before = Resources::of_all(&site.cluster)?;
    let clients = Clients::start(&mut site, settings)?;
    let mut broken = Vec::new();
    if let Err(error) = faults_and_recovery(&mut site, settings, &clients).await {
        broken.push(format!("{error:#}"));
    }
    clients.stop().await;
    if broken.is_empty()
        && let Err(error) = last_look(&site, &clients).await
    {
        broken.push(format!("{error:#}"));
    }
    let mut history = clients.recorder.history(std::mem::take);
    history.outlived_leases = broken.is_empty();
    describe(&mut history, &site, settings, &clients);
    drop(clients);
    sleep(SETTLE).await;
    let after = match Resources::of_all(&site.cluster) {
        Ok(after) => after,
        Err(error) => {
            broken.push(format!("{error:#}"));
            Vec::new()
        }
    };
    let words = |index| {
        format!(
            "{}:\n{}",
            site.cluster.name(index),
            site.cluster.last_lines(index, 30)
        )
    };
    let logs = match broken.is_empty() {
        true => Vec::new(),
        false => (0..site.cluster.len()).map(words).collect(),
    };
    Ok(Ran {
        history,
        before,
        after,
        broken,
        logs,
    })
}

async fn faults_and_recovery(site: &mut Site, settings: &Settings, clients: &Clients) -> anyhow::Result<()> {
    sleep(QUIET).await;
    let until = Instant::now() + settings.duration;
    let mut missing: BTreeSet<String> = settings.faults.iter().map(|kind| kind.name()).collect();
    let mut round: Vec<Kind> = Vec::new();
    while Instant::now() < until || !missing.is_empty() {
        let next = Instant::now() + settings.every;
        if round.is_empty() {
            round = settings.faults.clone();
            round.shuffle(&mut site.dice);
        }
        let Some(kind) = round.pop() else {
            // No faults were asked for.
            sleep(until - Instant::now()).await;
            break;
        };
        missing.remove(&kind.name());
        one_fault(site, kind, &clients.recorder).await?;
        sleep(QUIET).await;
        note_states(site, &clients.recorder).await?;
        tokio::time::sleep_until(next.min(until)).await;
    }
    site.cluster
        .wait_healthy()
        .await
        .context("after the last fault")?;
    sleep(QUIET).await;
    Ok(())
}

async fn one_fault(site: &mut Site, kind: Kind, recorder: &Recorder) -> anyhow::Result<()> {
    let record = inflict(site, kind).await;
    if record.is_err() {
        site.heal()?;
    }
    let record = record?;
    tell(&record);
    recorder.history(|history| history.faults.push(record));
    site.cluster
        .wait_healthy()
        .await
        .with_context(|| format!("recovering from {}", kind.name()))
}

fn tell(record: &barque_checks::history::FaultRecord) {
    let seconds = |micros: u64| micros as f64 / 1e6;
    println!(
        "{:7.1} s to {:7.1} s  {} of {:?}: {}",
        seconds(record.from),
        seconds(record.until),
        record.kind,
        record.members,
        record.observed.as_deref().unwrap_or("nothing was seen of it")
    );
}

/// The same content on all members, whenever there is peace.
async fn note_states(site: &Site, recorder: &Recorder) -> anyhow::Result<()> {
    let states = watching::states(&site.cluster)
        .await
        .context("in a quiet time, all members must answer")?;
    recorder.history(|history| history.states.extend(states));
    Ok(())
}

/// Nobody writes any more: everything that was committed is collected, and all members have it.
async fn last_look(site: &Site, clients: &Clients) -> anyhow::Result<()> {
    let looked = async {
        loop {
            let newest = watching::newest(&site.cluster, 0).await?;
            let states = watching::states(&site.cluster).await?;
            let same = states.iter().all(|state| state.revision == newest);
            if same && clients.collector.collected() >= newest {
                return anyhow::Ok(states);
            }
            sleep(Duration::from_millis(200)).await;
        }
    };
    let states = timeout(PATIENCE, looked)
        .await
        .with_context(|| format!("members and the watch of everything do not agree after {PATIENCE:?}"))?
        .context("the last look at the members")?;
    clients.recorder.history(|history| history.states.extend(states));
    Ok(())
}

fn describe(history: &mut History, site: &Site, settings: &Settings, clients: &Clients) {
    clients.collector.stop();
    let program = match settings.program {
        Program::Barque => "barque",
        Program::Etcd => "etcd",
    };
    history.seed = settings.seed;
    history.description = format!(
        "{} processes of {program} {}, {:?}",
        site.cluster.len(),
        site.flags.join(" "),
        clients.plan
    );
    for kind in &settings.left_out {
        history.description.push_str(&format!("; without {kind}"));
    }
    history.members = site.ids();
    history.requested_faults = settings.faults.iter().map(|kind| kind.name()).collect();
    history.committed = Some(clients.collector.committed());
    history.clock_tolerance_us = 50_000;
    // The masters write keys of their own, and those of objects.
    let has_objects = settings.traffic.contains(&Traffic::Kubernetes);
    let prefix = &clients.plan.prefix;
    history.has_objects = has_objects;
    history.scope = has_objects.then(|| KeySpan::new(prefix, format!("{prefix}\u{7f}")));
    history.aftermath_us = u64::try_from(AFTERMATH.as_micros()).ok();
}
