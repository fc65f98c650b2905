//! One member's disk breaks what Raft rests on: what it had acknowledged is gone, and the member comes back as if nothing
//! had happened.
//!
//! All others keep their promises, so nothing that was acknowledged may be lost, whatever the member does; docs/chaos.md
//! says why, with an example. It stops or is refused, and then an operator replaces it; or it goes on, because the others
//! still hold all that it lost.

use std::{path::PathBuf, time::Duration};

use barque_checks::history::WipedRecord;
use barque_replica::MemberId;
use barque_wal::files::CutFiles;
use rand::{Rng, seq::IndexedRandom};
use tokio::time::sleep;

use crate::{
    faults::{Seen, pause, start, victim},
    interpose::now_us,
    kind::Kind,
    operator::{ambush, isolate, replace},
    world::World,
};

const LOOK_EVERY: Duration = Duration::from_millis(100);
/// Twenty seconds: elections, and what a member that is refused takes to find that out.
const LOOKS: usize = 200;
/// As long a service manager starts again and again what was found out.
const LOOKS_AFTER: usize = 20;

/// What became of the member.
enum Ending {
    /// By itself, and why.
    Stopped(String),
    Serves,
    /// It hangs, or waits for a quorum that does not come.
    Neither,
}

pub async fn break_promise(world: &mut World, kind: Kind) -> Seen {
    // Two members that fail at a time are more than three can bear.
    let whole = world.all_serve().await.unwrap_or(false);
    let at = victim(world);
    let id = world.members[at].id;
    let old = world.members[at]
        .replica()
        .map(|replica| replica.status().member_id);
    let (true, Some(old)) = (whole, old) else {
        return (vec![id], None);
    };
    let harm = match kind {
        Kind::OlderCopy => return older_copy(world, at, old).await,
        Kind::LostTail => lose_tail(world, at),
        Kind::LyingDisk => lie(world, at).await,
        _ => rot(world, at),
    };
    // It does not know how far it had served until it hears of the others.
    world.lives.lost_data(id);
    pause(world, 500, 3000).await;
    let stops = world.members[at].stops().0;
    start(world, at);
    let ending = ending(world, at, stops).await;
    let after = judge(world, at, old, ending, false, now_us()).await;
    (
        vec![id],
        harm.zip(after).map(|(harm, after)| format!("{harm}: {after}")),
    )
}

/// Waits until it serves, or stops by itself.
async fn ending(world: &World, at: usize, stops: u64) -> Ending {
    for _ in 0..LOOKS {
        let (now, why) = world.members[at].stops();
        if now > stops {
            return Ending::Stopped(why);
        }
        if world.members[at].serves() {
            return Ending::Serves;
        }
        sleep(LOOK_EVERY).await;
    }
    Ending::Neither
}

/// One that stopped stays out, however often it is started, until it is replaced. `is_refused`: it must not have served
/// in any case.
async fn judge(
    world: &mut World,
    at: usize,
    old: MemberId,
    ending: Ending,
    is_refused: bool,
    from: u64,
) -> Option<String> {
    let (mut served, found_out) = (
        matches!(ending, Ending::Serves),
        matches!(ending, Ending::Stopped(_)),
    );
    for _ in 0..if found_out { LOOKS_AFTER } else { 0 } {
        world.supervise().ok()?;
        sleep(LOOK_EVERY).await;
        served |= world.members[at].serves();
    }
    if is_refused || found_out {
        let record = WipedRecord {
            member: world.members[at].id,
            from,
            until: now_us(),
            served,
            has_older_copy: true,
        };
        world.recorder.history(|history| history.wiped.push(record));
    }
    match ending {
        Ending::Serves => Some("it went on".into()),
        Ending::Neither => Some("it neither served nor stopped".into()),
        Ending::Stopped(why) => {
            world.members[at].crash(true);
            let replaced = replace(world, at, old).await;
            replaced.then(|| format!("it stopped ({why}) and was replaced"))
        }
    }
}

/// The whole directory goes back to what it was a while ago.
///
/// Half of the time in the worst moment: of the two others, one lacks what was written last, and the other, which has it,
/// is away. With the vote of the member that went back the first could lead, and lose it.
async fn older_copy(world: &mut World, at: usize, old: MemberId) -> Seen {
    let id = world.members[at].id;
    match world.rng.random_bool(0.5) {
        true => world.members[at].stop().await,
        false => world.members[at].crash(false),
    }
    let copy = world.members[at].copy();
    start(world, at);
    let (true, Some(copy)) = (world.all_serve().await.unwrap_or(false), copy) else {
        return (vec![id], None);
    };
    pause(world, 500, 5000).await;
    let ambush = ambush(world, at);
    if let Some((behind, _)) = ambush {
        isolate(world, behind);
        pause(world, 300, 2500).await;
    }
    world.members[at].crash(false);
    world.members[at].put_back(copy);
    let down = ambush.filter(|_| world.rng.random_bool(0.5));
    if let Some((_, ahead)) = ambush {
        world.network.heal();
        match down {
            Some(_) => world.members[ahead].crash(false),
            None => isolate(world, ahead),
        }
    }
    let (from, stops) = (now_us(), world.members[at].stops().0);
    start(world, at);
    if ambush.is_some() {
        pause(world, 3000, 8000).await;
        world.network.heal();
    }
    if let Some((_, ahead)) = down {
        start(world, ahead);
    }
    let ending = ending(world, at, stops).await;
    let after = judge(world, at, old, ending, true, from).await;
    (vec![id], after)
}

/// The segment that the log is written to: its first sync is that of its header.
fn current_segment(log: &CutFiles) -> Option<PathBuf> {
    log.paths()
        .into_iter()
        .filter(|path| path.extension().is_some_and(|end| end == "wal"))
        .rfind(|path| log.synced(path).len() > 1)
}

/// The last batches are gone although they were synced, or one byte of the last one is wrong.
fn lose_tail(world: &mut World, at: usize) -> Option<String> {
    world.members[at].crash(false);
    let log = world.members[at].disk.log.clone();
    let segment = current_segment(&log)?;
    let synced = log.synced(&segment);
    if world.rng.random_bool(0.5) {
        let many = world.rng.random_range(1..synced.len());
        let gone = log.take_back(&segment, many);
        return (gone > 0).then(|| format!("{gone} synced batches are gone"));
    }
    let (offset, len) = *synced.last()?;
    let at = offset + world.rng.random_range(0..len.max(1));
    let flipped = log.flip(&segment, at as u64).is_ok();
    flipped.then(|| "a byte of the last batch is another".into())
}

/// Syncs are acknowledged and do nothing, and then the power goes.
async fn lie(world: &mut World, at: usize) -> Option<String> {
    let log = world.members[at].disk.log.clone();
    let before = log.harm();
    log.lie(true);
    pause(world, 300, 4000).await;
    world.members[at].crash(true);
    log.lie(false);
    let harm = log.harm();
    let (lies, lost) = (harm.lies - before.lies, harm.lost - before.lost);
    (lies > 0).then(|| format!("{lies} syncs did nothing, {lost} files and names lost something"))
}

/// A byte that was written long ago is another.
fn rot(world: &mut World, at: usize) -> Option<String> {
    world.members[at].crash(false);
    let log = world.members[at].disk.log.clone();
    let current = current_segment(&log)?;
    let synced = log.synced(&current);
    let (_, earlier) = synced.split_last()?;
    let (offset, len) = *earlier.choose(&mut world.rng)?;
    let byte = offset + world.rng.random_range(0..len.max(1));
    log.flip(&current, byte as u64).ok()?;
    Some(format!("byte {byte} of the log is another"))
}
