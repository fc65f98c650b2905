//! Keeps leases: expires them while this member leads, and renews them wherever the leader is.
//!
//! Nothing is expired or renewed on the word of a leader that a quorum has not just confirmed.

use std::{sync::Arc, time::Duration};

use barque_proto::{
    command::{Command, LeaseCheckpoint, LeaseRevoke, command::Op, lease_checkpoint::Remaining},
    peer as pb,
};
use barque_store::{CommandError, LeaseId, Store};
use futures_util::{StreamExt, stream::FuturesUnordered};
use tokio::{
    sync::watch,
    time::{Instant, sleep_until, timeout_at},
};
use tonic::Status;

use crate::{
    KeepAlive, Leadership, ProposeError, ReadBarrierError,
    barrier::Barrier,
    leadership,
    lessor::{Lessor, Renewal},
    metrics::{Counters, count},
    peer::link::{Lane, Link, Links},
    planted,
    proposals::ProposalQueue,
};

/// Revocations proposed together.
const REVOKE_AT_ONCE: usize = 256;
const RETRY_AFTER: Duration = Duration::from_secs(1);
/// How often remaining TTLs are written into the state, and of which leases.
const CHECKPOINT_EVERY: Duration = Duration::from_secs(300);
const CHECKPOINTS_PER_COMMAND: usize = 1000;

#[derive(Clone)]
pub struct Keeper {
    pub me: u64,
    pub store: Store,
    pub lessor: Arc<Lessor>,
    pub barrier: Barrier,
    pub queue: ProposalQueue,
    pub links: Arc<Links>,
    pub leadership: watch::Receiver<Leadership>,
    pub counters: Arc<Counters>,
    pub request_timeout: Duration,
}

impl Keeper {
    // --- renewing ---

    pub async fn keep_alive(&self, id: LeaseId) -> Result<KeepAlive, ReadBarrierError> {
        let here = || self.keep_alive_here(id);
        let there = |link: Arc<Link>| async move {
            let request = link.request(pb::LeaseKeepAliveRequest { id: id.0 });
            let reply = link.checked(link.client(Lane::Control).lease_keep_alive(request).await)?;
            Ok(match reply.ttl_s {
                0 => KeepAlive::NotFound,
                ttl_s => KeepAlive::Renewed { ttl_s },
            })
        };
        self.at_the_leader(here, there).await
    }

    pub async fn time_to_live(&self, id: LeaseId) -> Result<Option<(i64, i64)>, ReadBarrierError> {
        let here = || self.time_to_live_here(id);
        let there = |link: Arc<Link>| async move {
            let request = link.request(pb::LeaseTimeToLiveRequest { id: id.0 });
            let reply = link.checked(link.client(Lane::Control).lease_time_to_live(request).await)?;
            Ok(reply.found.then_some((reply.granted_ttl_s, reply.remaining_s)))
        };
        self.at_the_leader(here, there).await
    }

    /// Renewing and looking are harmless to repeat: tried until the leader answers or the time is over.
    ///
    /// Plain closures: the compiler cannot yet tell that what an async one returns may move between threads.
    async fn at_the_leader<T, H, W>(
        &self,
        here: impl Fn() -> H,
        there: impl Fn(Arc<Link>) -> W,
    ) -> Result<T, ReadBarrierError>
    where
        H: Future<Output = Result<T, ReadBarrierError>>,
        W: Future<Output = Result<T, Status>>,
    {
        let deadline = Instant::now() + self.request_timeout;
        let mut leadership = self.leadership.clone();
        loop {
            let leader = leadership.borrow_and_update().leader.map(|leader| leader.0);
            let attempt = async {
                match leader {
                    None => None,
                    Some(leader) if leader == self.me => here().await.ok(),
                    Some(leader) => there(self.links.to_member(leader)?).await.ok(),
                }
            };
            match timeout_at(deadline, attempt).await {
                Ok(Some(answer)) => return Ok(answer),
                Ok(None) => {}
                Err(_) if leader.is_none() => return Err(ReadBarrierError::NoLeader),
                Err(_) => return Err(ReadBarrierError::TimedOut),
            }
            let pause = (Instant::now() + Duration::from_millis(20)).min(deadline);
            leadership::news(&mut leadership, pause).await;
            if Instant::now() >= deadline {
                let known = leadership.borrow().leader.is_some();
                return Err(if known {
                    ReadBarrierError::TimedOut
                } else {
                    ReadBarrierError::NoLeader
                });
            }
        }
    }

    /// Renews as the leader, once a quorum has confirmed that this member leads.
    pub async fn keep_alive_here(&self, id: LeaseId) -> Result<KeepAlive, ReadBarrierError> {
        let deadline = Instant::now() + self.request_timeout;
        loop {
            self.confirm().await?;
            let changed = self.lessor.changed.notified();
            match self.lessor.renew(id, Instant::now()) {
                Renewal::Renewed { ttl_s } => return Ok(KeepAlive::Renewed { ttl_s }),
                Renewal::NotFound => return Ok(KeepAlive::NotFound),
                Renewal::NotLeading => return Err(ReadBarrierError::LeaderChanged),
                Renewal::Checkpointed { ttl_s } => self.restore(id, ttl_s).await?,
                Renewal::Expiring => {
                    timeout_at(deadline, changed)
                        .await
                        .map_err(|_| ReadBarrierError::TimedOut)?;
                }
            }
        }
    }

    pub async fn time_to_live_here(&self, id: LeaseId) -> Result<Option<(i64, i64)>, ReadBarrierError> {
        self.confirm().await?;
        let found = self.lessor.time_to_live(id, Instant::now());
        found.map_err(|()| ReadBarrierError::LeaderChanged)
    }

    /// This member leads, its term's first entry is applied, a quorum has just said so, and what it
    /// acknowledged before is applied here.
    async fn confirm(&self) -> Result<(), ReadBarrierError> {
        if !self.leadership.borrow().is_self {
            return Err(ReadBarrierError::LeaderChanged);
        }
        self.barrier.wait_as_leader().await
    }

    /// Puts the full TTL back into the state before a renewal is answered: the next leader would otherwise start
    /// from the shorter one.
    async fn restore(&self, id: LeaseId, ttl_s: i64) -> Result<(), ReadBarrierError> {
        let leases = vec![Remaining {
            id: id.0,
            remaining_ttl_s: ttl_s,
        }];
        match self
            .propose_fenced(Op::LeaseCheckpoint(LeaseCheckpoint { leases }))
            .await
        {
            Ok(()) => {
                self.lessor.restored(id);
                Ok(())
            }
            Err(ProposeError::TimedOut) => Err(ReadBarrierError::TimedOut),
            Err(ProposeError::Stopped) => Err(ReadBarrierError::Stopped),
            Err(_) => Err(ReadBarrierError::LeaderChanged),
        }
    }

    async fn propose_fenced(&self, op: Op) -> Result<(), ProposeError> {
        let leadership = *self.leadership.borrow();
        if !leadership.is_self {
            return Err(ProposeError::LeaderChanged);
        }
        let command = Command {
            fence_term: match planted("expired-by-deposed-leader") {
                true => 0,
                false => leadership.term,
            },
            op: Some(op),
            ..Command::default()
        };
        self.queue.propose(command).await.map(drop)
    }

    // --- expiring ---

    /// Follows leadership: loads the leases when this member begins to lead, forgets them when it ends.
    pub async fn run(self) {
        let mut leadership = self.leadership.clone();
        let mut led = None;
        let mut checkpoint_at = Instant::now() + CHECKPOINT_EVERY;
        loop {
            let now = *leadership.borrow_and_update();
            let leads = now.is_self.then_some(now.term);
            if leads != led {
                led = leads;
                self.change(leads);
                checkpoint_at = Instant::now() + CHECKPOINT_EVERY;
            }
            let changed = self.lessor.changed.notified();
            let wake = self
                .lessor
                .next_deadline()
                .unwrap_or(checkpoint_at)
                .min(checkpoint_at);
            tokio::select! {
                changed = leadership.changed() => if changed.is_err() { return self.lessor.stop() },
                () = changed => {}
                () = sleep_until(wake), if led.is_some() => {
                    self.expire().await;
                    if Instant::now() >= checkpoint_at {
                        self.checkpoint().await;
                        checkpoint_at = Instant::now() + CHECKPOINT_EVERY;
                    }
                }
            }
        }
    }

    fn change(&self, leads: Option<u64>) {
        let Some(term) = leads else {
            return self.lessor.stop();
        };
        // What is applied after this is told to the lessor; what was before is in the store.
        self.lessor.begin(term);
        self.lessor.load(term, self.store.leases(), Instant::now());
    }

    async fn expire(&self) {
        if self
            .lessor
            .next_deadline()
            .is_none_or(|deadline| deadline > Instant::now())
        {
            return;
        }
        // A leader that cannot commit does not expire.
        let confirmed = planted("expired-by-deposed-leader") || self.confirm().await.is_ok();
        let expired = match confirmed {
            true => self.lessor.expired(Instant::now(), REVOKE_AT_ONCE),
            false => return tokio::time::sleep(Duration::from_millis(100)).await,
        };
        let mut revoking: FuturesUnordered<_> = expired.into_iter().map(|id| self.revoke(id)).collect();
        while revoking.next().await.is_some() {}
    }

    async fn revoke(&self, id: LeaseId) {
        match self
            .propose_fenced(Op::LeaseRevoke(LeaseRevoke { id: id.0 }))
            .await
        {
            Ok(()) => {
                count(&self.counters.leases_expired);
                self.lessor.forget(id);
            }
            Err(ProposeError::Refused(CommandError::LeaseNotFound)) => self.lessor.forget(id),
            Err(error) => {
                tracing::debug!(lease = id.0, %error, "an expired lease could not be revoked yet");
                let definitely = !matches!(error, ProposeError::TimedOut | ProposeError::Stopped);
                self.lessor
                    .not_revoked(id, Instant::now() + RETRY_AFTER, definitely);
            }
        }
    }

    async fn checkpoint(&self) {
        let remaining = self.lessor.to_checkpoint(Instant::now(), CHECKPOINT_EVERY);
        for chunk in remaining.chunks(CHECKPOINTS_PER_COMMAND) {
            let leases = chunk
                .iter()
                .map(|(id, left)| Remaining {
                    id: id.0,
                    remaining_ttl_s: *left,
                })
                .collect();
            if let Err(error) = self
                .propose_fenced(Op::LeaseCheckpoint(LeaseCheckpoint { leases }))
                .await
            {
                // They were marked as checkpointed, so renewals write the full TTL: right in either case.
                return tracing::debug!(%error, "remaining TTLs could not be written");
            }
        }
    }
}
