//! A member that finds its own files damaged says so, hands over, and stops: those that are whole go on.
//!
//! That is not what CORRUPT is for. Where members differ nobody knows what else is wrong, and the cluster refuses to be
//! changed; a block that does not fit its checksum is wrong by itself, and a cluster that refused every write because
//! of one disk in three would be worse off than without that member. So its alarm names it and refuses nothing.
//!
//! It stops only when the others are a majority without it. Until then it answers what it can: alone, or with the last
//! majority, a member that misses one block is better than none.

use std::time::Duration;

use barque_proto::command::alarm::Kind;
use tokio::{
    sync::oneshot,
    time::{sleep, timeout},
};

use super::{
    Oversight,
    marks::{ask, members},
};
use crate::{MemberId, alarm};

/// For the alarm: where nothing can be applied here any more, its outcome never comes, though others have it.
const RAISE_WITHIN: Duration = Duration::from_secs(2);
/// For how long an error that ends this member is held back, so that it can say what is wrong, and hand over.
pub const GRACE: Duration = Duration::from_secs(6);
/// How often it is looked whether the others can do without this member.
const LOOK_EVERY: Duration = Duration::from_secs(10);

/// Waits for the first sign of damage, and then for the moment to go.
pub async fn run(oversight: Oversight) {
    let (tell, told) = oneshot::channel();
    // Who has stopped waiting needs not be told.
    oversight.store.on_damage(move |what| drop(tell.send(what)));
    let Ok(what) = told.await else { return };
    let member = format!("{:x}", oversight.me);
    tracing::error!(member, what, "data of this member is damaged");
    while !is_dispensable(&oversight).await {
        tracing::error!(
            member,
            what,
            "data of this member is damaged, and the others are no majority without it: it stays"
        );
        sleep(LOOK_EVERY).await;
    }
    oversight.condemned.stop(&what);
}

/// Whether it has been said what is wrong here, a majority answers without this member, and another one leads.
async fn is_dispensable(oversight: &Oversight) -> bool {
    let Oversight {
        me,
        store,
        raft,
        links,
        queue,
        ..
    } = oversight;
    let raising = timeout(RAISE_WITHIN, alarm::raise(store, queue, Kind::Damaged, *me));
    match raising.await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::warn!(%error, "the alarm that names this member could not be raised"),
        Err(_) => tracing::warn!("it is not known whether the alarm that names this member was raised"),
    }
    let (voters, others) = members(raft, *me);
    let answered = ask(links, &others, None).await;
    let voting = answered.keys().copied().filter(|id| voters.contains(id));
    let voting: Vec<u64> = voting.collect();
    if 2 * voting.len() <= voters.len() {
        return false;
    }
    if oversight.leadership.borrow().leader != Some(MemberId(*me)) {
        return true;
    }
    match voting.into_iter().max_by_key(|id| answered[id].index) {
        Some(to) => oversight.hand_over(to).await,
        None => false,
    }
}
