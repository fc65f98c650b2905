//! What operators do to a cluster: hand leadership over, change its members, replace one that lost its data.

use barque_checks::history::{ChangeKind, MemberListing, MembershipChange, WipedRecord};
use barque_replica::{Member, MemberError, MemberId, Replica};
use rand::Rng;

use crate::{
    faults::{Seen, pause, start, victim},
    host::PEER_PORT,
    interpose::now_us,
    member::peer_url,
    network::HostId,
    world::World,
};

/// Hosts that there are not: members there are listed and never start.
const NOWHERE: HostId = 900;

pub async fn transfer(world: &mut World) -> Seen {
    let Some(at) = world.leader() else {
        return (Vec::new(), None);
    };
    let moved = world.members[at]
        .ask(|replica| async move { replica.transfer_leadership(None).await })
        .await;
    (
        vec![world.members[at].id],
        matches!(moved, Some(Ok(()))).then(|| "another leads".into()),
    )
}

/// One operator adds a learner while another gives a member a second URL; then both are undone. What was acknowledged
/// stands in every listing until it is.
pub async fn change_members(world: &mut World) -> Seen {
    let at = victim(world);
    let id = world.members[at].id;
    let Some(member) = world.members[at]
        .replica()
        .map(|replica| replica.status().member_id)
    else {
        return (vec![id], None);
    };
    world.newcomers += 1;
    let nowhere = vec![format!("http://m{}:{PEER_PORT}", NOWHERE + world.newcomers)];
    let usual = vec![peer_url(id)];
    let both = vec![peer_url(id), format!("http://m{NOWHERE}:{PEER_PORT}")];
    // Who begins has looked at the membership, and perhaps changed it, when the other begins to look.
    let update_first = world.rng.random_bool(0.5);
    let (adding, updating) = (add(world, nowhere, false), update(world, member, both));
    let (added, updated) = match update_first {
        true => {
            let (updated, added) = tokio::join!(updating, adding);
            (added, updated)
        }
        false => tokio::join!(adding, updating),
    };
    remove_newcomers(world).await;
    // However it ended, the URL that works is the only one again.
    for _ in 0..20 {
        if update(world, member, usual.clone()).await {
            break;
        }
        pause(world, 100, 500).await;
    }
    list(world).await;
    let seen = (added.is_some() && updated).then(|| "a learner added, a URL changed".to_owned());
    (vec![id], seen)
}

/// Asks the leader, and notes what came of it unless it refused.
async fn change<T: Send + 'static, F>(
    world: &World,
    record: MembershipChange,
    request: impl FnOnce(Replica) -> F,
    id_of: impl FnOnce(&T) -> u64,
) -> Option<T>
where
    F: Future<Output = Result<T, MemberError>> + Send + 'static,
{
    let leader = world.leader()?;
    let call = now_us();
    let answer = world.members[leader].ask(request).await;
    let refused = |error: &MemberError| !matches!(error, MemberError::NoLeader | MemberError::TimedOut);
    if matches!(&answer, Some(Err(error)) if refused(error)) {
        return None;
    }
    let done = answer.and_then(Result::ok);
    let mut record = MembershipChange { call, ..record };
    if let Some(done) = &done {
        (record.ret, record.id) = (Some(now_us()), id_of(done));
    }
    world.recorder.history(|history| history.changes.push(record));
    done
}

async fn add(world: &World, urls: Vec<String>, to_vote: bool) -> Option<MemberId> {
    let record = MembershipChange::new(0, ChangeKind::Added, urls.clone());
    let request = move |replica: Replica| async move {
        match to_vote {
            true => replica.add_voter(urls).await,
            false => replica.add_learner(urls).await,
        }
    };
    change(world, record, request, |id: &MemberId| id.0).await
}

async fn update(world: &World, member: MemberId, urls: Vec<String>) -> bool {
    let record = MembershipChange::new(member.0, ChangeKind::Updated, urls.clone());
    let request = move |replica: Replica| async move { replica.update_member(member, urls).await };
    change(world, record, request, |()| member.0).await.is_some()
}

async fn remove(world: &mut World, member: MemberId) -> bool {
    for _ in 0..20 {
        let record = MembershipChange::new(member.0, ChangeKind::Removed, Vec::new());
        let request = move |replica: Replica| async move {
            match replica.remove_member(member).await {
                // An earlier try did it.
                Err(MemberError::NotFound) => Ok(()),
                done => done,
            }
        };
        if change(world, record, request, |()| member.0).await.is_some() {
            return true;
        }
        pause(world, 100, 500).await;
    }
    false
}

/// Removes whoever was added and never started, acknowledged or not.
async fn remove_newcomers(world: &mut World) {
    let known: Vec<String> = world.ids().into_iter().map(peer_url).collect();
    let is_known = |member: &Member| member.peer_urls.iter().any(|url| known.contains(url));
    for member in list(world).await.unwrap_or_default() {
        if !is_known(&member) {
            remove(world, member.id).await;
        }
    }
}

/// As a linearizable MemberList.
async fn list(world: &mut World) -> Option<Vec<Member>> {
    let leader = world.leader()?;
    let call = now_us();
    let listed = world.members[leader]
        .ask(|replica| async move {
            replica.read_barrier().await.ok()?;
            Some(replica.members())
        })
        .await??;
    let of = |member: &Member| (member.id.0, member.peer_urls.clone());
    let listing = MemberListing {
        call,
        ret: now_us(),
        members: listed.iter().map(of).collect(),
    };
    world.recorder.history(|history| history.listings.push(listing));
    Some(listed)
}

/// A member is removed while it lives, and may not have been told when it is started again; then it comes back as an
/// empty one.
pub async fn leave(world: &mut World) -> Seen {
    let whole = world.all_serve().await.unwrap_or(false);
    let at = victim(world);
    let id = world.members[at].id;
    let old = world.members[at]
        .replica()
        .map(|replica| replica.status().member_id);
    let (true, Some(old)) = (whole, old) else {
        return (vec![id], None);
    };
    let stops = world.members[at].stops().0;
    if world.rng.random_bool(0.3) {
        isolate(world, at);
    }
    let removed = remove(world, old).await;
    pause(world, 100, 3000).await;
    world.network.heal();
    if world.rng.random_bool(0.5) {
        let power = world.rng.random_bool(0.5);
        world.members[at].crash(power);
        start(world, at);
    }
    pause(world, 100, 3000).await;
    let was_told = world.members[at].stops().0 > stops;
    world.members[at].crash(true);
    let replaced = replace(world, at, old).await;
    let seen = match was_told {
        true => "it stopped, and came back as another",
        false => "it came back as another",
    };
    (vec![id], (removed && replaced).then(|| seen.to_owned()))
}

/// A member's data is lost, and it is started again as if nothing had happened; then it is replaced.
pub async fn wipe(world: &mut World) -> Seen {
    // Two members lost at a time are more than three can bear.
    let whole = world.all_serve().await.unwrap_or(false);
    let at = victim(world);
    let id = world.members[at].id;
    let old = world.members[at]
        .replica()
        .map(|replica| replica.status().member_id);
    let (true, Some(old)) = (whole, old) else {
        return (vec![id], None);
    };
    let ambush = ambush(world, at);
    if let Some(behind) = ambush.map(|(behind, _)| behind) {
        isolate(world, behind);
        pause(world, 300, 1500).await;
    }
    let seed = world.rng.random();
    world.members[at].crash(true);
    world.members[at].wipe(seed);
    if let Some((_, ahead)) = ambush {
        world.network.heal();
        isolate(world, ahead);
    }
    let from = now_us();
    start(world, at);
    pause(world, 3000, 8000).await;
    // It may still be asking those that are down; serve it must not.
    let served = world.members[at].serves();
    let record = WipedRecord {
        member: id,
        from,
        until: now_us(),
        served,
        has_older_copy: false,
    };
    world.recorder.history(|history| history.wiped.push(record));
    world.network.heal();
    world.members[at].crash(true);
    let replaced = replace(world, at, old).await;
    let seen = match served {
        true => "it came back as if nothing had been lost",
        false => "it did not come back",
    };
    (vec![id], replaced.then(|| seen.to_owned()))
}

/// Of the two others, one that will not have what was written last, and one that alone will have it: with the wiped
/// one's vote, the first could lead and lose it.
pub fn ambush(world: &mut World, wiped: usize) -> Option<(usize, usize)> {
    if world.members.len() != 3 || world.rng.random_bool(0.5) {
        return None;
    }
    let (a, b) = ((wiped + 1) % 3, (wiped + 2) % 3);
    Some(if world.leader() == Some(a) { (b, a) } else { (a, b) })
}

/// From the other members; clients still reach it.
pub fn isolate(world: &World, at: usize) {
    let id = world.members[at].id;
    for other in world.ids().into_iter().filter(|other| *other != id) {
        world.network.set(id, other, |link| link.blocked = true);
        world.network.set(other, id, |link| link.blocked = true);
    }
}

/// As an operator would: remove it, add it, start it anew; again and again while there is no leader to do it.
pub async fn replace(world: &mut World, at: usize, old: MemberId) -> bool {
    let seed = world.rng.random();
    for _ in 0..30 {
        pause(world, 200, 1000).await;
        if !exchange(world, old, peer_url(world.members[at].id)).await {
            continue;
        }
        world.members[at].replace(seed);
        start(world, at);
        return votes(world, old, at).await;
    }
    false
}

/// Takes the old member off the list and puts the new one on it, as far as an earlier try has not.
async fn exchange(world: &mut World, old: MemberId, url: String) -> bool {
    let Some(listed) = list(world).await else {
        return false;
    };
    if listed.iter().any(|member| member.id == old) && !remove(world, old).await {
        return false;
    }
    let is_new = |member: &Member| member.id != old && member.peer_urls.contains(&url);
    listed.iter().any(is_new) || add(world, vec![url], true).await.is_some()
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
