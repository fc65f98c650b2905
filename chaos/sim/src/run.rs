//! One seed: a cluster's life in simulated time, and what the checks say of it.

use std::{io, time::Duration};

use barque_checks::{
    history::{FaultRecord, History},
    verdict::{Check, Verdict, check_all, overall},
};
use barque_traffic::{Collector, Plan, tasks};
use rand::{Rng, seq::IndexedRandom};
use tokio::time::{Instant, sleep, timeout};

use crate::{
    faults::{self, Kind},
    interpose::now_us,
    lasting,
    process::Processes,
    world::World,
};

/// What a run amounted to.
pub struct Ran {
    pub history: History,
    pub checks: Vec<Check>,
    pub verdict: Verdict,
    pub simulated_us: u64,
}

const QUIET: Duration = Duration::from_secs(6);
/// Longer than any lease of the traffic lives after its last sign.
const LEASES_END: Duration = Duration::from_secs(9);

/// Everything happens on the calling thread.
pub fn run(seed: u64, duration: Duration) -> io::Result<Ran> {
    let processes = Processes::default();
    let history = processes.run(simulate(seed, duration, processes.clone()))??;
    let simulated_us = now_us();
    let checks = check_all(&history);
    let verdict = overall(&checks);
    Ok(Ran {
        history,
        checks,
        verdict,
        simulated_us,
    })
}

async fn simulate(seed: u64, duration: Duration, processes: Processes) -> io::Result<History> {
    let mut world = World::new(seed, processes)?;
    let plan = plan(&mut world, seed);
    let (recorder, collector) = (world.recorder.clone(), Collector::default());
    world.start_all()?;
    if !world.all_serve().await? {
        return Err(io::Error::other("the cluster did not come up within a minute"));
    }
    let target = world.target();
    let clients: Vec<_> = tasks(&target, &plan, &recorder, &collector)
        .into_iter()
        .map(tokio::spawn)
        .collect();
    sleep(QUIET).await;
    trouble(&mut world, Instant::now() + duration).await?;
    sleep(QUIET).await;
    let served = world.all_serve().await?;
    sleep(QUIET).await;
    recorder.stop();
    let end = finish(&world, &collector, &plan).await;
    for client in clients {
        client.abort();
    }
    recorder.history(|history| {
        history.seed = seed;
        history.description = format!("{} members, {:?}, {plan:?}", world.members.len(), world.settings);
        history.members = world.ids();
        history.states.extend(world.states());
        history.leaders = world.leaders.lock().clone();
        history.committed = Some(collector.committed());
        history.clock_tolerance_us = 50_000;
        history.outlived_leases = true;
    });
    match served && end {
        true => Ok(recorder.history(std::mem::take)),
        false => Err(io::Error::other(format!(
            "the cluster did not recover within a minute: all serve: {served}, all agree: {end}, {:?}",
            world.states()
        ))),
    }
}

fn plan(world: &mut World, seed: u64) -> Plan {
    let rng = &mut world.rng;
    Plan {
        seed,
        prefix: "k/".into(),
        keys: rng.random_range(3..10),
        clients: rng.random_range(3..7),
        watchers: rng.random_range(2..6),
        tenants: rng.random_range(1..3),
        compactions: rng.random_bool(0.8),
        eager_progress: true,
        pause: Duration::from_millis(rng.random_range(20..120)),
        timeout: Duration::from_secs(5),
    }
}

/// Faults one after another with pauses between them, and some while others last.
async fn trouble(world: &mut World, until: Instant) -> io::Result<()> {
    // A run knows a few kinds well rather than all of them a little.
    let kinds: Vec<Kind> = {
        let many = world.rng.random_range(2..6);
        faults::ALL
            .choose_multiple(&mut world.rng, many)
            .copied()
            .collect()
    };
    world.recorder.history(|history| {
        let names = kinds.iter().map(|kind| kind.name().to_owned());
        history.requested_faults = names.collect();
    });
    while Instant::now() < until {
        let Some(kind) = kinds.choose(&mut world.rng).copied() else {
            break;
        };
        match kind.lasts() && world.rng.random_bool(0.5) {
            true => pile_up(world, kind, &kinds).await?,
            false => one(world, kind).await?,
        }
    }
    // What was asked for and not possible at its moment is tried again.
    for kind in kinds {
        for _ in 0..5 {
            let seen = |fault: &FaultRecord| fault.kind == kind.name() && fault.observed.is_some();
            if world.recorder.history(|history| history.faults.iter().any(seen)) {
                break;
            }
            world.all_serve().await?;
            one(world, kind).await?;
        }
    }
    world.network.heal();
    Ok(())
}

async fn one(world: &mut World, kind: Kind) -> io::Result<()> {
    faults::pause(world, 100, 3000).await;
    world.note_leaders();
    let record = faults::inflict(world, kind).await;
    note(world, record)
}

/// One that lasts, perhaps a second, and others meanwhile.
async fn pile_up(world: &mut World, kind: Kind, kinds: &[Kind]) -> io::Result<()> {
    faults::pause(world, 100, 3000).await;
    let mut lasting = vec![lasting::begin(world, kind)];
    let second = kinds
        .iter()
        .copied()
        .find(|other| other.lasts() && lasting[0].goes_with(*other));
    if let Some(second) = second
        && world.rng.random_bool(0.5)
    {
        lasting.push(lasting::begin(world, second));
    }
    // Replacing a member takes all the others.
    let acts: Vec<Kind> = kinds
        .iter()
        .copied()
        .filter(|kind| !kind.lasts() && *kind != Kind::Wipe)
        .collect();
    for _ in 0..world.rng.random_range(1..4) {
        if let Some(act) = acts.choose(&mut world.rng).copied() {
            one(world, act).await?;
        }
    }
    faults::pause(world, 100, 2000).await;
    while let Some(last) = lasting.pop() {
        let record = last.end(world);
        note(world, record)?;
    }
    Ok(())
}

fn note(world: &mut World, record: FaultRecord) -> io::Result<()> {
    tracing::info!(?record, "fault");
    world.supervise()?;
    world.note_leaders();
    let states = world.states();
    world.recorder.history(|history| {
        history.faults.push(record);
        history.states.extend(states);
    });
    Ok(())
}

/// Waits until the collector has everything and all members agree.
async fn finish(world: &World, collector: &Collector, plan: &Plan) -> bool {
    let caught_up = async {
        loop {
            let states = world.states();
            let newest = states.iter().map(|state| state.revision).max().unwrap_or(0);
            if collector.collected() >= newest && world.settle().await {
                return;
            }
            sleep(Duration::from_millis(100)).await;
        }
    };
    // A call that hangs is given up by its client first; then leases come to their end.
    sleep(plan.timeout + LEASES_END).await;
    let done = timeout(Duration::from_secs(60), caught_up).await.is_ok();
    world.note_leaders();
    collector.stop();
    done
}
