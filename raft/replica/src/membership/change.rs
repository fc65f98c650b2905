//! Changes that somebody asked for: members added, promoted, removed, moved.

use std::collections::{BTreeMap, BTreeSet};

use barque_proto::peer as pb;
use openraft::{
    ChangeMembers, Instant as _,
    async_runtime::watch::WatchReceiver,
    errors::{ChangeMembershipError, ClientWriteError, RaftError},
    raft::Precondition,
};
use pb::member_change_request::Kind;
use tokio::time::sleep;

use super::{MemberError, Membership, RETRY_AFTER, to_vote, voters};
use crate::{
    MemberId, codec,
    peer::link::Lane,
    planted,
    types::{Membership as Members, Node, StoredMembership},
};

const ATTEMPTS: usize = 50;
/// Learners that wait for somebody to promote them, as etcd has it. Each costs the leader as much as a voter.
const LEARNERS_MAX: usize = 1;
/// A member that is to vote has caught up when it lacks no more entries than this: about what is under way to a
/// healthy follower under load.
const CAUGHT_UP_WITHIN: u64 = 1000;

fn quorum(voters: usize) -> usize {
    voters / 2 + 1
}

/// Of `voters` and `newcomers` that have not started yet, enough have started to be a quorum of all.
fn enough_started(membership: &Members, voters: &BTreeSet<u64>, newcomers: usize) -> bool {
    let started = |id: &&u64| membership.get_node(id).is_some_and(|node| !node.name.is_empty());
    let started = voters.iter().filter(started).count();
    // As in etcd: the second member of a cluster cannot have started before it is added.
    let is_second = (voters.len(), newcomers, started) == (1, 1, 1);
    is_second || started >= quorum(voters.len() + newcomers)
}

fn shares_url(membership: &Members, id: u64, urls: &[String]) -> bool {
    let shares =
        |(other, node): (&u64, &Node)| *other != id && node.peer_urls.iter().any(|url| urls.contains(url));
    membership.nodes().any(shares)
}

impl Membership {
    /// Sends the change to whoever leads.
    pub async fn request(&self, kind: Kind, id: u64, node: Option<Node>) -> Result<(), MemberError> {
        let request = pb::MemberChangeRequest {
            kind: kind.into(),
            id,
            node: node.as_ref().map(codec::node_to_pb),
        };
        let leader = self.leadership.borrow().leader.ok_or(MemberError::NoLeader)?;
        if leader.0 == self.me {
            return self.change_here(request).await;
        }
        let link = self.links.to_member(leader.0).ok_or(MemberError::NoLeader)?;
        let reply = link
            .client(Lane::Control)
            .member_change(link.request(request))
            .await;
        link.checked(reply)
            .map(drop)
            .map_err(|status| MemberError::from_status(&status))
    }

    /// As the leader; not to be dropped before its end: it would leave a change that nobody knows the outcome of.
    pub async fn change_here(&self, request: pb::MemberChangeRequest) -> Result<(), MemberError> {
        let _one = match planted("conflicting-membership-changes") {
            true => None,
            false => Some(self.changing.lock().await),
        };
        for _ in 0..ATTEMPTS {
            match self.attempt(request.clone()).await {
                // Computed anew: the other change may be what this one was computed from.
                Err(MemberError::InProgress) => sleep(RETRY_AFTER).await,
                done => return done,
            }
        }
        Err(MemberError::TimedOut)
    }

    async fn attempt(&self, request: pb::MemberChangeRequest) -> Result<(), MemberError> {
        self.wait_to_lead().await?;
        let id = request.id;
        let current = self.latest().await?;
        let kind = request.kind();
        let node = codec::node_from_pb(request.node.unwrap_or_default());
        match kind {
            Kind::AddLearner => self.add(&current, id, node).await,
            Kind::AddVoter => {
                let to_vote = true;
                self.add(&current, id, Node { to_vote, ..node }).await
            }
            Kind::Promote => self.promote(&current, id).await,
            Kind::Remove => self.remove(&current, id).await,
            Kind::Update => self.update(&current, id, node.peer_urls).await,
            Kind::None => Err(MemberError::NotFound),
        }
    }

    /// Until an entry of this leader's own term is committed, what it has inherited may still be undone.
    async fn wait_to_lead(&self) -> Result<(), MemberError> {
        let mut leadership = self.leadership.clone();
        let me = Some(MemberId(self.me));
        let decided = leadership.wait_for(|now| now.is_self || now.leader != me).await;
        match decided {
            Ok(now) if now.is_self => Ok(()),
            _ => Err(MemberError::NoLeader),
        }
    }

    async fn add(&self, current: &StoredMembership, id: u64, node: Node) -> Result<(), MemberError> {
        let members = current.membership();
        if members.get_node(&id).is_some() || shares_url(members, id, &node.peer_urls) {
            return Err(MemberError::Exists);
        }
        let (voters, to_vote) = (voters(members), to_vote(members));
        if node.to_vote {
            if !enough_started(members, &voters, to_vote.len() + 1) {
                return Err(MemberError::NotEnoughStarted);
            }
        } else if members.nodes().count() - voters.len() - to_vote.len() >= LEARNERS_MAX {
            return Err(MemberError::TooManyLearners);
        }
        if !voters.union(&to_vote).all(|id| self.is_active(*id)) {
            return Err(MemberError::Unhealthy);
        }
        self.change(
            current,
            ChangeMembers::AddNodes(BTreeMap::from([(id, node)])),
            true,
        )
        .await
    }

    async fn promote(&self, current: &StoredMembership, id: u64) -> Result<(), MemberError> {
        let node = current.get_node(&id).ok_or(MemberError::NotFound)?;
        let mut voters = voters(current.membership());
        if !voters.insert(id) {
            return Err(MemberError::NotLearner);
        }
        // Before a member may vote the log must say which incarnation of it that is.
        if node.incarnation == 0 || !self.in_sync(id) {
            return Err(MemberError::LearnerNotReady);
        }
        if !enough_started(current.membership(), &voters, 0) {
            return Err(MemberError::NotEnoughStarted);
        }
        self.make_voter(current, id).await
    }

    pub(super) async fn make_voter(&self, current: &StoredMembership, id: u64) -> Result<(), MemberError> {
        self.change(current, ChangeMembers::AddVoterIds([id].into()), true)
            .await
    }

    /// How much of the leader's log a member has, and how long that log is.
    fn progress(&self, id: u64) -> Option<(u64, u64)> {
        let metrics = self.raft.metrics();
        let metrics = metrics.borrow_watched();
        let matched = metrics
            .replication
            .as_ref()
            .and_then(|all| all.get(&id).copied().flatten())?;
        Some((matched.index, metrics.last_log_index.unwrap_or(0)))
    }

    /// As etcd has it: a learner with at least nine tenths of the leader's log may vote.
    fn in_sync(&self, id: u64) -> bool {
        let progress = self.progress(id);
        progress.is_some_and(|(matched, last)| matched as f64 >= last as f64 * 0.9)
    }

    /// What is promoted by nobody's command must be closer than that.
    pub(super) fn has_caught_up(&self, id: u64) -> bool {
        let progress = self.progress(id);
        progress.is_some_and(|(matched, last)| last.saturating_sub(matched) <= CAUGHT_UP_WITHIN)
    }

    /// This member, or one that has answered it within the last election timeout.
    pub(super) fn is_active(&self, id: u64) -> bool {
        if id == self.me {
            return true;
        }
        let metrics = self.raft.metrics();
        let metrics = metrics.borrow_watched();
        let acked = metrics
            .heartbeat
            .as_ref()
            .and_then(|all| all.get(&id).copied().flatten());
        acked.is_some_and(|acked| acked.elapsed() < self.election_timeout)
    }

    async fn remove(&self, current: &StoredMembership, id: u64) -> Result<(), MemberError> {
        if current.get_node(&id).is_none() {
            return Err(MemberError::NotFound);
        }
        let mut left = voters(current.membership());
        if !left.remove(&id) {
            return self
                .change(current, ChangeMembers::RemoveNodes([id].into()), false)
                .await;
        }
        if !enough_started(current.membership(), &left, 0) {
            return Err(MemberError::NotEnoughStarted);
        }
        // Whoever is down takes nothing from the quorum by leaving.
        let active = left.iter().filter(|id| self.is_active(**id)).count();
        if self.is_active(id) && active < quorum(left.len()) {
            return Err(MemberError::Unhealthy);
        }
        self.change(current, ChangeMembers::RemoveVoters([id].into()), false)
            .await
    }

    /// Other peer URLs. Every call says whom it means and every reply who answers, so a wrong URL reaches nobody.
    async fn update(
        &self,
        current: &StoredMembership,
        id: u64,
        peer_urls: Vec<String>,
    ) -> Result<(), MemberError> {
        let node = current.get_node(&id).ok_or(MemberError::NotFound)?.clone();
        if shares_url(current.membership(), id, &peer_urls) {
            return Err(MemberError::Exists);
        }
        self.set_node(current, id, Node { peer_urls, ..node }).await
    }

    pub(super) async fn set_node(
        &self,
        current: &StoredMembership,
        id: u64,
        node: Node,
    ) -> Result<(), MemberError> {
        if planted("conflicting-membership-changes") {
            sleep(RETRY_AFTER).await;
            let mut nodes: BTreeMap<u64, Node> =
                current.nodes().map(|(id, node)| (*id, node.clone())).collect();
            nodes.insert(id, node);
            return self
                .change(current, ChangeMembers::ReplaceAllNodes(nodes), true)
                .await;
        }
        self.change(
            current,
            ChangeMembers::SetNodes(BTreeMap::from([(id, node)])),
            true,
        )
        .await
    }

    /// Changes the membership that was looked at, or nothing: another leader may have changed it since.
    pub(super) async fn change(
        &self,
        current: &StoredMembership,
        change: ChangeMembers<u64, Node>,
        retain: bool,
    ) -> Result<(), MemberError> {
        let unchanged =
            (!planted("conflicting-membership-changes")).then(|| Precondition::LastMembershipLogId {
                last_membership_log_id: *current.log_id(),
            });
        match self.raft.change_membership_if(change, retain, unchanged).await {
            Ok(_) => Ok(()),
            // Another change, of an earlier leader perhaps, is not committed yet, or came first.
            Err(RaftError::APIError(
                ClientWriteError::ChangeMembershipError(
                    ChangeMembershipError::InProgress(_) | ChangeMembershipError::UncommittedLeaderLog(_),
                )
                | ClientWriteError::PreconditionFailed(_),
            )) => Err(MemberError::InProgress),
            Err(error) => {
                tracing::warn!(%error, "the membership was not changed");
                Err(MemberError::NoLeader)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{super::tests::membership, *};

    #[test]
    fn members_that_have_not_started_are_never_a_part_of_the_quorum() {
        let check = |started: &[u64], silent: &[u64], newcomers, expect| {
            let membership = membership(started, silent, &[], &[]);
            assert_eq!(
                enough_started(&membership, &voters(&membership), newcomers),
                expect,
                "{started:?} {silent:?} +{newcomers}"
            );
        };
        check(&[1], &[], 1, true);
        check(&[1], &[2], 0, false);
        check(&[1], &[2], 1, false);
        check(&[1, 2, 3], &[], 1, true);
        check(&[1, 2, 3], &[], 2, true);
        check(&[1, 2, 3], &[], 3, false);
        check(&[1, 2], &[3], 0, true);
        check(&[1, 2], &[3], 1, false);
    }

    #[test]
    fn the_last_voter_stays() {
        let membership = membership(&[1], &[], &[2], &[]);
        assert!(!enough_started(&membership, &BTreeSet::new(), 0));
    }

    #[test]
    fn a_url_belongs_to_one_member() {
        let membership = membership(&[1], &[], &[], &[]);
        let urls = ["http://p:1".to_string()];
        assert!(shares_url(&membership, 2, &urls));
        assert!(!shares_url(&membership, 1, &urls));
        assert!(!shares_url(&membership, 2, &["http://p:2".to_string()]));
    }
}
