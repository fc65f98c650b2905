//! The handle through which everything above writes, reads and watches.

use std::{sync::Arc, time::Duration};

use barque_proto::{command::Command, peer::member_change_request::Kind};
use barque_store::{LeaseId, Response, Revision, Store};
use openraft::{Instant as _, async_runtime::watch::WatchReceiver};
use parking_lot::Mutex;
use tokio::{
    runtime::{Handle, Runtime},
    sync::watch,
    task::AbortHandle,
    time::timeout,
};

use crate::{
    KeepAlive, MemberError, ProposeError, ReadBarrierError, ReplicaConfig, ReplicaMetrics, StartError,
    identity,
    lifecycle::Phase,
    quota::Quota,
    start::{self, Started},
    types::Node,
};

/// Derived from the peer URLs and the cluster token at bootstrap, as etcd does; shown in hexadecimal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct MemberId(pub u64);

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    pub id: MemberId,
    pub name: String,
    pub peer_urls: Vec<String>,
    pub client_urls: Vec<String>,
    pub is_learner: bool,
}

/// Who leads, as this member knows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Leadership {
    pub term: u64,
    pub leader: Option<MemberId>,
    /// This member leads, and its term's first entry is applied.
    pub is_self: bool,
}

/// How far a peer's log is, as the leader sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PeerLag {
    pub member_id: MemberId,
    /// The last entry known to be in its log.
    pub matched_index: u64,
    /// Entries of the leader's log that it does not have yet.
    pub behind: u64,
}

#[derive(Debug, Clone)]
pub struct ReplicaStatus {
    pub cluster_id: u64,
    pub member_id: MemberId,
    pub leader: Option<MemberId>,
    pub term: u64,
    /// Last entry in the log, last applied, last purged.
    pub last_log_index: u64,
    pub applied_index: u64,
    pub purged_index: u64,
    pub is_learner: bool,
    /// Empty on a member that does not lead.
    pub peers: Vec<PeerLag>,
}

/// A running replica; cheap to clone. When the last handle is dropped the member stops as if it had crashed: call
/// [`Self::shutdown`] before.
#[derive(Clone)]
pub struct Replica {
    inner: Arc<Inner>,
}

struct Inner {
    member: Started,
    /// `None`: there is no limit.
    quota: Option<Arc<Quota>>,
    handle: Handle,
    election_timeout: Duration,
    request_timeout: Duration,
    threads: Threads,
}

/// Raft, its peers and its timers have threads of their own, so that no request can starve a voter. They are given up,
/// not waited for, when this is dropped: that may be inside of another runtime, or while the member still starts.
#[derive(Default)]
struct Threads(Mutex<Option<Runtime>>);

impl Threads {
    fn take(&self) -> Option<Runtime> {
        self.0.lock().take()
    }
}

impl Drop for Threads {
    fn drop(&mut self) {
        if let Some(runtime) = self.take() {
            runtime.shutdown_background();
        }
    }
}

/// Ends a task with the future that waits for it.
struct AbortOnDrop(AbortHandle);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

const RAFT_THREADS: usize = 2;

impl Replica {
    /// Opens the data directory, joins or bootstraps, and serves peers. Returns before the member has caught up:
    /// see [`Self::wait_ready`]. The very first start of a founder returns only when every other member of the
    /// initial cluster has been reached once; dropping the future gives up.
    pub async fn start(config: ReplicaConfig) -> Result<Replica, StartError> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(RAFT_THREADS)
            .thread_name("raft")
            .enable_all()
            .build()?;
        let handle = runtime.handle().clone();
        let threads = Threads(Mutex::new(Some(runtime)));
        let replica = Self::start_on(handle, config).await?;
        *replica.inner.threads.0.lock() = threads.take();
        Ok(replica)
    }

    /// As [`Self::start`], on a runtime that several members may share. For simulation.
    #[doc(hidden)]
    pub async fn start_on(handle: Handle, config: ReplicaConfig) -> Result<Replica, StartError> {
        let (election_timeout, request_timeout) = (config.election_timeout, config.request_timeout);
        let quota_bytes = config.store.quota_backend_bytes;
        let starting = handle.spawn(start::start(config));
        let _given_up = AbortOnDrop(starting.abort_handle());
        let member = starting
            .await
            .map_err(|panicked| StartError::Raft(panicked.to_string()))??;
        let (me, store, queue) = (member.me.member_id, member.store.clone(), member.queue.clone());
        let quota = Quota::new(quota_bytes, me, store, queue);
        if let Some(quota) = &quota {
            let following = quota.clone().follow(member.phase.subscribe());
            let _on_it = handle.enter();
            member.tasks.spawn("of the quota", following);
        }
        Ok(Replica {
            inner: Arc::new(Inner {
                member,
                quota,
                handle,
                election_timeout,
                request_timeout,
                threads: Threads::default(),
            }),
        })
    }

    fn member(&self) -> &Started {
        &self.inner.member
    }

    /// A long-lived task beside Raft: if it panics, the member fails, since nobody would do its work any more.
    pub fn guarded(
        &self,
        name: &'static str,
        task: impl Future<Output = ()> + Send + 'static,
    ) -> impl Future<Output = ()> + Send + 'static {
        let unfailing = async move {
            task.await;
            Ok(())
        };
        self.member().tasks.guarded(name, unfailing)
    }

    /// From the moment that a member must stop it answers nobody any more, however long the process takes to end.
    fn must_stop(&self) -> bool {
        self.member().tasks.has_failed()
    }

    /// Whether the local state covers everything that this member had served before it was stopped. Until then
    /// it must not be read without a [`Self::read_barrier`].
    pub fn is_ready(&self) -> bool {
        *self.member().ready.borrow()
    }

    pub async fn wait_ready(&self) {
        let mut ready = self.member().ready.clone();
        if ready.wait_for(|ready| *ready).await.is_err() {
            // The member stopped before: it never gets ready.
            std::future::pending::<()>().await;
        }
    }

    /// Proposes one command and waits until **this member** has applied it: a read of the local store right
    /// after sees it. What makes the database grow is refused when there is no room for it.
    pub async fn propose(&self, command: Command) -> Result<Response, ProposeError> {
        if self.must_stop() {
            return Err(ProposeError::Stopped);
        }
        if let Some(quota) = &self.inner.quota {
            quota.admit(&command).await?;
        }
        self.member().queue.propose(command).await
    }

    /// How many bytes may be in use; `None`: any number.
    pub fn quota_backend_bytes(&self) -> Option<u64> {
        self.inner.quota.as_ref().map(|quota| quota.limit())
    }

    /// Returns once the local store covers everything acknowledged anywhere before the call.
    pub async fn read_barrier(&self) -> Result<(), ReadBarrierError> {
        if self.must_stop() {
            return Err(ReadBarrierError::Stopped);
        }
        self.member().running.barrier.wait().await
    }

    pub fn store(&self) -> &Store {
        &self.member().store
    }

    pub fn status(&self) -> ReplicaStatus {
        let member = self.member();
        let metrics = member.running.raft.metrics();
        let metrics = metrics.borrow_watched();
        let me = MemberId(member.me.member_id);
        let last_log_index = metrics.last_log_index.unwrap_or(0);
        let membership = metrics.membership_config.membership();
        let peers = metrics
            .replication
            .iter()
            .flatten()
            .filter(|(id, _)| **id != me.0)
            .map(|(id, matched)| {
                let matched_index = matched.map_or(0, |matched| matched.index);
                let behind = last_log_index.saturating_sub(matched_index);
                PeerLag {
                    member_id: MemberId(*id),
                    matched_index,
                    behind,
                }
            });
        ReplicaStatus {
            cluster_id: member.me.cluster_id,
            member_id: me,
            leader: member.leadership.borrow().leader,
            term: metrics.current_term,
            last_log_index,
            applied_index: member.applied.index(),
            purged_index: metrics.purged.map_or(0, |purged| purged.index),
            is_learner: membership.learner_ids().any(|id| id == me.0),
            peers: peers.collect(),
        }
    }

    pub fn metrics(&self) -> ReplicaMetrics {
        let member = self.member();
        let leadership = *member.leadership.borrow();
        let committed = {
            let metrics = member.running.raft.metrics();
            let metrics = metrics.borrow_watched();
            metrics.local_committed.map_or(0, |committed| committed.index)
        };
        ReplicaMetrics {
            proposals_pending: member.queue.pending() as u64,
            has_leader: leadership.leader.is_some(),
            is_leader: leadership.leader == Some(MemberId(member.me.member_id)),
            apply_lag: committed.saturating_sub(member.applied.index()),
            wal: member.wal.stats(),
            peer_port: member.entrance.figures(),
            ..member.counters.read()
        }
    }

    pub fn members(&self) -> Vec<Member> {
        self.member().running.membership.members()
    }

    pub fn leadership(&self) -> watch::Receiver<Leadership> {
        self.member().leadership.clone()
    }

    /// Renews a lease at the leader, wherever that is.
    pub async fn keep_alive(&self, lease: LeaseId) -> Result<KeepAlive, ReadBarrierError> {
        self.member().running.keeper.keep_alive(lease).await
    }

    /// Granted TTL and remaining seconds by the leader's clock; `None` when there is no such lease.
    pub async fn time_to_live(&self, lease: LeaseId) -> Result<Option<(i64, i64)>, ReadBarrierError> {
        self.member().running.keeper.time_to_live(lease).await
    }

    /// Returns once this member has physically removed everything that compaction to `revision` made
    /// unreachable (`physical` of etcd's Compact); at once when that is long done.
    pub async fn physically_compacted(&self, revision: Revision) -> Result<(), ReadBarrierError> {
        let mut compacted = self.member().compacted.clone();
        compacted
            .wait_for(|done| *done >= revision)
            .await
            .map(drop)
            .map_err(|_| ReadBarrierError::Stopped)
    }

    /// Adds a member that does not vote yet, and returns its ID. It is to be started with an empty data directory
    /// and `--initial-cluster-state existing`.
    pub async fn add_learner(&self, peer_urls: Vec<String>) -> Result<MemberId, MemberError> {
        self.add_member(Kind::AddLearner, peer_urls).await
    }

    /// As [`Self::add_learner`], and the leader makes it a voter by itself as soon as it has caught up.
    pub async fn add_voter(&self, peer_urls: Vec<String>) -> Result<MemberId, MemberError> {
        self.add_member(Kind::AddVoter, peer_urls).await
    }

    async fn add_member(&self, kind: Kind, peer_urls: Vec<String>) -> Result<MemberId, MemberError> {
        // As in etcd the ID depends on the moment too: one that was removed never comes back.
        let salt = format!("{:x}", rand::random::<u64>());
        let id = identity::member_id(&peer_urls, &salt);
        let node = Node {
            peer_urls,
            ..Node::default()
        };
        self.change_members(kind, id, Some(node))
            .await
            .map(|()| MemberId(id))
    }

    /// From now on the others look for the member at these URLs.
    pub async fn update_member(&self, member: MemberId, peer_urls: Vec<String>) -> Result<(), MemberError> {
        let node = Node {
            peer_urls,
            ..Node::default()
        };
        self.change_members(Kind::Update, member.0, Some(node)).await
    }

    /// Makes a learner that has caught up a voter.
    pub async fn promote(&self, member: MemberId) -> Result<(), MemberError> {
        self.change_members(Kind::Promote, member.0, None).await
    }

    pub async fn remove_member(&self, member: MemberId) -> Result<(), MemberError> {
        self.change_members(Kind::Remove, member.0, None).await
    }

    async fn change_members(&self, kind: Kind, id: u64, node: Option<Node>) -> Result<(), MemberError> {
        let membership = self.member().running.membership.clone();
        let changing = self
            .inner
            .handle
            .spawn(async move { membership.request(kind, id, node).await });
        match timeout(2 * self.inner.request_timeout, changing).await {
            Ok(Ok(changed)) => changed,
            Ok(Err(_)) | Err(_) => Err(MemberError::TimedOut),
        }
    }

    /// Hands leadership to `to`, or to the most up-to-date voter; returns when `to`, or any other, leads. Only the
    /// leader can: elsewhere it is [`ReadBarrierError::LeaderChanged`].
    pub async fn transfer_leadership(&self, to: Option<MemberId>) -> Result<(), ReadBarrierError> {
        let member = self.member();
        let me = member.me.member_id;
        let mut leadership = member.leadership.clone();
        let before = *leadership.borrow_and_update();
        if before.leader != Some(MemberId(me)) {
            return Err(ReadBarrierError::LeaderChanged);
        }
        if to == Some(MemberId(me)) {
            return Ok(());
        }
        let target = to
            .map(|to| to.0)
            .or_else(|| self.most_up_to_date())
            .ok_or(ReadBarrierError::NoLeader)?;
        let raft = member.running.raft.clone();
        let asked = self
            .inner
            .handle
            .spawn(async move { raft.trigger().transfer_leader(target).await });
        asked
            .await
            .ok()
            .and_then(Result::ok)
            .ok_or(ReadBarrierError::Stopped)?;
        let moved = |now: &Leadership| {
            now.term > before.term && now.leader.is_some_and(|leader| to.is_none_or(|to| to == leader))
        };
        match timeout(2 * self.inner.election_timeout, leadership.wait_for(moved)).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(_)) => Err(ReadBarrierError::Stopped),
            Err(_) => Err(ReadBarrierError::TimedOut),
        }
    }

    fn most_up_to_date(&self) -> Option<u64> {
        let member = self.member();
        let metrics = member.running.raft.metrics();
        let metrics = metrics.borrow_watched();
        let voters = metrics.membership_config.membership().voter_ids();
        let lately = |id: &u64| {
            let acked = metrics
                .heartbeat
                .as_ref()
                .and_then(|all| all.get(id).copied().flatten());
            acked.is_some_and(|acked| acked.elapsed() < self.inner.election_timeout)
        };
        let others = voters.filter(|id| *id != member.me.member_id && lately(id));
        let matched = |id: &u64| {
            metrics
                .replication
                .as_ref()
                .and_then(|all| all.get(id).copied().flatten())
        };
        others
            .filter_map(|id| Some((matched(&id)?.index, id)))
            .max()
            .map(|(_, id)| id)
    }

    /// Hands leadership over if it is held here, stops, flushes and closes.
    pub async fn shutdown(&self) {
        let member = self.member();
        member.phase.send_replace(Phase::Draining);
        self.hand_over().await;
        member.phase.send_replace(Phase::Stopping);
        let (raft, state_machine) = (member.running.raft.clone(), member.state_machine.clone());
        let closing = self.inner.handle.spawn(async move {
            drop(raft.shutdown().await);
            state_machine.flush()
        });
        match closing.await {
            Ok(Ok(_)) => {}
            Ok(Err(error)) => tracing::error!(%error, "the state could not be flushed"),
            Err(error) => tracing::error!(%error, "the member did not stop cleanly"),
        }
        member.waiters.close();
        let wal = member.wal.clone();
        let Some(runtime) = self.inner.threads.take() else {
            return wal.close();
        };
        let closed = tokio::task::spawn_blocking(move || {
            wal.close();
            runtime.shutdown_timeout(Duration::from_secs(2));
        });
        drop(closed.await);
    }

    /// Gives leadership away and waits, for a bounded time, until what was proposed here is settled: the next
    /// leader's first entry tells of everything before it.
    async fn hand_over(&self) {
        let member = self.member();
        let before = *member.leadership.borrow();
        if before.leader != Some(MemberId(member.me.member_id)) {
            return;
        }
        if let Err(error) = self.transfer_leadership(None).await {
            return tracing::info!(%error, "leadership was not handed over");
        }
        let mut term = member.applied.term();
        drop(
            timeout(
                self.inner.election_timeout,
                term.wait_for(|term| *term > before.term),
            )
            .await,
        );
    }

    /// Ends every task at once, as a crash would: nothing is handed over, flushed or closed. For tests.
    #[doc(hidden)]
    pub async fn crash(self) {
        let runtime = self.inner.threads.take();
        drop(self);
        let ended = tokio::task::spawn_blocking(move || {
            if let Some(runtime) = runtime {
                runtime.shutdown_timeout(Duration::from_secs(5));
            }
        });
        drop(ended.await);
    }

    /// Resolves with the reason when the member must stop (a storage error, a broken invariant).
    pub async fn failed(&self) -> String {
        let mut failed = self.member().failed.clone();
        let reason = failed
            .wait_for(Option::is_some)
            .await
            .ok()
            .and_then(|reason| reason.clone());
        match reason {
            Some(reason) => reason,
            // Stopped in order: it never fails.
            None => std::future::pending().await,
        }
    }
}
