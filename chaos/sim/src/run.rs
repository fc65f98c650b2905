//! One seed: a cluster's life in simulated time, and what the checks say of it.

use std::{io, time::Duration};

use barque_checks::{Check, Findings, Verdict, Violation, check_all, history::History, overall};
use barque_traffic::{Collector, Plan, tasks};
use rand::Rng;
use tokio::time::{Instant, sleep, timeout};

use crate::{
    contents, faults::at_birth, interpose::now_us, kind::Kind, panics, process::Processes, tasks::Tasks,
    trouble::trouble, world::World,
};

/// What a run amounted to.
pub struct Ran {
    pub history: History,
    pub checks: Vec<Check>,
    pub verdict: Verdict,
    pub simulated_us: u64,
}

const QUIET: Duration = Duration::from_secs(6);
/// Connections are opened, or noticed to be gone.
const SETTLE: Duration = Duration::from_secs(3);
/// Longer than any lease of the traffic lives after its last sign.
const LEASES_END: Duration = Duration::from_secs(19);

/// Everything happens on the calling thread.
pub fn run(seed: u64, duration: Duration, kinds: &[Kind]) -> io::Result<Ran> {
    let processes = Processes::default();
    let simulated = processes.run(simulate(seed, duration, kinds, processes.clone()))??;
    let simulated_us = now_us();
    let history = simulated.history;
    let mut checks = match simulated.came_up {
        true => check_all(&history),
        false => Vec::new(),
    };
    checks.extend(simulated.checks);
    let verdict = overall(&checks);
    Ok(Ran {
        history,
        checks,
        verdict,
        simulated_us,
    })
}

struct Simulated {
    /// Without that there is nothing to check in the history.
    came_up: bool,
    history: History,
    /// What only the simulation can check.
    checks: Vec<Check>,
}

async fn simulate(
    seed: u64,
    duration: Duration,
    kinds: &[Kind],
    processes: Processes,
) -> io::Result<Simulated> {
    let mut world = World::new(seed, processes)?;
    let plan = plan(&mut world, seed);
    let (recorder, collector) = (world.recorder.clone(), world.collector.clone());
    world.start_all()?;
    at_birth(&mut world).await;
    if !world.all_serve().await? {
        describe(&world, &plan, seed);
        return Ok(Simulated {
            came_up: false,
            history: recorder.history(std::mem::take),
            checks: vec![panics::check(), recovered(&world, false, true)],
        });
    }
    sleep(SETTLE).await;
    let before = world.tasks();
    let target = world.target();
    let clients: Vec<_> = tasks(&target, &plan, &recorder, &collector)
        .into_iter()
        .map(tokio::spawn)
        .collect();
    world.rest(QUIET).await?;
    trouble(&mut world, kinds, Instant::now() + duration).await?;
    world.rest(QUIET).await?;
    let all_serve = world.all_serve().await?;
    world.rest(QUIET).await?;
    recorder.stop();
    let all_agree = finish(&mut world, &collector, &plan).await?;
    // Those that do not agree are said not to.
    let stores = if all_agree { world.stores() } else { Vec::new() };
    let same_rows = contents::check(&stores);
    for client in clients {
        client.abort();
    }
    sleep(SETTLE).await;
    let tasks = Tasks {
        before,
        after: world.tasks(),
    };
    describe(&world, &plan, seed);
    recorder.history(|history| {
        history.states.extend(world.states());
        history.committed = Some(collector.committed());
        history.clock_tolerance_us = 50_000;
        history.outlived_leases = true;
        history.has_quota = world.settings.quota_bytes > 0;
    });
    Ok(Simulated {
        came_up: true,
        history: recorder.history(std::mem::take),
        checks: vec![
            tasks.check(),
            world.lives.check(),
            same_rows,
            panics::check(),
            recovered(&world, all_serve, all_agree),
        ],
    })
}

fn describe(world: &World, plan: &Plan, seed: u64) {
    world.recorder.history(|history| {
        history.seed = seed;
        history.description = format!("{} members, {:?}, {plan:?}", world.members.len(), world.settings);
        history.members = world.ids();
    });
}

/// A minute without faults is enough to have all members up.
fn recovered(world: &World, all_serve: bool, all_agree: bool) -> Check {
    let mut findings = Findings::new("the cluster recovers");
    findings.count(world.members.len());
    if !all_serve {
        findings.add(Violation::new(format!(
            "not every member serves: {:?}",
            world.serving()
        )));
    }
    if !all_agree {
        findings.add(Violation::new(format!(
            "members do not come to agree: {:?}",
            world.states()
        )));
    }
    findings.done()
}

fn plan(world: &mut World, seed: u64) -> Plan {
    let has_quota = world.settings.quota_bytes > 0;
    let rng = &mut world.rng;
    Plan {
        seed,
        prefix: "k/".into(),
        keys: rng.random_range(3..10),
        clients: rng.random_range(3..7),
        readers: rng.random_range(1..3),
        watchers: rng.random_range(2..6),
        tenants: rng.random_range(1..3),
        compactions: rng.random_bool(0.8),
        watches: 50,
        wide_requests: rng.random_bool(0.6),
        large_values: rng.random_bool(0.3),
        large_leases: rng.random_bool(0.5),
        disarms: has_quota,
        eager_progress: true,
        pause: Duration::from_millis(rng.random_range(20..120)),
        timeout: Duration::from_secs(5),
    }
}

/// Waits until the collector has everything and all members agree, for a minute at most.
async fn finish(world: &mut World, collector: &Collector, plan: &Plan) -> io::Result<bool> {
    // A call that hangs is given up by its client first; then leases come to their end.
    world.rest(plan.timeout + LEASES_END).await?;
    let caught_up = async {
        loop {
            let newest = world.states().iter().map(|state| state.revision).max();
            if collector.collected() >= newest.unwrap_or(0) && world.settle().await? {
                return Ok::<_, io::Error>(true);
            }
            world.rest(Duration::from_millis(100)).await?;
        }
    };
    let done = timeout(Duration::from_secs(60), caught_up).await;
    collector.stop();
    done.unwrap_or(Ok(false))
}
