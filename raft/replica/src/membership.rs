//! Who is a member: changes go through the leader, one at a time.
//!
//! A member's name, client URLs and incarnation are part of the membership too; each member publishes its own. Who is
//! added in order to vote begins as a learner: it raises the quorum only when it has caught up, and when the log
//! already says which incarnation of it may vote. Whether a change is safe now is decided by etcd's rules.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use barque_proto::peer as pb;
use openraft::{
    ChangeMembers, Instant as _,
    async_runtime::watch::WatchReceiver,
    errors::{ChangeMembershipError, ClientWriteError, RaftError},
};
use pb::member_change_request::Kind;
use tokio::{
    sync::{Mutex, watch},
    time::{sleep, timeout},
};
use tonic::Status;

use crate::{
    Leadership, Member, MemberId, codec, identity,
    peer::{
        Gate,
        link::{Lane, Links},
    },
    types::{Fatal, Membership as Members, Node, Raft},
};

const RETRY_AFTER: Duration = Duration::from_millis(200);
const ATTEMPTS: usize = 50;
/// Learners that wait for somebody to promote them, as etcd has it. Each costs the leader as much as a voter.
const LEARNERS_MAX: usize = 1;
/// A member that is to vote has caught up when it lacks no more entries than this: about what is under way to a
/// healthy follower under load.
const CAUGHT_UP_WITHIN: u64 = 1000;

/// Why the membership was not changed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MemberError {
    #[error("member not found")]
    NotFound,
    #[error("member ID already exist")]
    Exists,
    #[error("can only promote a learner member which is in sync with leader")]
    LearnerNotReady,
    #[error("can only promote a learner member")]
    NotLearner,
    #[error("too many learner members in cluster")]
    TooManyLearners,
    #[error("re-configuration failed due to not enough started members")]
    NotEnoughStarted,
    /// Members that vote do not answer the leader.
    #[error("unhealthy cluster")]
    Unhealthy,
    #[error("no leader")]
    NoLeader,
    #[error("request timed out")]
    TimedOut,
}

impl MemberError {
    pub fn to_status(&self) -> Status {
        match self {
            Self::NotFound => Status::not_found(self.to_string()),
            Self::Exists => Status::already_exists(self.to_string()),
            Self::NoLeader => Status::unavailable(self.to_string()),
            Self::TimedOut => Status::deadline_exceeded(self.to_string()),
            _ => Status::aborted(self.to_string()),
        }
    }

    fn from_status(status: &Status) -> Self {
        let told = [
            Self::LearnerNotReady,
            Self::NotLearner,
            Self::TooManyLearners,
            Self::NotEnoughStarted,
            Self::Unhealthy,
        ];
        match status.code() {
            tonic::Code::NotFound => Self::NotFound,
            tonic::Code::AlreadyExists => Self::Exists,
            tonic::Code::DeadlineExceeded => Self::TimedOut,
            _ => told
                .into_iter()
                .find(|error| error.to_string() == status.message())
                .unwrap_or(Self::NoLeader),
        }
    }
}

/// What a member tells of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Announcement {
    pub name: String,
    pub client_urls: Vec<String>,
    pub incarnation: u64,
}

impl Announcement {
    fn is_in(&self, node: &Node) -> bool {
        self.name == node.name && self.client_urls == node.client_urls && self.incarnation == node.incarnation
    }

    /// `None`: the ID belongs to another incarnation. That is told once and never changes.
    fn put_into(&self, node: &Node) -> Option<Node> {
        (node.incarnation == 0 || node.incarnation == self.incarnation).then(|| Node {
            name: self.name.clone(),
            client_urls: self.client_urls.clone(),
            incarnation: self.incarnation,
            ..node.clone()
        })
    }
}

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
    for (id, node) in membership.nodes() {
        if *id == me.member_id && node.incarnation != 0 && node.incarnation != me.incarnation {
            gate.stop
                .send_replace(Some(identity::already_bootstrapped(me.member_id)));
        }
        gate.known.bind(*id, node.incarnation);
    }
}

/// As Raft has it now; what it publishes lags behind a little.
pub async fn latest(raft: &Raft) -> Result<Members, Fatal> {
    raft.with_raft_state(|state| state.membership_state.effective().membership().clone())
        .await
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
    fn current(&self) -> Members {
        self.raft
            .server_metrics()
            .borrow_watched()
            .membership_config
            .membership()
            .clone()
    }

    async fn latest(&self) -> Result<Members, MemberError> {
        latest(&self.raft).await.map_err(|_| MemberError::NoLeader)
    }

    pub fn members(&self) -> Vec<Member> {
        members_of(&self.current())
    }

    /// Keeps links and what discovery answers in step with the membership.
    pub async fn follow(self, gate: Gate, known: impl Fn(&Members) + Send + 'static) {
        let mut server = self.raft.server_metrics();
        let mut before: BTreeSet<u64> = BTreeSet::new();
        loop {
            let (membership, committed) = {
                let metrics = server.borrow_watched();
                let committed = metrics.committed_membership_config.membership().clone();
                (metrics.membership_config.membership().clone(), committed)
            };
            // Only what is committed is final.
            let now: BTreeSet<u64> = committed.nodes().map(|(id, _)| *id).collect();
            gate.remove(before.difference(&now).copied());
            if before.contains(&self.me) && membership.get_node(&self.me).is_none() {
                tokio::spawn(self.clone().ask_for_fate(membership.clone()));
            }
            before = now;
            bind(&gate, &membership);
            self.links
                .set_members(membership.nodes().map(|(id, node)| (*id, node.clone())).collect());
            known(&membership);
            if server.changed().await.is_err() {
                return;
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

    /// Makes the membership hold what this member tells of itself, as soon as there is a leader.
    pub async fn publish(self, gate: Gate, mine: Announcement) {
        let mut server = self.raft.server_metrics();
        let mut leadership = self.leadership.clone();
        loop {
            // What is not committed may still be lost.
            let committed = server.borrow_watched().committed_membership_config.clone();
            if committed
                .membership()
                .get_node(&self.me)
                .is_some_and(|node| mine.is_in(node))
            {
                return;
            }
            let leader = leadership.borrow_and_update().leader.map(|leader| leader.0);
            let published = match leader {
                None => false,
                Some(leader) if leader == self.me => {
                    let published = self.publish_here(self.me, &mine).await;
                    published
                        .inspect_err(|status| gate.refused_by(self.me, status))
                        .is_ok()
                }
                Some(leader) => self.publish_at(leader, &mine).await,
            };
            let pause = if published {
                Duration::from_secs(5)
            } else {
                RETRY_AFTER
            };
            tokio::select! {
                changed = server.changed() => if changed.is_err() { return },
                () = sleep(pause) => {}
            }
        }
    }

    async fn publish_at(&self, leader: u64, mine: &Announcement) -> bool {
        let Some(link) = self.links.to_member(leader) else {
            return false;
        };
        // The incarnation is on every call.
        let request = pb::PublishRequest {
            name: mine.name.clone(),
            client_urls: mine.client_urls.clone(),
        };
        let mut client = link.client(Lane::Control);
        match timeout(Duration::from_secs(5), client.publish(link.request(request))).await {
            Ok(reply) => link.checked(reply).is_ok(),
            Err(_) => false,
        }
    }

    /// As the leader: what a member tells of itself. Its peer URLs stay what they are.
    pub async fn publish_here(&self, id: u64, told: &Announcement) -> Result<(), Status> {
        let _one = self.changing.lock().await;
        let current = self.latest().await.map_err(|error| error.to_status())?;
        let node = current
            .get_node(&id)
            .ok_or_else(|| MemberError::NotFound.to_status())?;
        if told.is_in(node) {
            return Ok(());
        }
        let node = told
            .put_into(node)
            .ok_or_else(|| Status::failed_precondition(identity::already_bootstrapped(id)))?;
        let changed = self.set_node(id, node).await;
        changed.map_err(|error| error.to_status())
    }

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

    pub async fn change_here(&self, request: pb::MemberChangeRequest) -> Result<(), MemberError> {
        let _one = self.changing.lock().await;
        if self.leadership.borrow().leader != Some(MemberId(self.me)) {
            return Err(MemberError::NoLeader);
        }
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

    async fn add(&self, current: &Members, id: u64, node: Node) -> Result<(), MemberError> {
        if current.get_node(&id).is_some() || shares_url(current, id, &node.peer_urls) {
            return Err(MemberError::Exists);
        }
        let (voters, to_vote) = (voters(current), to_vote(current));
        if node.to_vote {
            if !enough_started(current, &voters, to_vote.len() + 1) {
                return Err(MemberError::NotEnoughStarted);
            }
        } else if current.nodes().count() - voters.len() - to_vote.len() >= LEARNERS_MAX {
            return Err(MemberError::TooManyLearners);
        }
        if !voters.union(&to_vote).all(|id| self.is_active(*id)) {
            return Err(MemberError::Unhealthy);
        }
        self.change(ChangeMembers::AddNodes(BTreeMap::from([(id, node)])), true)
            .await
    }

    async fn promote(&self, current: &Members, id: u64) -> Result<(), MemberError> {
        let node = current.get_node(&id).ok_or(MemberError::NotFound)?;
        let mut voters = voters(current);
        if !voters.insert(id) {
            return Err(MemberError::NotLearner);
        }
        // Before a member may vote the log must say which incarnation of it that is.
        if node.incarnation == 0 || !self.in_sync(id) {
            return Err(MemberError::LearnerNotReady);
        }
        if !enough_started(current, &voters, 0) {
            return Err(MemberError::NotEnoughStarted);
        }
        self.make_voter(id).await
    }

    async fn make_voter(&self, id: u64) -> Result<(), MemberError> {
        self.change(ChangeMembers::AddVoterIds([id].into()), true).await
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
    fn has_caught_up(&self, id: u64) -> bool {
        let progress = self.progress(id);
        progress.is_some_and(|(matched, last)| last.saturating_sub(matched) <= CAUGHT_UP_WITHIN)
    }

    /// This member, or one that has answered it within the last election timeout.
    fn is_active(&self, id: u64) -> bool {
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

    async fn remove(&self, current: &Members, id: u64) -> Result<(), MemberError> {
        if current.get_node(&id).is_none() {
            return Err(MemberError::NotFound);
        }
        let mut left = voters(current);
        if !left.remove(&id) {
            return self.change(ChangeMembers::RemoveNodes([id].into()), false).await;
        }
        if !enough_started(current, &left, 0) {
            return Err(MemberError::NotEnoughStarted);
        }
        // Whoever is down takes nothing from the quorum by leaving.
        let active = left.iter().filter(|id| self.is_active(**id)).count();
        if self.is_active(id) && active < quorum(left.len()) {
            return Err(MemberError::Unhealthy);
        }
        self.change(ChangeMembers::RemoveVoters([id].into()), false).await
    }

    /// Other peer URLs. Every call says whom it means and every reply who answers, so a wrong URL reaches nobody.
    async fn update(&self, current: &Members, id: u64, peer_urls: Vec<String>) -> Result<(), MemberError> {
        let node = current.get_node(&id).ok_or(MemberError::NotFound)?.clone();
        if shares_url(current, id, &peer_urls) {
            return Err(MemberError::Exists);
        }
        if node.peer_urls == peer_urls {
            return Ok(());
        }
        self.set_node(id, Node { peer_urls, ..node }).await
    }

    async fn set_node(&self, id: u64, node: Node) -> Result<(), MemberError> {
        self.change(ChangeMembers::SetNodes(BTreeMap::from([(id, node)])), true)
            .await
    }

    /// As the leader: ends what an earlier leader left half done, and makes voters of those that were added to become
    /// ones, once they have caught up.
    pub async fn tend(self) {
        let mut server = self.raft.server_metrics();
        let mut leadership = self.leadership.clone();
        loop {
            let leads = leadership.borrow_and_update().is_self;
            let current = self.current();
            let has_work = leads && (is_joint(&current) || !to_vote(&current).is_empty());
            if has_work && let Err(error) = self.tend_once().await {
                tracing::debug!(%error, "the membership could not be tended");
            }
            tokio::select! {
                changed = server.changed() => if changed.is_err() { return },
                changed = leadership.changed() => if changed.is_err() { return },
                // Progress is told by no event of its own.
                () = sleep(RETRY_AFTER), if has_work => {}
            }
        }
    }

    async fn tend_once(&self) -> Result<(), MemberError> {
        let _one = self.changing.lock().await;
        let current = self.latest().await?;
        if is_joint(&current) {
            tracing::info!("finishing the change of membership that an earlier leader began");
            return self
                .change(ChangeMembers::AddVoterIds(BTreeSet::new()), false)
                .await;
        }
        for id in to_vote(&current) {
            let told = current.get_node(&id).is_some_and(|node| node.incarnation != 0);
            if told && self.is_active(id) && self.has_caught_up(id) {
                self.make_voter(id).await?;
                tracing::info!(member = format!("{id:x}"), "has caught up, and votes from now on");
            }
        }
        Ok(())
    }

    async fn change(&self, change: ChangeMembers<u64, Node>, retain: bool) -> Result<(), MemberError> {
        for _ in 0..ATTEMPTS {
            let changed = self.raft.change_membership(change.clone(), retain).await;
            match changed {
                Ok(_) => return Ok(()),
                // Another change, of an earlier leader perhaps, is not committed yet.
                Err(RaftError::APIError(ClientWriteError::ChangeMembershipError(
                    ChangeMembershipError::InProgress(_) | ChangeMembershipError::UncommittedLeaderLog(_),
                ))) => tokio::time::sleep(RETRY_AFTER).await,
                Err(error) => {
                    tracing::warn!(%error, "the membership was not changed");
                    return Err(MemberError::NoLeader);
                }
            }
        }
        Err(MemberError::TimedOut)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Voters with a name, those without one, learners, and learners that are to vote.
    fn membership(started: &[u64], silent: &[u64], learners: &[u64], to_vote: &[u64]) -> Members {
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

    #[test]
    fn a_url_belongs_to_one_member() {
        let membership = membership(&[1], &[], &[], &[]);
        let urls = ["http://p:1".to_string()];
        assert!(shares_url(&membership, 2, &urls));
        assert!(!shares_url(&membership, 1, &urls));
        assert!(!shares_url(&membership, 2, &["http://p:2".to_string()]));
    }

    #[test]
    fn an_incarnation_is_told_once() {
        let told = |incarnation| Announcement {
            name: "a".into(),
            client_urls: vec!["http://c:1".into()],
            incarnation,
        };
        let node = Node {
            peer_urls: vec!["http://p:1".into()],
            to_vote: true,
            ..Node::default()
        };
        let first = told(7).put_into(&node).unwrap();
        assert!(told(7).is_in(&first) && !told(7).is_in(&node));
        assert_eq!((first.peer_urls, first.to_vote), (node.peer_urls, node.to_vote));
        let first = told(7).put_into(&Node::default()).unwrap();
        assert_eq!(told(7).put_into(&first).unwrap(), first);
        assert_eq!(told(8).put_into(&first), None);
    }

    #[test]
    fn what_the_leader_refuses_is_told_as_it_is() {
        for error in [
            MemberError::NotFound,
            MemberError::Exists,
            MemberError::LearnerNotReady,
            MemberError::NotLearner,
            MemberError::TooManyLearners,
            MemberError::NotEnoughStarted,
            MemberError::Unhealthy,
            MemberError::NoLeader,
            MemberError::TimedOut,
        ] {
            assert_eq!(MemberError::from_status(&error.to_status()), error);
        }
    }
}
