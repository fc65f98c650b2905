//! Asking other members what they have applied: an entry's index, and the state after it in 8 bytes.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use barque_proto::peer as pb;
use barque_store::Mark;
use futures_util::{StreamExt, stream::FuturesUnordered};
use openraft::async_runtime::watch::WatchReceiver;
use tokio::time::timeout;

use crate::{
    peer::link::{Lane, Links},
    types::Raft,
};

/// For one member's answer; whoever asks several goes on with the others.
pub const ANSWER_WITHIN: Duration = Duration::from_secs(1);

/// What each member has, of those who answered.
pub type Marks = BTreeMap<u64, Mark>;

/// Those that vote, and all members but this one.
pub fn members(raft: &Raft, me: u64) -> (BTreeSet<u64>, Vec<u64>) {
    let metrics = raft.server_metrics();
    let metrics = metrics.borrow_watched();
    let membership = metrics.membership_config.membership();
    let others = membership.nodes().map(|(id, _)| *id).filter(|id| *id != me);
    (membership.voter_ids().collect(), others.collect())
}

/// The marks of the entry at `index` (`None`: of each member's newest) of those who answer.
pub async fn ask(links: &Links, members: &[u64], index: Option<u64>) -> Marks {
    let asking = members
        .iter()
        .map(|member| async move { Some((*member, ask_one(links, *member, index).await?)) });
    let mut answers: FuturesUnordered<_> = asking.collect();
    let mut marks = Marks::new();
    while let Some(answer) = answers.next().await {
        marks.extend(answer);
    }
    marks
}

async fn ask_one(links: &Links, member: u64, index: Option<u64>) -> Option<Mark> {
    let link = links.to_member(member)?;
    let mut client = link.client(Lane::Control);
    let call = client.compare_state(link.request(pb::CompareStateRequest { index }));
    let reply = timeout(ANSWER_WITHIN, call).await.ok()?;
    let mark = link.checked(reply).ok()?.mark.map(mark_from_pb)?;
    // Marks of different entries say nothing about each other.
    index.is_none_or(|index| index == mark.index).then_some(mark)
}

pub fn mark_to_pb(mark: Mark) -> pb::StateMark {
    pb::StateMark {
        index: mark.index,
        hash: mark.hash,
    }
}

pub fn mark_from_pb(mark: pb::StateMark) -> Mark {
    Mark {
        index: mark.index,
        hash: mark.hash,
    }
}
