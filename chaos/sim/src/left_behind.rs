//! A member that is away until the others have purged what it lacks: it comes back by a snapshot, perhaps not at the
//! first try.

use std::time::Duration;

use rand::Rng;
use tokio::time::sleep;

use crate::{
    faults::{Seen, pause, start, victim},
    network::{HostId, Link},
    world::World,
};

const LOOK_EVERY: Duration = Duration::from_millis(100);
/// Longer than the log that is kept takes to be written anew, with the largest that runs are given.
const LOOKS: usize = 600;

pub async fn leave_behind(world: &mut World) -> Seen {
    let at = victim(world);
    let id = world.members[at].id;
    let Some(last) = world.members[at]
        .replica()
        .map(|replica| replica.status().last_log_index)
    else {
        return (vec![id], None);
    };
    let away = Away::send(world, at);
    let is_behind = until(world, |world| purged(world, at) > last).await;
    let mut received = away.fetch(world);
    if is_behind {
        received = disturb(world, at, received).await;
    }
    let is_back = is_behind && until(world, |world| snapshots(world, at) > received).await;
    away.forget(world);
    (vec![id], is_back.then(|| "it came back by a snapshot".into()))
}

/// How a member is away, and how its links were before.
struct Away {
    at: usize,
    is_down: bool,
    links: Vec<(HostId, HostId, Link)>,
}

impl Away {
    /// Half of the time it is down, otherwise cut off from the others: then its watches outlive the change of its state.
    fn send(world: &mut World, at: usize) -> Away {
        let id = world.members[at].id;
        let others = world.ids().into_iter().filter(|other| *other != id);
        let links = others.flat_map(|other| [(id, other), (other, id)]);
        let away = Away {
            at,
            is_down: world.rng.random_bool(0.5),
            links: links
                .map(|(from, to)| (from, to, world.network.link(from, to)))
                .collect(),
        };
        match away.is_down {
            true => {
                let power = world.rng.random_bool(0.5);
                world.members[at].crash(power);
            }
            false => away.set_links(world, |link| link.blocked = true),
        }
        away
    }

    fn set_links(&self, world: &World, change: impl Fn(&mut Link)) {
        for (from, to, _) in &self.links {
            world.network.set(*from, *to, &change);
        }
    }

    /// It is back, over links so slow that a snapshot takes a while; returns how many it had received until then.
    fn fetch(&self, world: &mut World) -> u64 {
        self.forget(world);
        let least = world.rng.random_range(1_000..60_000);
        self.set_links(world, |link| {
            (link.least_us, link.most_us) = (least, 2 * least);
        });
        match self.is_down {
            true => {
                start(world, self.at);
                0
            }
            false => snapshots(world, self.at),
        }
    }

    fn forget(&self, world: &World) {
        for (from, to, before) in &self.links {
            world.network.set(*from, *to, |link| *link = *before);
        }
    }
}

/// Most of the time a machine goes down meanwhile: that of the member, or of the leader which sends. Returns how many
/// snapshots the member had received in the life that it has then.
async fn disturb(world: &mut World, at: usize, received: u64) -> u64 {
    pause(world, 1, 1500).await;
    let struck = match world.rng.random_range(0..3) {
        0 => at,
        1 => world.leader().unwrap_or(at),
        _ => return received,
    };
    // Too late: it is there already.
    if snapshots(world, at) > received {
        return received;
    }
    let power = world.rng.random_bool(0.5);
    world.members[struck].crash(power);
    pause(world, 10, 1000).await;
    start(world, struck);
    if struck == at { 0 } else { received }
}

/// How far the others' logs are purged at most.
fn purged(world: &World, at: usize) -> u64 {
    let others = world.members.iter().enumerate().filter(|(other, _)| *other != at);
    let purged = others.filter_map(|(_, member)| Some(member.replica()?.status().purged_index));
    purged.max().unwrap_or(0)
}

fn snapshots(world: &World, at: usize) -> u64 {
    let replica = world.members[at].replica();
    replica.map_or(0, |replica| replica.metrics().snapshots_received)
}

async fn until(world: &World, is_so: impl Fn(&World) -> bool) -> bool {
    for _ in 0..LOOKS {
        if is_so(world) {
            return true;
        }
        sleep(LOOK_EVERY).await;
    }
    false
}
