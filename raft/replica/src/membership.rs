//! Who is a member: changes go through the leader, one at a time.
//!
//! A member's name and client URLs are part of the membership too; each member publishes its own.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use barque_proto::peer as pb;
use openraft::{
    ChangeMembers,
    async_runtime::watch::WatchReceiver,
    errors::{ChangeMembershipError, ClientWriteError, RaftError},
};
use pb::member_change_request::Kind;
use tokio::{
    sync::{Mutex, watch},
    time::timeout,
};
use tonic::Status;

use crate::{
    Leadership, Member, MemberId, codec,
    peer::{
        Gate,
        link::{Lane, Links},
    },
    types::{Membership as Members, Node, Raft},
};

const RETRY_AFTER: Duration = Duration::from_millis(200);
const ATTEMPTS: usize = 50;

/// Why the membership was not changed.
#[derive(Debug, Clone, thiserror::Error)]
pub enum MemberError {
    #[error("member not found")]
    NotFound,
    #[error("member ID already exist")]
    Exists,
    #[error("can only promote a learner member which is in sync with leader")]
    LearnerNotReady,
    #[error("can only promote a learner member")]
    NotLearner,
    #[error("re-configuration failed due to not enough started members")]
    NotEnoughStarted,
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
        match status.code() {
            tonic::Code::NotFound => Self::NotFound,
            tonic::Code::AlreadyExists => Self::Exists,
            tonic::Code::DeadlineExceeded => Self::TimedOut,
            _ => [Self::LearnerNotReady, Self::NotLearner, Self::NotEnoughStarted]
                .into_iter()
                .find(|error| error.to_string() == status.message())
                .unwrap_or(Self::NoLeader),
        }
    }
}

#[derive(Clone)]
pub struct Membership {
    pub me: u64,
    pub raft: Raft,
    pub links: Arc<Links>,
    pub leadership: watch::Receiver<Leadership>,
    /// Raft takes one change at a time; a change may be two entries.
    pub changing: Arc<Mutex<()>>,
}

fn members_of(membership: &Members) -> Vec<Member> {
    let voters: Vec<u64> = membership.voter_ids().collect();
    let member = |(id, node): (&u64, &Node)| Member {
        id: MemberId(*id),
        name: node.name.clone(),
        peer_urls: node.peer_urls.clone(),
        client_urls: node.client_urls.clone(),
        is_learner: !voters.contains(id),
    };
    membership.nodes().map(member).collect()
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

    /// Makes the membership hold this member's name and client URLs, as soon as there is a leader.
    pub async fn publish(self, name: String, client_urls: Vec<String>) {
        let mut server = self.raft.server_metrics();
        let mut leadership = self.leadership.clone();
        loop {
            let node = self.current().get_node(&self.me).cloned();
            if node.is_some_and(|node| node.name == name && node.client_urls == client_urls) {
                return;
            }
            let leader = leadership.borrow_and_update().leader.map(|leader| leader.0);
            let published = match leader {
                None => false,
                Some(leader) if leader == self.me => self
                    .publish_here(self.me, name.clone(), client_urls.clone())
                    .await
                    .is_ok(),
                Some(leader) => self.publish_at(leader, &name, &client_urls).await,
            };
            let pause = if published {
                Duration::from_secs(5)
            } else {
                RETRY_AFTER
            };
            tokio::select! {
                changed = server.changed() => if changed.is_err() { return },
                () = tokio::time::sleep(pause) => {}
            }
        }
    }

    async fn publish_at(&self, leader: u64, name: &str, client_urls: &[String]) -> bool {
        let Some(link) = self.links.to_member(leader) else {
            return false;
        };
        let request = pb::PublishRequest {
            name: name.into(),
            client_urls: client_urls.into(),
        };
        let mut client = link.client(Lane::Control);
        match timeout(Duration::from_secs(5), client.publish(link.request(request))).await {
            Ok(reply) => link.checked(reply).is_ok(),
            Err(_) => false,
        }
    }

    /// As the leader: a member's name and client URLs. Its peer URLs stay what they are.
    pub async fn publish_here(
        &self,
        id: u64,
        name: String,
        client_urls: Vec<String>,
    ) -> Result<(), MemberError> {
        let _one = self.changing.lock().await;
        let mut node = self
            .current()
            .get_node(&id)
            .cloned()
            .ok_or(MemberError::NotFound)?;
        if node.name == name && node.client_urls == client_urls {
            return Ok(());
        }
        node.name = name;
        node.client_urls = client_urls;
        self.change(ChangeMembers::SetNodes(BTreeMap::from([(id, node)])), true)
            .await
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
        let id = request.id;
        let current = self.current();
        match request.kind() {
            Kind::AddLearner => {
                if current.get_node(&id).is_some() {
                    return Err(MemberError::Exists);
                }
                let node = codec::node_from_pb(request.node.unwrap_or_default());
                self.change(ChangeMembers::AddNodes(BTreeMap::from([(id, node)])), true)
                    .await
            }
            Kind::Promote => self.promote(&current, id).await,
            Kind::Remove => self.remove(&current, id).await,
            Kind::None => Err(MemberError::NotFound),
        }
    }

    async fn promote(&self, current: &Members, id: u64) -> Result<(), MemberError> {
        if current.get_node(&id).is_none() {
            return Err(MemberError::NotFound);
        }
        if current.voter_ids().any(|voter| voter == id) {
            return Err(MemberError::NotLearner);
        }
        if !self.in_sync(id) {
            return Err(MemberError::LearnerNotReady);
        }
        self.change(ChangeMembers::AddVoterIds([id].into()), true).await
    }

    /// As etcd has it: a learner with at least nine tenths of the leader's log may vote.
    fn in_sync(&self, id: u64) -> bool {
        let metrics = self.raft.metrics();
        let metrics = metrics.borrow_watched();
        let matched = metrics
            .replication
            .as_ref()
            .and_then(|all| all.get(&id).copied().flatten());
        let last = metrics.last_log_index.unwrap_or(0);
        matched.is_some_and(|matched| matched.index as f64 >= last as f64 * 0.9)
    }

    async fn remove(&self, current: &Members, id: u64) -> Result<(), MemberError> {
        if current.get_node(&id).is_none() {
            return Err(MemberError::NotFound);
        }
        if !current.voter_ids().any(|voter| voter == id) {
            return self.change(ChangeMembers::RemoveNodes([id].into()), false).await;
        }
        if current.voter_ids().count() == 1 {
            return Err(MemberError::NotEnoughStarted);
        }
        self.change(ChangeMembers::RemoveVoters([id].into()), false).await
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
