//! Does one fault, sees it happen, and undoes it: [`inflict`].

use std::{fs, os::unix::process::ExitStatusExt, path::Path, process::ExitStatus, time::Duration};

use anyhow::{Context, ensure};
use barque_chaos::{
    cluster::{Kind as Program, MemberState},
    lan::Passed,
};
use barque_checks::history::FaultRecord;
use rand::{Rng, seq::SliceRandom};
use tokio::time::{Instant, sleep, timeout};

use super::{kind::Kind, replace, site::Site};

/// The members that were hit, and the proof.
pub type Seen = (Vec<usize>, Option<String>);

/// A member that got SIGTERM has this long to leave in order.
const TO_LEAVE: Duration = Duration::from_secs(30);

/// The record ends when the fault is undone; the cluster may still have to recover.
pub async fn inflict(site: &mut Site, kind: Kind) -> anyhow::Result<FaultRecord> {
    let from = site.now_us();
    let (members, observed) = act(site, kind).await.with_context(|| kind.name())?;
    Ok(FaultRecord {
        kind: kind.name(),
        members: members.into_iter().map(Site::id).collect(),
        from,
        until: site.now_us(),
        observed,
    })
}

async fn act(site: &mut Site, kind: Kind) -> anyhow::Result<Seen> {
    match kind {
        Kind::KillLeader => {
            let leader = site.cluster.leader().await?;
            kill(site, leader, true).await
        }
        Kind::KillFollower => {
            let follower = site.follower().await?;
            kill(site, follower, false).await
        }
        Kind::KillAll => kill_all(site).await,
        Kind::StopLeader => {
            let leader = site.cluster.leader().await?;
            stop(site, leader).await
        }
        Kind::StopFollower => {
            let follower = site.follower().await?;
            stop(site, follower).await
        }
        Kind::RollingRestart => rolling_restart(site).await,
        Kind::Partition => partition(site, false).await,
        Kind::OneWay => partition(site, true).await,
        Kind::PartialPartition => partial_partition(site).await,
        Kind::Delay => degrade(site, false).await,
        Kind::Loss => degrade(site, true).await,
        Kind::PowerCut => power_cut(site).await,
        Kind::PowerCutAll => power_cut_all(site).await,
        Kind::SlowDisk => slow_disk(site).await,
        Kind::FullDisk => full_disk(site).await,
        Kind::FailingSync => failing_sync(site).await,
        Kind::ClockJump => clock_jump(site).await,
        Kind::WipeAndReplace => replace::wipe_and_replace(site).await,
    }
}

/// kill -9 of a member that runs; the proof that it is gone.
pub fn kill_now(site: &mut Site, index: usize) -> anyhow::Result<Option<String>> {
    let pid = site.cluster.pid(index).context("it does not run")?;
    site.cluster.kill9(index)?;
    // Its parent has waited for it, so the kernel has forgotten it.
    let is_gone = !Path::new(&format!("/proc/{pid}")).exists();
    Ok(is_gone.then(|| format!("process {pid} is gone")))
}

async fn kill(site: &mut Site, index: usize, led: bool) -> anyhow::Result<Seen> {
    let mut seen = kill_now(site, index)?;
    if led && site.cluster.len() > 2 {
        let patience = Duration::from_millis(site.dice.random_range(500..8000));
        if let Ok(Ok(next)) = timeout(patience, site.cluster.leader()).await {
            let name = site.cluster.name(next);
            seen = seen.map(|seen| format!("{seen}, {name} leads instead"));
        }
    }
    site.pause(10, 2500).await;
    site.restart(index)?;
    Ok((vec![index], seen))
}

async fn kill_all(site: &mut Site) -> anyhow::Result<Seen> {
    let mut gone = 0;
    for index in 0..site.cluster.len() {
        gone += usize::from(kill_now(site, index)?.is_some());
        if site.dice.random_bool(0.3) {
            site.pause(1, 200).await;
        }
    }
    site.pause(10, 1500).await;
    restart_all(site).await?;
    Ok(((0..gone).collect(), all_gone(site, gone)))
}

fn all_gone(site: &Site, gone: usize) -> Option<String> {
    (gone == site.cluster.len()).then(|| format!("{gone} processes are gone"))
}

/// In any order.
async fn restart_all(site: &mut Site) -> anyhow::Result<()> {
    let mut order: Vec<usize> = (0..site.cluster.len()).collect();
    order.shuffle(&mut site.dice);
    for index in order {
        site.restart(index)?;
        site.pause(1, 400).await;
    }
    Ok(())
}

async fn stop(site: &mut Site, index: usize) -> anyhow::Result<Seen> {
    site.cluster.stop(index)?;
    let pid = site.cluster.pid(index).context("it does not run")?;
    site.pause(1500, 5000).await;
    let state = process_state(pid)?;
    site.cluster.cont(index)?;
    let seen = (state == 'T').then(|| format!("process {pid} was in state T"));
    Ok((vec![index], seen))
}

/// The letter in the third field of `/proc/PID/stat`.
fn process_state(pid: i32) -> anyhow::Result<char> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let after_name = stat.rsplit(')').next().unwrap_or_default();
    after_name.trim_start().chars().next().context("an empty stat")
}

async fn rolling_restart(site: &mut Site) -> anyhow::Result<Seen> {
    let mut left = Vec::new();
    for index in 0..site.cluster.len() {
        let pid = site.cluster.pid(index).context("it does not run")?;
        let status = site.cluster.terminate(index, TO_LEAVE).await?;
        ensure!(
            left_in_order(site.cluster.kind(), status),
            "{} was told to leave, and ended with {status}",
            site.cluster.name(index)
        );
        left.push(format!("process {pid} left with {status}"));
        site.restart(index)?;
        site.cluster.wait_healthy().await?;
    }
    Ok(((0..left.len()).collect(), Some(left.join(", "))))
}

/// etcd puts everything in order, and then has the signal end it after all.
fn left_in_order(program: Program, status: ExitStatus) -> bool {
    status.success() || (program == Program::Etcd && status.signal() == Some(libc::SIGTERM))
}

/// A part that is no majority, from the rest.
async fn partition(site: &mut Site, one_way: bool) -> anyhow::Result<Seen> {
    let members = site.cluster.len();
    let mut cut = vec![site.victim().await?];
    if members > 4 && site.dice.random_bool(0.5) {
        cut.push((cut[0] + 1) % members);
    }
    let outward = site.dice.random_bool(0.5);
    let lan = site.lan()?;
    let before = lan.passed();
    for a in &cut {
        for b in (0..members).filter(|b| !cut.contains(b)) {
            lan.set(*a, b, |link| link.blocked = !one_way || outward);
            lan.set(b, *a, |link| link.blocked = !one_way || !outward);
        }
    }
    site.pause(1500, 6000).await;
    let after = site.lan()?.passed();
    site.lan()?.heal();
    let blocked = after.blocked - before.blocked;
    let direction = match (one_way, outward) {
        (false, _) => "both ways",
        (true, true) => "on the way out",
        (true, false) => "on the way in",
    };
    let seen = (blocked > 0).then(|| format!("{blocked} packets dropped {direction}"));
    Ok((cut, seen))
}

/// One link, both ways: its ends still reach all others, so that they disagree about who is there.
async fn partial_partition(site: &mut Site) -> anyhow::Result<Seen> {
    let members = site.cluster.len();
    let one = site.victim().await?;
    let other = (one + site.dice.random_range(1..members)) % members;
    let lan = site.lan()?;
    let before = lan.passed();
    lan.set(one, other, |link| link.blocked = true);
    lan.set(other, one, |link| link.blocked = true);
    site.pause(1500, 6000).await;
    let after = site.lan()?.passed();
    site.lan()?.heal();
    let blocked = after.blocked - before.blocked;
    let seen = (blocked > 0).then(|| format!("{blocked} packets dropped between the two"));
    Ok((vec![one, other], seen))
}

/// Every link between members, each its own way.
async fn degrade(site: &mut Site, loss: bool) -> anyhow::Result<Seen> {
    let members = site.cluster.len();
    let before = site.lan()?.passed();
    for (a, b) in (0..members).flat_map(|a| (0..members).map(move |b| (a, b))) {
        let lost = site.dice.random_range(20..200);
        let delay = Duration::from_millis(site.dice.random_range(5..120));
        site.lan()?.set(a, b, |link| match loss {
            true => link.lost = lost,
            false => link.delay = delay,
        });
    }
    site.pause(2000, 6000).await;
    let after = site.lan()?.passed();
    site.lan()?.heal();
    Ok(((0..members).collect(), degraded(before, after, loss)))
}

fn degraded(before: Passed, after: Passed, loss: bool) -> Option<String> {
    let all = after.delivered + after.lost - before.delivered - before.lost;
    let (hit, how) = match loss {
        true => (after.lost - before.lost, "lost"),
        false => (after.delayed - before.delayed, "delivered late"),
    };
    (hit > 0).then(|| format!("{hit} of {all} packets {how}"))
}

/// The disk first, so that nothing is made durable by dying.
fn cut_power(site: &mut Site, index: usize) -> anyhow::Result<bool> {
    let disk = site.disk(index)?;
    let before = disk.stats().cuts;
    disk.cut();
    let was_cut = disk.is_cut() && disk.stats().cuts > before;
    let gone = match site.cluster.state(index) {
        // It noticed first, and stopped.
        MemberState::Down => true,
        _ => kill_now(site, index)?.is_some(),
    };
    Ok(was_cut && gone)
}

async fn power_cut(site: &mut Site) -> anyhow::Result<Seen> {
    let index = site.victim().await?;
    let was_cut = cut_power(site, index)?;
    site.pause(10, 3000).await;
    site.disk(index)?.restore();
    site.restart(index)?;
    let seen = was_cut.then(|| "its disk forgot what was not synced, the process is gone".to_owned());
    Ok((vec![index], seen))
}

async fn power_cut_all(site: &mut Site) -> anyhow::Result<Seen> {
    site.disks.iter().for_each(barque_chaos::cutfs::CutFs::cut);
    let mut gone = 0;
    for index in 0..site.cluster.len() {
        gone += match site.cluster.state(index) {
            MemberState::Down => 1,
            _ => usize::from(kill_now(site, index)?.is_some()),
        };
    }
    let were_cut = site.disks.iter().all(barque_chaos::cutfs::CutFs::is_cut);
    site.pause(10, 1000).await;
    site.disks.iter().for_each(barque_chaos::cutfs::CutFs::restore);
    restart_all(site).await?;
    let seen = all_gone(site, gone).filter(|_| were_cut);
    Ok(((0..site.cluster.len()).collect(), seen))
}

async fn slow_disk(site: &mut Site) -> anyhow::Result<Seen> {
    let index = site.victim().await?;
    let delay = Duration::from_millis(site.dice.random_range(50..600));
    let before = site.disk(index)?.stats().slowed;
    site.disk(index)?.slow(delay);
    site.pause(2000, 6000).await;
    site.disk(index)?.slow(Duration::ZERO);
    let slowed = site.disk(index)?.stats().slowed - before;
    let seen = (slowed > 0).then(|| format!("{slowed} syncs took {delay:?} longer"));
    Ok((vec![index], seen))
}

/// A member whose disk cannot sync stops, and tells nobody that anything was written.
async fn failing_sync(site: &mut Site) -> anyhow::Result<Seen> {
    let index = site.victim().await?;
    let count = site.dice.random_range(1..5);
    let before = site.disk(index)?.stats().failed_fsyncs;
    site.disk(index)?.fail_fsync(count);
    let status = site
        .cluster
        .exited(index, TO_LEAVE)
        .await
        .context("a member whose disk does not sync goes on")?;
    ensure!(
        !status.success(),
        "a member whose disk does not sync left as if all were well"
    );
    let failed = site.disk(index)?.stats().failed_fsyncs - before;
    site.pause(10, 1500).await;
    site.restart(index)?;
    let seen = (failed > 0).then(|| format!("{failed} syncs failed, the member stopped"));
    Ok((vec![index], seen))
}

/// Forth past the end of any lease, and back no farther than the beginning of the members' certificates.
const JUMPS_S: [i64; 5] = [-60, -10, 60, 3600, 86_400];

async fn clock_jump(site: &mut Site) -> anyhow::Result<Seen> {
    let index = site.victim().await?;
    let jump = JUMPS_S[site.dice.random_range(0..JUMPS_S.len())];
    let before = site.cluster.wrong_times_told(index)?;
    site.cluster.set_clock(index, jump)?;
    site.pause(1000, 5000).await;
    site.cluster.set_clock(index, 0)?;
    let told = site.cluster.wrong_times_told(index)? - before;
    let seen = (told > 0).then(|| format!("wrong by {jump} s, which it was told {told} times"));
    Ok((vec![index], seen))
}

/// A member without room stops, or says so and goes on; when there is room again it is as the others.
async fn full_disk(site: &mut Site) -> anyhow::Result<Seen> {
    let index = site.victim().await?;
    let disk = site.disk(index)?;
    let before = disk.stats().refused;
    disk.fill(Some(0));
    let until = Instant::now() + Duration::from_millis(site.dice.random_range(3000..9000));
    while Instant::now() < until && site.cluster.state(index) == MemberState::Running {
        sleep(Duration::from_millis(50)).await;
    }
    let refused = site.disk(index)?.stats().refused - before;
    let stopped = site.cluster.state(index) == MemberState::Down;
    site.disk(index)?.fill(None);
    if stopped {
        let status = site.cluster.exited(index, TO_LEAVE).await?;
        ensure!(
            !status.success(),
            "a member whose disk is full left as if all were well"
        );
        site.restart(index)?;
    }
    let what = if stopped {
        "the member stopped"
    } else {
        "the member went on"
    };
    let seen = (refused > 0).then(|| format!("{refused} writes found no room, {what}"));
    Ok((vec![index], seen))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_member_that_leaves_in_order_may_leave() {
        let exited = |code: i32| ExitStatus::from_raw(code << 8);
        let by_signal = ExitStatus::from_raw;
        for program in [Program::Barque, Program::Etcd] {
            assert!(left_in_order(program, exited(0)));
            assert!(!left_in_order(program, exited(1)));
            assert!(!left_in_order(program, by_signal(libc::SIGABRT)));
        }
        assert!(left_in_order(Program::Etcd, by_signal(libc::SIGTERM)));
        assert!(!left_in_order(Program::Barque, by_signal(libc::SIGTERM)));
    }
}
