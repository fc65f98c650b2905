//! What goes wrong in a run: faults drawn from the seed, done, undone, and noted with what was seen of them.

use std::time::Duration;

use barque_checks::history::FaultRecord;
use barque_replica::{Member, MemberId};
use rand::{Rng, seq::IndexedRandom};
use tokio::time::sleep;

use crate::{interpose, interpose::now_us, member::peer_url, network::HostId, world::World};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// The process ends; the machine goes on.
    Kill,
    /// What was not synced is forgotten, or torn.
    PowerCut,
    PowerCutAll,
    Restart,
    Partition,
    OneWay,
    Delay,
    Loss,
    Reset,
    SlowDisk,
    FailingSync,
    FullDisk,
    Frozen,
    Transfer,
    WallClock,
    /// The data of a member is lost; it must not come back as it was, and is replaced.
    Wipe,
}

pub const ALL: [Kind; 16] = [
    Kind::Kill,
    Kind::PowerCut,
    Kind::PowerCutAll,
    Kind::Restart,
    Kind::Partition,
    Kind::OneWay,
    Kind::Delay,
    Kind::Loss,
    Kind::Reset,
    Kind::SlowDisk,
    Kind::FailingSync,
    Kind::FullDisk,
    Kind::Frozen,
    Kind::Transfer,
    Kind::WallClock,
    Kind::Wipe,
];

impl Kind {
    pub fn name(self) -> &'static str {
        match self {
            Kind::Kill => "kill",
            Kind::PowerCut => "power cut",
            Kind::PowerCutAll => "power cut of all",
            Kind::Restart => "restart",
            Kind::Partition => "partition",
            Kind::OneWay => "one-way partition",
            Kind::Delay => "delay",
            Kind::Loss => "packet loss",
            Kind::Reset => "connection reset",
            Kind::SlowDisk => "slow disk",
            Kind::FailingSync => "failing sync",
            Kind::FullDisk => "full disk",
            Kind::Frozen => "frozen member",
            Kind::Transfer => "leadership transfer",
            Kind::WallClock => "wall clock jump",
            Kind::Wipe => "wiped and replaced",
        }
    }
}

/// A member, the leader as often as all others together.
fn victim(world: &mut World) -> usize {
    let any = world.rng.random_range(0..world.members.len());
    match world.rng.random_bool(0.5) {
        true => world.leader().unwrap_or(any),
        false => any,
    }
}

/// Does one fault and undoes it again.
pub async fn inflict(world: &mut World, kind: Kind) -> FaultRecord {
    let from = now_us();
    let (members, observed) = act(world, kind).await;
    FaultRecord {
        kind: kind.name().into(),
        members,
        from,
        until: now_us(),
        observed,
    }
}

type Seen = (Vec<HostId>, Option<String>);

async fn act(world: &mut World, kind: Kind) -> Seen {
    match kind {
        Kind::Kill | Kind::PowerCut => crash(world, kind == Kind::PowerCut).await,
        Kind::PowerCutAll => crash_all(world).await,
        Kind::Restart => restart(world).await,
        Kind::Partition | Kind::OneWay => partition(world, kind == Kind::OneWay).await,
        Kind::Delay | Kind::Loss => degrade(world, kind == Kind::Loss).await,
        Kind::Reset => reset(world),
        Kind::SlowDisk => slow_disk(world).await,
        Kind::FailingSync | Kind::FullDisk => broken_disk(world, kind == Kind::FullDisk).await,
        Kind::Frozen => freeze(world).await,
        Kind::Transfer => transfer(world).await,
        Kind::WallClock => wall_clock(world),
        Kind::Wipe => wipe(world).await,
    }
}

async fn pause(world: &mut World, least_ms: u64, most_ms: u64) {
    sleep(Duration::from_millis(world.rng.random_range(least_ms..most_ms))).await;
}

fn start(world: &mut World, at: usize) {
    if let Err(error) = world.members[at].start() {
        tracing::error!(%error, "a simulated member's directory cannot be made");
    }
}

async fn crash(world: &mut World, power: bool) -> Seen {
    let at = victim(world);
    let id = world.members[at].id;
    let served = world.members[at].serves();
    world.members[at].crash(power);
    pause(world, 10, 6000).await;
    start(world, at);
    (vec![id], served.then(|| "it served until then".into()))
}

async fn crash_all(world: &mut World) -> Seen {
    let served = world.members.iter().filter(|member| member.serves()).count();
    for at in 0..world.members.len() {
        world.members[at].crash(true);
        if world.rng.random_bool(0.5) {
            pause(world, 1, 300).await;
        }
    }
    pause(world, 10, 2000).await;
    for at in 0..world.members.len() {
        start(world, at);
        pause(world, 1, 500).await;
    }
    (
        world.ids(),
        (served > 0).then(|| format!("{served} served until then")),
    )
}

async fn restart(world: &mut World) -> Seen {
    let at = victim(world);
    let (id, served) = (world.members[at].id, world.members[at].serves());
    world.members[at].stop().await;
    pause(world, 10, 3000).await;
    start(world, at);
    (vec![id], served.then(|| "it served until then".into()))
}

async fn partition(world: &mut World, one_way: bool) -> Seen {
    let at = victim(world);
    let mut cut = vec![world.members[at].id];
    if world.members.len() > 3 && world.rng.random_bool(0.5) {
        let other = (at + 1) % world.members.len();
        cut.push(world.members[other].id);
    }
    let outward = world.rng.random_bool(0.5);
    for a in &cut {
        for b in world.ids().iter().filter(|b| !cut.contains(b)) {
            let (out, back) = (!one_way || outward, !one_way || !outward);
            world.network.set(*a, *b, |link| link.blocked = out);
            world.network.set(*b, *a, |link| link.blocked = back);
        }
    }
    let before = world.leader();
    pause(world, 200, 8000).await;
    let after = world.leader();
    world.network.heal();
    let seen = match before == after {
        true => "links blocked, the same leader".to_owned(),
        false => "links blocked, another leader".to_owned(),
    };
    (cut, Some(seen))
}

async fn degrade(world: &mut World, loss: bool) -> Seen {
    let ids = world.ids();
    let lost_before = world.network.counts().1;
    for a in &ids {
        for b in &ids {
            let (least, most) = (
                world.rng.random_range(0..20_000),
                world.rng.random_range(0..150_000),
            );
            let lost = world.rng.random_range(0..200);
            world.network.set(*a, *b, |link| match loss {
                true => link.lost = lost,
                false => (link.least_us, link.most_us) = (least, least + most),
            });
        }
    }
    pause(world, 500, 6000).await;
    world.network.heal();
    let lost = world.network.counts().1 - lost_before;
    match loss {
        true => (ids, (lost > 0).then(|| format!("{lost} packets lost"))),
        false => (ids, Some("latencies up to 170 ms".into())),
    }
}

fn reset(world: &mut World) -> Seen {
    let at = victim(world);
    let id = world.members[at].id;
    let broken = world.network.reset(|from, to| from == id || to == id);
    (vec![id], (broken > 0).then(|| format!("{broken} streams broken")))
}

async fn slow_disk(world: &mut World) -> Seen {
    let at = victim(world);
    let most = world.rng.random_range(20_000..600_000);
    world.members[at].disk.set_pace(most / 4, most);
    pause(world, 500, 6000).await;
    world.members[at].disk.set_pace(100, 3_000);
    (
        vec![world.members[at].id],
        Some(format!("syncs of up to {most} µs")),
    )
}

/// A member whose disk fails stops; it comes back when the disk is whole again.
async fn broken_disk(world: &mut World, full: bool) -> Seen {
    let at = victim(world);
    let log = world.members[at].disk.log.clone();
    match full {
        true => log.limit(Some(0)),
        false => log.fail_sync(world.rng.random_range(1..4)),
    }
    pause(world, 500, 5000).await;
    let replica = world.members[at].replica();
    let failed = match &replica {
        Some(replica) => tokio::time::timeout(Duration::from_millis(1), replica.failed())
            .await
            .ok(),
        None => None,
    };
    log.limit(None);
    log.fail_sync(u64::MAX / 2);
    if failed.is_some() {
        world.members[at].crash(false);
        pause(world, 10, 500).await;
        start(world, at);
    }
    (vec![world.members[at].id], failed)
}

/// Neither disk nor network moves: as after SIGSTOP.
async fn freeze(world: &mut World) -> Seen {
    let at = victim(world);
    let id = world.members[at].id;
    let others: Vec<HostId> = world.ids().into_iter().filter(|other| *other != id).collect();
    for other in &others {
        world.network.set(id, *other, |link| link.blocked = true);
        world.network.set(*other, id, |link| link.blocked = true);
    }
    world.members[at].disk.set_pace(2_000_000, 4_000_000);
    pause(world, 500, 5000).await;
    world.members[at].disk.set_pace(100, 3_000);
    world.network.heal();
    (vec![id], Some("neither disk nor network moved".into()))
}

async fn transfer(world: &mut World) -> Seen {
    let Some(at) = world.leader() else {
        return (Vec::new(), None);
    };
    let Some(replica) = world.members[at].replica() else {
        return (Vec::new(), None);
    };
    let moved = replica.transfer_leadership(None).await;
    (
        vec![world.members[at].id],
        moved.ok().map(|()| "another leads".into()),
    )
}

fn wall_clock(world: &mut World) -> Seen {
    let by_s: i64 = *[-86_400i64, -60, -1, 1, 60, 86_400]
        .choose(&mut world.rng)
        .unwrap_or(&1);
    interpose::jump_wall_clock(by_s * 1_000_000_000);
    (world.ids(), Some(format!("by {by_s} s")))
}

async fn wipe(world: &mut World) -> Seen {
    // Two members lost at a time are more than three can bear.
    let whole = world.all_serve().await.unwrap_or(false);
    let at = victim(world);
    let id = world.members[at].id;
    if !whole {
        return (vec![id], None);
    }
    let Some(old) = world.members[at]
        .replica()
        .map(|replica| replica.status().member_id)
    else {
        return (vec![id], None);
    };
    let seed = world.rng.random();
    world.members[at].crash(true);
    if let Err(error) = world.members[at].wipe(seed) {
        tracing::error!(%error, "a simulated member's directory cannot be removed");
    }
    start(world, at);
    pause(world, 3000, 8000).await;
    // It may still be asking those that are down; serve it must not.
    let came_back = world.members[at].serves();
    world.members[at].crash(true);
    let replaced = replace(world, at, old).await;
    let seen = match came_back {
        true => "it came back as if nothing had been lost",
        false => "it did not come back",
    };
    (vec![id], replaced.then(|| seen.to_owned()))
}

/// As an operator would: remove it, add it, start it anew; again and again while there is no leader to do it.
async fn replace(world: &mut World, at: usize, old: MemberId) -> bool {
    let seed = world.rng.random();
    for _ in 0..30 {
        pause(world, 200, 1000).await;
        let Some(leader) = world.leader().and_then(|leader| world.members[leader].replica()) else {
            continue;
        };
        let url = peer_url(world.members[at].id);
        let listed = leader.members();
        if listed.iter().any(|member| member.id == old)
            && let Err(error) = leader.remove_member(old).await
        {
            tracing::info!(%error, "a wiped member could not be removed yet");
            continue;
        }
        let added = leader
            .members()
            .iter()
            .any(|member| member.id != old && member.peer_urls.contains(&url));
        if !added && let Err(error) = leader.add_voter(vec![url]).await {
            tracing::info!(%error, "a replacement could not be added yet");
            continue;
        }
        if let Err(error) = world.members[at].replace(seed) {
            tracing::error!(%error, "a simulated member's directory cannot be removed");
        }
        start(world, at);
        return votes(world, old, at).await;
    }
    false
}

/// Waits until the replacement is a voter: until then the cluster has one member less to lose.
async fn votes(world: &mut World, old: MemberId, at: usize) -> bool {
    let url = peer_url(world.members[at].id);
    for _ in 0..600 {
        pause(world, 90, 110).await;
        let Some(leader) = world.leader().and_then(|leader| world.members[leader].replica()) else {
            continue;
        };
        let votes =
            |member: &Member| member.id != old && !member.is_learner && member.peer_urls.contains(&url);
        if leader.members().iter().any(votes) {
            return true;
        }
    }
    false
}
