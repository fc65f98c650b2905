//! Who is a member: changes go through the leader, one at a time.
//!
//! A member's name, client URLs and incarnation are part of the membership too; each member publishes its own. Who is
//! added in order to vote begins as a learner: it raises the quorum only when it has caught up, and when the log
//! already says which incarnation of it may vote. Whether a change is safe now is decided by etcd's rules.

mod change;
mod error;
mod publish;
mod tend;

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use barque_proto::peer as pb;
use openraft::async_runtime::watch::WatchReceiver;
use tokio::sync::{Mutex, watch};

pub use error::MemberError;
pub use publish::Announcement;

use crate::{
    Leadership, Member, MemberId,
    blocking::block,
    peer::{
        Gate,
        link::{Lane, Links},
    },
    planted,
    tasks::Tasks,
    types::{Fatal, Membership as Members, Node, Raft, StoredMembership},
};

const RETRY_AFTER: Duration = Duration::from_millis(200);

#[derive(Clone)]
pub struct Membership {
    pub me: u64,
    pub raft: Raft,
    pub links: Arc<Links>,
    pub leadership: watch::Receiver<Leadership>,
    pub election_timeout: Duration,
    /// Raft takes one change at a time; a change may be two entries.
    pub changing: Arc<Mutex<()>>,
}

/// From here on each member's ID belongs to the data directory that the membership names.
pub fn bind(gate: &Gate, membership: &Members) {
    let me = gate.me;
    gate.known.enlist(membership.nodes().map(|(id, _)| *id));
    for (id, node) in membership.nodes() {
        let is_another = *id == me.member_id && node.incarnation != 0 && node.incarnation != me.incarnation;
        if is_another && !planted("wiped-voter-votes") {
            gate.stop_as_wiped();
        }
        gate.known.bind(*id, node.incarnation);
    }
}

/// As Raft has it now; what it publishes lags behind a little.
pub async fn latest(raft: &Raft) -> Result<StoredMembership, Fatal> {
    raft.with_raft_state(|state| state.membership_state.effective().as_ref().clone())
        .await
}

/// Who has left is remembered, durably: only what is committed is final. Returns the members that are.
fn remember(gate: &Gate, committed: &StoredMembership, effective: &Members) -> Result<BTreeSet<u64>, String> {
    let ids = |membership: &Members| membership.nodes().map(|(id, _)| *id).collect();
    let now: BTreeSet<u64> = ids(committed.membership());
    if let Some(at) = committed.log_id() {
        let noted = block(|| gate.known.note_membership(at.index, &now, &ids(effective)));
        noted.map_err(|error| format!("the membership cannot be remembered: {error}"))?;
    }
    Ok(now)
}

fn members_of(membership: &Members) -> Vec<Member> {
    // While a change goes on, these are the voters of before it: a newcomer strengthens nothing until it is over.
    let voters = membership.get_joint_config().first().cloned().unwrap_or_default();
    let member = |(id, node): (&u64, &Node)| Member {
        id: MemberId(*id),
        name: node.name.clone(),
        peer_urls: node.peer_urls.clone(),
        client_urls: node.client_urls.clone(),
        is_learner: !voters.contains(id),
    };
    membership.nodes().map(member).collect()
}

fn voters(membership: &Members) -> BTreeSet<u64> {
    membership.voter_ids().collect()
}

/// Learners that become voters by themselves.
fn to_vote(membership: &Members) -> BTreeSet<u64> {
    let voters = voters(membership);
    let waits = |(id, node): &(&u64, &Node)| node.to_vote && !voters.contains(id);
    membership.nodes().filter(waits).map(|(id, _)| *id).collect()
}

/// A leader that ended in the middle of a change left two sets of voters.
fn is_joint(membership: &Members) -> bool {
    membership.get_joint_config().len() > 1
}

impl Membership {
    fn current(&self) -> Members {
        self.raft
            .server_metrics()
            .borrow_watched()
            .membership_config
            .membership()
            .clone()
    }

    async fn latest(&self) -> Result<StoredMembership, MemberError> {
        latest(&self.raft).await.map_err(|_| MemberError::NoLeader)
    }

    pub fn members(&self) -> Vec<Member> {
        members_of(&self.current())
    }

    /// Keeps links, what is remembered of peers and what discovery answers in step with the membership. An error: what
    /// must be remembered cannot be written.
    pub async fn follow(
        self,
        gate: Gate,
        tasks: Tasks,
        known: impl Fn(&Members) + Send + 'static,
    ) -> Result<(), String> {
        let mut server = self.raft.server_metrics();
        let mut before: BTreeSet<u64> = BTreeSet::new();
        let mut asks = false;
        loop {
            let (membership, committed) = {
                let metrics = server.borrow_watched();
                let committed = metrics.committed_membership_config.clone();
                (metrics.membership_config.membership().clone(), committed)
            };
            let now = remember(&gate, &committed, &membership)?;
            let is_out = before.contains(&self.me) && membership.get_node(&self.me).is_none();
            let asked = std::mem::replace(&mut asks, is_out);
            if is_out && !asked {
                tasks.spawn(
                    "that asks whether this member is removed",
                    self.clone().ask_for_fate(membership.clone()),
                );
            }
            before = now;
            bind(&gate, &membership);
            self.links
                .set_members(membership.nodes().map(|(id, node)| (*id, node.clone())).collect());
            known(&membership);
            if server.changed().await.is_err() {
                return Ok(());
            }
        }
    }

    /// The log says that this member is removed. Whether that stands only the others can tell: they refuse it then,
    /// and the refusal stops it.
    async fn ask_for_fate(self, members: Members) {
        while self.current().get_node(&self.me).is_none() {
            for (id, node) in members.nodes() {
                let link = self.links.to(*id, node);
                let asked = link
                    .client(Lane::Control)
                    .read_index(link.request(pb::ReadIndexRequest {}))
                    .await;
                drop(link.checked(asked));
            }
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    /// Voters with a name, those without one, learners, and learners that are to vote.
    pub fn membership(started: &[u64], silent: &[u64], learners: &[u64], to_vote: &[u64]) -> Members {
        let node = |name: &str, to_vote| Node {
            name: name.into(),
            peer_urls: vec!["http://p:1".into()],
            to_vote,
            ..Node::default()
        };
        let mut nodes = BTreeMap::new();
        nodes.extend(started.iter().map(|id| (*id, node("started", false))));
        nodes.extend(silent.iter().map(|id| (*id, node("", false))));
        nodes.extend(learners.iter().map(|id| (*id, node("", false))));
        nodes.extend(to_vote.iter().map(|id| (*id, node("", true))));
        let voters = started.iter().chain(silent).copied().collect();
        Members::new(vec![voters], nodes).unwrap()
    }

    #[test]
    fn only_those_added_to_vote_are_waited_for() {
        assert_eq!(to_vote(&membership(&[1], &[], &[2], &[3])), BTreeSet::from([3]));
        assert!(to_vote(&membership(&[1], &[], &[2], &[])).is_empty());
        // It stays marked when it votes.
        let node = Node {
            to_vote: true,
            ..Node::default()
        };
        let votes = Members::new(vec![[1].into()], BTreeMap::from([(1, node)])).unwrap();
        assert!(to_vote(&votes).is_empty());
    }

    #[test]
    fn who_is_becoming_a_voter_is_listed_as_a_learner() {
        let nodes = BTreeMap::from([(1, Node::default()), (2, Node::default()), (3, Node::default())]);
        let joint = Members::new(vec![[1, 2].into(), [2, 3].into()], nodes).unwrap();
        let learners: Vec<bool> = members_of(&joint)
            .iter()
            .map(|member| member.is_learner)
            .collect();
        assert_eq!(learners, [false, false, true]);
    }
}
