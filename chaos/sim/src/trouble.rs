//! The course of a run's faults.

use std::io;

use barque_checks::history::FaultRecord;
use rand::{Rng, seq::IndexedRandom};
use tokio::time::Instant;

use crate::{faults, kind::Kind, lasting, world::World};

/// Faults one after another with pauses between them, and some while others last.
///
/// `of`: the kinds there are to choose from.
pub async fn trouble(world: &mut World, of: &[Kind], until: Instant) -> io::Result<()> {
    // A run knows a few kinds well rather than all of them a little.
    let kinds: Vec<Kind> = {
        let many = world.rng.random_range(2..6);
        of.choose_multiple(&mut world.rng, many).copied().collect()
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
    let acts: Vec<Kind> = kinds
        .iter()
        .copied()
        .filter(|kind| !kind.lasts() && !kind.takes_all_others())
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
    let states = world.states();
    world.recorder.history(|history| {
        history.faults.push(record);
        history.states.extend(states);
    });
    Ok(())
}
