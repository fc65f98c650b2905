//! One seed: a cluster's life in simulated time, and what the checks say of it.

use std::{io, time::Duration};

use barque_checks::{
    history::History,
    verdict::{Check, Verdict, check_all, overall},
};
use barque_traffic::{Collector, Plan, Recorder, tasks};
use rand::{Rng, seq::IndexedRandom};
use tokio::time::{Instant, sleep, timeout};

use crate::{faults, interpose::now_us, world::World};

/// What a run amounted to.
pub struct Ran {
    pub history: History,
    pub checks: Vec<Check>,
    pub verdict: Verdict,
    pub simulated_us: u64,
}

const QUIET: Duration = Duration::from_secs(6);

/// Everything happens on the calling thread.
pub fn run(seed: u64, duration: Duration) -> io::Result<Ran> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let history = runtime.block_on(simulate(seed, duration))?;
    let simulated_us = now_us();
    // Tasks that still run have nobody to serve.
    runtime.shutdown_background();
    let checks = check_all(&history);
    let verdict = overall(&checks);
    Ok(Ran {
        history,
        checks,
        verdict,
        simulated_us,
    })
}

async fn simulate(seed: u64, duration: Duration) -> io::Result<History> {
    let mut world = World::new(seed)?;
    let plan = plan(&mut world, seed);
    let (recorder, collector) = (Recorder::default(), Collector::default());
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
    trouble(&mut world, &recorder, Instant::now() + duration).await?;
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

/// Faults one after another, with pauses between them, sometimes two at a time.
async fn trouble(world: &mut World, recorder: &Recorder, until: Instant) -> io::Result<()> {
    // A run knows a few kinds well rather than all of them a little.
    let kinds: Vec<faults::Kind> = {
        let many = world.rng.random_range(2..6);
        faults::ALL
            .choose_multiple(&mut world.rng, many)
            .copied()
            .collect()
    };
    while Instant::now() < until {
        let pause = world.rng.random_range(100..3000);
        sleep(Duration::from_millis(pause)).await;
        world.note_leaders();
        let Some(kind) = kinds.choose(&mut world.rng).copied() else {
            break;
        };
        let record = faults::inflict(world, kind).await;
        tracing::info!(?record, "fault");
        world.supervise()?;
        world.note_leaders();
        recorder.history(|history| {
            history.faults.push(record);
            history.states.extend(world.states());
        });
    }
    world.network.heal();
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
    // A call that hangs is given up by its client first.
    sleep(plan.timeout + Duration::from_secs(1)).await;
    let done = timeout(Duration::from_secs(60), caught_up).await.is_ok();
    world.note_leaders();
    collector.stop();
    done
}
