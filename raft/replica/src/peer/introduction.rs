//! A new life introduces itself to every other member, before it answers any of them: [`introduce`].
//!
//! Peers tell an older copy of a data directory by its start, but only those that have heard of a later one. Members that
//! have nothing to say to each other, such as two followers of one leader, would not hear of it. So each start calls all
//! the others: those that answer in time before this member votes or acknowledges anything, the rest by the calls that
//! keep lanes open ([`super::lanes`]), as soon as they can be reached. Any call does: its stamp says who is there, and
//! what is new is durable before the reply is made.

use std::time::Duration;

use barque_proto::peer as pb;
use futures_util::future::join_all;
use tokio::time::timeout;

use super::link::{Lane, Link, Links};
use crate::types::Membership;

/// Returns when each of the others has answered or refused, or `patience` is over. A refusal stops the member: see
/// [`super::Gate::stopping`].
pub async fn introduce(links: &Links, me: u64, membership: &Membership, patience: Duration) {
    let others = membership.nodes().filter(|(id, _)| **id != me);
    join_all(others.map(|(id, node)| {
        let link = links.to(*id, node);
        async move { timeout(patience, call(&link)).await }
    }))
    .await;
}

/// A term that nobody votes above: it asks for nothing.
async fn call(link: &Link) {
    let mut client = link.client(Lane::Control);
    let called = client
        .confirm(link.request(pb::ConfirmRequest { term: u64::MAX }))
        .await;
    drop(link.checked(called));
}
