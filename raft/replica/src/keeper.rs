//! Keeps leases: expires them while this member leads, and renews them wherever the leader is.
//!
//! Nothing is expired or renewed on the word of a leader that a quorum has not just confirmed.

use std::{sync::Arc, time::Duration};

use barque_proto::{
    command::{Command, LeaseCheckpoint, LeaseRevoke, alarm::Kind, command::Op, lease_checkpoint::Remaining},
    peer as pb,
};
use barque_store::{CommandError, LeaseId, Response, Store};
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
    /// How often remaining TTLs are written into the state, and of which leases: those that live longer.
    pub checkpoint_every: Duration,
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
            let term = self.confirm().await?;
            let changed = self.lessor.changed.notified();
            match self.lessor.renew(id, Instant::now()) {
                Renewal::Renewed { ttl_s } => return Ok(KeepAlive::Renewed { ttl_s }),
                Renewal::NotFound => return Ok(KeepAlive::NotFound),
                Renewal::NotLeading => return Err(ReadBarrierError::LeaderChanged),
                Renewal::Checkpointed { ttl_s, mark } => {
                    if !planted("checkpoint-not-restored") {
                        self.restore(term, id, ttl_s).await?;
                    }
                    self.lessor.restored(id, mark);
                }
                Renewal::Expiring | Renewal::Checkpointing => {
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
    /// acknowledged before is applied here. Returns the term, which the lessor's leases are of.
    async fn confirm(&self) -> Result<u64, ReadBarrierError> {
        self.led_term()?;
        self.barrier.wait_as_leader().await?;
        // Leadership may have been lost and won again meanwhile, and the task that loads leases not have heard of it.
        let term = self.led_term()?;
        match self.lessor.is_of(term) {
            true => Ok(term),
            false => Err(ReadBarrierError::LeaderChanged),
        }
    }

    fn led_term(&self) -> Result<u64, ReadBarrierError> {
        let leadership = *self.leadership.borrow();
        match leadership.is_self {
            true => Ok(leadership.term),
            false => Err(ReadBarrierError::LeaderChanged),
        }
    }

    /// Puts the full TTL back into the state before a renewal is answered: the next leader would otherwise start
    /// from the shorter one.
    async fn restore(&self, term: u64, id: LeaseId, ttl_s: i64) -> Result<(), ReadBarrierError> {
        let leases = vec![Remaining {
            id: id.0,
            remaining_ttl_s: ttl_s,
        }];
        match self
            .propose_fenced(term, Op::LeaseCheckpoint(LeaseCheckpoint { leases }))
            .await
        {
            Ok(_) => Ok(()),
            Err(ProposeError::TimedOut) => Err(ReadBarrierError::TimedOut),
            Err(ProposeError::Stopped) => Err(ReadBarrierError::Stopped),
            Err(_) => Err(ReadBarrierError::LeaderChanged),
        }
    }

    /// For what was decided as the leader of `term`.
    async fn propose_fenced(&self, term: u64, op: Op) -> Result<Response, ProposeError> {
        let leadership = *self.leadership.borrow();
        let command = Command {
            fence_term: fence(leadership, term).ok_or(ProposeError::LeaderChanged)?,
            op: Some(op),
            ..Command::default()
        };
        self.queue.propose(command).await
    }

    // --- expiring ---

    /// Follows leadership: loads the leases when this member begins to lead, forgets them when it ends.
    /// An error: the leases cannot be read, and nobody would end them.
    pub async fn run(self) -> Result<(), String> {
        let mut leadership = self.leadership.clone();
        let mut led = None;
        let mut checkpoint_at = Instant::now() + self.checkpoint_every;
        loop {
            let now = *leadership.borrow_and_update();
            let leads = now.is_self.then_some(now.term);
            if leads != led {
                led = leads;
                self.change(leads)?;
                checkpoint_at = Instant::now() + self.checkpoint_every;
            }
            let changed = self.lessor.changed.notified();
            let wake = self
                .lessor
                .next_deadline()
                .unwrap_or(checkpoint_at)
                .min(checkpoint_at);
            let due = async {
                sleep_until(wake).await;
                led
            };
            tokio::select! {
                changed = leadership.changed() => if changed.is_err() {
                    self.lessor.stop();
                    return Ok(());
                },
                () = changed => {}
                Some(term) = due, if led.is_some() => {
                    self.expire(term).await;
                    if Instant::now() >= checkpoint_at {
                        self.checkpoint(term).await;
                        checkpoint_at = Instant::now() + self.checkpoint_every;
                    }
                }
            }
        }
    }

    fn change(&self, leads: Option<u64>) -> Result<(), String> {
        let Some(term) = leads else {
            self.lessor.stop();
            return Ok(());
        };
        // What is applied after this is told to the lessor; what was before is in the store.
        self.lessor.begin(term);
        let leases = self.store.leases().map_err(|error| error.to_string())?;
        self.lessor.load(term, leases, Instant::now());
        Ok(())
    }

    async fn expire(&self, term: u64) {
        if self
            .lessor
            .next_deadline()
            .is_none_or(|deadline| deadline > Instant::now())
        {
            return;
        }
        // Refused by every member, however often it is proposed, until the alarm is disarmed.
        if self.store.has_alarm(Kind::Corrupt) {
            return tokio::time::sleep(RETRY_AFTER).await;
        }
        // A leader that cannot commit does not expire, nor does one go by the deadlines of an earlier term.
        let confirmed = planted("expired-by-deposed-leader")
            || self.confirm().await.is_ok_and(|confirmed| confirmed == term);
        let expired = match confirmed {
            true => self.lessor.expired(Instant::now(), REVOKE_AT_ONCE),
            false => return tokio::time::sleep(Duration::from_millis(100)).await,
        };
        let mut revoking: FuturesUnordered<_> = expired.into_iter().map(|id| self.revoke(term, id)).collect();
        while revoking.next().await.is_some() {}
    }

    async fn revoke(&self, term: u64, id: LeaseId) {
        let revoked = loop {
            let command = Op::LeaseRevoke(LeaseRevoke { id: id.0 });
            match self.propose_fenced(term, command).await {
                // It had more keys than one command deletes.
                Ok(Response::LeaseRevoke { complete: false, .. }) => continue,
                other => break other,
            }
        };
        match revoked {
            // The lessor was told when it was applied.
            Ok(_) => count(&self.counters.leases_expired),
            Err(ProposeError::Refused(CommandError::LeaseNotFound)) => self.lessor.forget(id),
            Err(error) => {
                tracing::debug!(lease = id.0, %error, "an expired lease could not be revoked yet");
                let definitely = !matches!(error, ProposeError::TimedOut | ProposeError::Stopped);
                self.lessor
                    .not_revoked(id, Instant::now() + RETRY_AFTER, definitely);
            }
        }
    }

    async fn checkpoint(&self, term: u64) {
        let worth = self.lessor.to_checkpoint(Instant::now(), self.checkpoint_every);
        for chunk in worth.chunks(CHECKPOINTS_PER_COMMAND) {
            // Taken only now: while the chunks before this one were written, some were renewed.
            let remaining = self
                .lessor
                .begin_checkpoint(chunk, Instant::now(), self.checkpoint_every);
            if remaining.is_empty() {
                continue;
            }
            let leases = remaining
                .into_iter()
                .map(|(id, left_s)| Remaining {
                    id: id.0,
                    remaining_ttl_s: left_s,
                })
                .collect();
            let written = self
                .propose_fenced(term, Op::LeaseCheckpoint(LeaseCheckpoint { leases }))
                .await;
            // Also when it is not known what came of it: it was sent, so that what is proposed in this term from now
            // on comes after it.
            self.lessor.end_checkpoint();
            if let Err(error) = written {
                return tracing::debug!(%error, "remaining TTLs could not be written");
            }
        }
    }
}

/// What a command is fenced with that was decided as the leader of `term`; none when that is over, even if this
/// member leads again.
fn fence(leadership: Leadership, term: u64) -> Option<u64> {
    if planted("expired-by-deposed-leader") {
        return leadership.is_self.then_some(0);
    }
    (leadership.is_self && leadership.term == term).then_some(term)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_decided_in_a_term_is_proposed_in_no_other() {
        let led = |term, is_self| Leadership {
            term,
            is_self,
            ..Leadership::default()
        };
        assert_eq!(fence(led(5, true), 5), Some(5));
        assert_eq!(fence(led(5, false), 5), None);
        assert_eq!(fence(led(7, true), 5), None, "lost and won again");
    }
}
