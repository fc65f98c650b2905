//! What goes wrong in a run: faults drawn from the seed, done, and noted with what was seen of them.
//!
//! Some last for a while, and others happen meanwhile: see [`crate::lasting`].

use std::time::Duration;

use barque_checks::history::FaultRecord;
use barque_traffic::compact;
use rand::{Rng, seq::IndexedRandom};
use tokio::time::sleep;

use crate::{
    broken_promise::break_promise, interpose, interpose::now_us, kind::Kind, lasting,
    left_behind::leave_behind, network::HostId, operator, world::World,
};

/// Long enough for another leader to do it.
const COMPACTION_TIMEOUT: Duration = Duration::from_secs(5);

/// Whom it concerned, and what was seen of it.
pub type Seen = (Vec<HostId>, Option<String>);

/// Any member, half of the time the leader.
pub fn victim(world: &mut World) -> usize {
    let any = world.rng.random_range(0..world.members.len());
    match world.rng.random_bool(0.5) {
        true => world.leader().unwrap_or(any),
        false => any,
    }
}

pub async fn pause(world: &mut World, least_ms: u64, most_ms: u64) {
    sleep(Duration::from_millis(world.rng.random_range(least_ms..most_ms))).await;
}

pub fn start(world: &mut World, at: usize) {
    if let Err(error) = world.members[at].start() {
        tracing::error!(%error, "a simulated member cannot be started");
    }
}

/// Does one fault; one that lasts is undone again, with nothing happening meanwhile.
pub async fn inflict(world: &mut World, kind: Kind) -> FaultRecord {
    let from = now_us();
    if kind.lasts() {
        let lasting = lasting::begin(world, kind);
        pause(world, 200, 7000).await;
        return lasting.end(world);
    }
    let (members, observed) = act(world, kind).await;
    FaultRecord {
        kind: kind.name().into(),
        members,
        from,
        until: now_us(),
        observed,
    }
}

async fn act(world: &mut World, kind: Kind) -> Seen {
    match kind {
        Kind::PowerCut => power_cut(world).await,
        Kind::PowerCutAll => crash_all(world).await,
        Kind::CutInSync => cut_in_sync(world).await,
        Kind::CutAfterKill => cut_after_kill(world).await,
        Kind::Restart => restart(world).await,
        Kind::Reset => reset(world),
        Kind::HalfCut => cut_in_half(world).await,
        Kind::FailingSync | Kind::FullDisk => broken_disk(world, kind == Kind::FullDisk).await,
        Kind::Transfer => operator::transfer(world).await,
        Kind::WallClock => wall_clock(world).await,
        Kind::Compaction => crash_in_compaction(world).await,
        Kind::LeftBehind => leave_behind(world).await,
        Kind::Members => operator::change_members(world).await,
        Kind::Wipe => operator::wipe(world).await,
        Kind::Leave => operator::leave(world).await,
        Kind::OlderCopy | Kind::LostTail | Kind::LyingDisk | Kind::BitRot => break_promise(world, kind).await,
        _ => kill(world).await,
    }
}

async fn kill(world: &mut World) -> Seen {
    let at = victim(world);
    crash(world, at, false).await
}

/// Half of the time the disk dawdles before: then much waits to be written when the power goes.
async fn power_cut(world: &mut World) -> Seen {
    let at = victim(world);
    if world.rng.random_bool(0.5) {
        let sync_us = world.rng.random_range(20_000..600_000);
        world.members[at].disk.set_pace(sync_us / 4, sync_us);
        pause(world, 20, 1000).await;
    }
    let seen = crash(world, at, true).await;
    world.members[at].disk.set_healthy_pace();
    seen
}

/// What was written since the last sync is lost, kept or torn.
async fn cut_in_sync(world: &mut World) -> Seen {
    let at = victim(world);
    let log = world.members[at].disk.log.clone();
    let before = log.harm();
    log.cut_in_sync(world.rng.random_range(1..6));
    until_cut(world, at).await;
    let (members, _) = crash(world, at, true).await;
    let harm = log.harm();
    let (unsynced, lost) = (harm.unsynced - before.unsynced, harm.lost - before.lost);
    let seen = format!("{unsynced} changes were not synced, {lost} files and names lost something");
    (members, (unsynced > 0).then_some(seen))
}

/// What a life has found on its disk it may have promised to others, whoever wrote it.
async fn cut_after_kill(world: &mut World) -> Seen {
    let at = victim(world);
    let log = world.members[at].disk.log.clone();
    log.halt_in_sync(world.rng.random_range(1..4));
    until_cut(world, at).await;
    let in_sync = log.is_cut();
    world.members[at].crash(false);
    start(world, at);
    pause(world, 1, 400).await;
    let before = log.harm();
    let (members, _) = crash(world, at, true).await;
    let unsynced = log.harm().unsynced - before.unsynced;
    let seen = format!("killed in a sync, and then {unsynced} changes were not synced");
    (members, in_sync.then_some(seen))
}

/// An idle member syncs nothing: then it is cut off without.
async fn until_cut(world: &World, at: usize) {
    for _ in 0..3000 {
        if world.members[at].disk.log.is_cut() {
            return;
        }
        sleep(Duration::from_millis(1)).await;
    }
}

async fn crash(world: &mut World, at: usize, power: bool) -> Seen {
    let id = world.members[at].id;
    let served = world.members[at].serves();
    world.members[at].crash(power);
    pause(world, 10, 6000).await;
    start(world, at);
    (vec![id], served.then(|| "it served until then".into()))
}

async fn crash_in_compaction(world: &mut World) -> Seen {
    let at = victim(world);
    let asked = world.members[(at + 1) % world.members.len()].id;
    let compaction = tokio::spawn(compact(
        world.target(),
        asked,
        COMPACTION_TIMEOUT,
        world.recorder.clone(),
        world.collector.clone(),
    ));
    pause(world, 0, 30).await;
    let power = world.rng.random_bool(0.5);
    let (members, served) = crash(world, at, power).await;
    let compacted = compaction.await.ok().flatten();
    let seen = served
        .and(compacted)
        .map(|revision| format!("compacted up to {revision} while it went down"));
    (members, seen)
}

/// Power cuts while the cluster comes up for the first time; no kind that a run asks for.
pub async fn at_birth(world: &mut World) {
    for _ in 0..world.rng.random_range(0..4) {
        pause(world, 1, 800).await;
        let at = world.rng.random_range(0..world.members.len());
        if world.rng.random_bool(0.5) {
            world.members[at].disk.log.cut_in_sync(1);
            until_cut(world, at).await;
        }
        world.members[at].crash(true);
        pause(world, 1, 800).await;
        start(world, at);
    }
}

async fn crash_all(world: &mut World) -> Seen {
    let served = world.members.iter().filter(|member| member.serves()).count();
    // The ones lose what they are just writing, and the others have written it.
    for member in &world.members {
        if world.rng.random_bool(0.5) {
            member.disk.log.cut_in_sync(1);
        }
    }
    pause(world, 1, 20).await;
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

fn reset(world: &mut World) -> Seen {
    let at = victim(world);
    let id = world.members[at].id;
    let broken = world.network.reset(|from, to| from == id || to == id);
    (vec![id], (broken > 0).then(|| format!("{broken} streams broken")))
}

/// Slow first, so that much is under way; what is sent afterwards overtakes it.
async fn cut_in_half(world: &mut World) -> Seen {
    let at = victim(world);
    let id = world.members[at].id;
    let others: Vec<HostId> = world.ids().into_iter().filter(|other| *other != id).collect();
    let before: Vec<_> = others.iter().map(|to| world.network.link(id, *to)).collect();
    for to in &others {
        let least = world.rng.random_range(50_000..300_000);
        world.network.set(id, *to, |link| {
            (link.least_us, link.most_us) = (least, least + 100_000);
        });
    }
    pause(world, 200, 700).await;
    let late = Duration::from_millis(world.rng.random_range(0..2000));
    let under_way = world.network.cut_in_half(id, |to| others.contains(&to), late);
    for (to, before) in others.iter().zip(before) {
        world.network.set(id, *to, |link| *link = before);
    }
    (
        vec![id],
        (under_way > 0).then(|| format!("{under_way} writes came {late:?} late")),
    )
}

/// A member whose disk fails stops; it comes back when the disk is whole again. Half of the time the power goes
/// first: a member that had gone on lacks then what it could not sync.
async fn broken_disk(world: &mut World, full: bool) -> Seen {
    let at = victim(world);
    let log = world.members[at].disk.log.clone();
    let before = log.harm();
    match full {
        true => log.limit(Some(0)),
        false => log.fail_sync(world.rng.random_range(1..4)),
    }
    pause(world, 500, 5000).await;
    log.limit(None);
    log.fail_sync(u64::MAX / 2);
    let harm = log.harm();
    let (failed, refused) = (
        harm.failed_syncs - before.failed_syncs,
        harm.refused_writes - before.refused_writes,
    );
    let seen = (failed + refused > 0).then(|| format!("{failed} syncs failed, {refused} writes refused"));
    if seen.is_some() {
        let power = world.rng.random_bool(0.5);
        world.members[at].crash(power);
        pause(world, 10, 500).await;
        start(world, at);
    }
    (vec![world.members[at].id], seen)
}

/// Of one member, or of all by the same, as a time server gone wrong would do it.
async fn wall_clock(world: &mut World) -> Seen {
    let by_s: i64 = *[-86_400i64, -60, -1, 1, 60, 86_400]
        .choose(&mut world.rng)
        .unwrap_or(&1);
    let at = victim(world);
    let all = world.rng.random_bool(0.3);
    let mut concerned = Vec::new();
    let mut slots = Vec::new();
    for (number, member) in world.members.iter().enumerate() {
        if all || number == at {
            interpose::jump_wall_clock(member.slot(), by_s * 1_000_000_000);
            concerned.push(member.id);
            slots.push(member.slot());
        }
    }
    let reads = || slots.iter().map(|slot| interpose::wall_reads(*slot)).sum::<u64>();
    let before = reads();
    pause(world, 500, 2000).await;
    let seen = (reads() > before).then(|| format!("by {by_s} s, and looked at since"));
    (concerned, seen)
}
