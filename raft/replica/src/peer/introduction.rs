//! A new life introduces itself to every other member, before it answers any of them: [`introduce`].
//!
//! Peers tell an older copy of a data directory by its start, but only those that have heard of a later one. Members that
//! have nothing to say to each other, such as two followers of one leader, would not hear of it. So each start calls all
//! the others: those that answer in time before this member votes or acknowledges anything, the rest as soon as they
//! can be reached. Any call does: its stamp says who is there, and what is new is durable before the reply is made.

use std::{sync::Arc, time::Duration};

use barque_proto::peer as pb;
use futures_util::future::join_all;
use tokio::time::{sleep, timeout};

use super::link::{Lane, Link, Links};
use crate::types::Membership;

/// Between attempts to reach a member that does not answer.
const FIRST_PAUSE: Duration = Duration::from_millis(200);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// Returns when each of the others has answered or refused, or `patience` is over; then the rest of them.
pub async fn introduce(
    links: &Links,
    me: u64,
    membership: &Membership,
    patience: Duration,
) -> Vec<Arc<Link>> {
    let others = membership.nodes().filter(|(id, _)| **id != me);
    let links: Vec<Arc<Link>> = others.map(|(id, node)| links.to(*id, node)).collect();
    let heard = join_all(links.iter().map(|link| hears(link, patience))).await;
    let missing = links.into_iter().zip(heard).filter(|(_, heard)| !heard);
    missing.map(|(link, _)| link).collect()
}

/// Goes on until all of them have heard of this life.
pub async fn introduce_to_the_rest(links: Vec<Arc<Link>>, attempt: Duration) {
    join_all(links.iter().map(|link| async move {
        let mut pause = FIRST_PAUSE;
        while !hears(link, attempt).await {
            sleep(pause).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }))
    .await;
}

/// Whether the member has noted this life. Any answer of a member that runs says so, a refusal too.
async fn hears(link: &Link, patience: Duration) -> bool {
    let mut client = link.client(Lane::Control);
    let call = client.confirm(link.request(pb::ConfirmRequest { term: u64::MAX }));
    match timeout(patience, call).await {
        Ok(reply) => link.checked(reply).is_ok(),
        Err(_) => false,
    }
}
