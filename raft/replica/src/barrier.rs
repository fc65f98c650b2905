//! Linearizable reads on any member: one batched ReadIndex round at a time.
//!
//! A round asks the leader for an index that covers everything acknowledged before the round began; whoever came
//! before that shares it. The leader takes its committed index and then has a quorum confirm that it has not voted
//! in a later term: no later leader can have acknowledged anything before the round began. Reads are harmless, so a failed round is tried again while there is time.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use barque_proto::peer as pb;
use barque_store::LogPosition;
use futures_util::{StreamExt, stream::FuturesUnordered};
use tokio::{
    sync::{mpsc, oneshot, watch},
    time::{Instant, timeout, timeout_at},
};

use crate::{
    Leadership, MemberId, ReadBarrierError,
    applied::Applied,
    metrics::{Counters, count},
    peer::link::{Lane, Links},
    planted,
    types::Raft,
};

const RETRY_AFTER: Duration = Duration::from_millis(20);
/// For one member's answer; the round itself goes on with the others.
const CONFIRM_TIMEOUT: Duration = Duration::from_secs(2);
/// Readers that may wait at once.
const WAITING: usize = 100_000;

/// The entry that must be applied where the read is answered.
type Answer = oneshot::Sender<Result<LogPosition, ReadBarrierError>>;

struct Ask {
    /// Only this member's own leadership counts.
    leader_only: bool,
    deadline: Instant,
    answer: Answer,
}

/// The side that readers hold.
#[derive(Clone)]
pub struct Barrier {
    tx: mpsc::Sender<Ask>,
    applied: Arc<Applied>,
    counters: Arc<Counters>,
    request_timeout: Duration,
}

impl Barrier {
    /// Returns once what is applied here covers everything acknowledged anywhere before the call.
    pub async fn wait(&self) -> Result<(), ReadBarrierError> {
        count(&self.counters.read_barriers);
        let deadline = Instant::now() + self.request_timeout;
        let at = self.ask(false, deadline).await?;
        self.applied_here(at, deadline).await
    }

    /// Returns once this member has applied that entry.
    async fn applied_here(&self, at: LogPosition, deadline: Instant) -> Result<(), ReadBarrierError> {
        if self.applied.has(at) {
            return Ok(());
        }
        match timeout_at(deadline, self.applied.wait_for(at)).await {
            Ok(true) => Ok(()),
            Ok(false) => Err(ReadBarrierError::Stopped),
            Err(_) => Err(ReadBarrierError::TimedOut),
        }
    }

    /// As [`Self::wait`], for this member as the leader alone. A follower may be told of a commit, and have applied
    /// it, before its leader has: what a client was answered there is known here only after this.
    pub async fn wait_as_leader(&self) -> Result<(), ReadBarrierError> {
        let deadline = Instant::now() + self.request_timeout;
        let at = self.ask(true, deadline).await?;
        self.applied_here(at, deadline).await
    }

    /// A read index confirmed by a quorum for this member as the leader.
    pub async fn leader_read_index(&self) -> Result<LogPosition, ReadBarrierError> {
        self.ask(true, Instant::now() + self.request_timeout).await
    }

    async fn ask(&self, leader_only: bool, deadline: Instant) -> Result<LogPosition, ReadBarrierError> {
        let (answer, index) = oneshot::channel();
        let asked = Ask {
            leader_only,
            deadline,
            answer,
        };
        self.tx.try_send(asked).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => ReadBarrierError::TimedOut,
            mpsc::error::TrySendError::Closed(_) => ReadBarrierError::Stopped,
        })?;
        // The round itself ends by the deadline; this is for a member that is stopping.
        let late = timeout_at(deadline + Duration::from_secs(1), index).await;
        late.map_err(|_| ReadBarrierError::TimedOut)?
            .unwrap_or(Err(ReadBarrierError::Stopped))
    }
}

/// The task's side.
pub struct BarrierTask {
    me: u64,
    raft: Raft,
    links: Arc<Links>,
    leadership: watch::Receiver<Leadership>,
    asks: mpsc::Receiver<Ask>,
    counters: Arc<Counters>,
}

impl BarrierTask {
    pub fn new(
        me: u64,
        raft: Raft,
        links: Arc<Links>,
        leadership: watch::Receiver<Leadership>,
        applied: Arc<Applied>,
        counters: Arc<Counters>,
        request_timeout: Duration,
    ) -> (Self, Barrier) {
        let (tx, asks) = mpsc::channel(WAITING);
        let barrier = Barrier {
            tx,
            applied,
            counters: counters.clone(),
            request_timeout,
        };
        (
            Self {
                me,
                raft,
                links,
                leadership,
                asks,
                counters,
            },
            barrier,
        )
    }

    pub async fn run(mut self) {
        while let Some(first) = self.asks.recv().await {
            let mut round = vec![first];
            while let Ok(next) = self.asks.try_recv() {
                round.push(next);
            }
            self.serve(round).await;
        }
    }

    async fn serve(&mut self, mut round: Vec<Ask>) {
        loop {
            if self.leadership.borrow().leader.map(|leader| leader.0) != Some(self.me) {
                // Another member that asked us is to find the leader itself: no chains of members asking.
                let (theirs, mine): (Vec<_>, Vec<_>) = round.into_iter().partition(|ask| ask.leader_only);
                answer(theirs, Err(ReadBarrierError::LeaderChanged));
                round = mine;
            }
            let now = Instant::now();
            let (over, open): (Vec<_>, Vec<_>) = round.into_iter().partition(|ask| ask.deadline <= now);
            answer(over, Err(self.late()));
            round = open;
            let Some(last) = round.iter().map(|ask| ask.deadline).max() else {
                return;
            };
            if planted("read-without-quorum") {
                round = self.answer_unconfirmed(round).await;
            }
            count(&self.counters.read_indexes);
            match timeout_at(last, self.read_index()).await {
                Ok(Ok(at)) => {
                    if planted("read-joins-round") {
                        round.extend(std::iter::from_fn(|| self.asks.try_recv().ok()));
                    }
                    return answer(round, Ok(at));
                }
                Ok(Err(())) => {}
                Err(_) => return answer(round, Err(self.late())),
            }
            if let Ok(Err(_)) = timeout(RETRY_AFTER, self.leadership.changed()).await {
                // Raft has ended: nobody leads here or is asked from here any more.
                return answer(round, Err(ReadBarrierError::Stopped));
            }
            // Whoever came meanwhile may share the next attempt.
            while let Ok(next) = self.asks.try_recv() {
                round.push(next);
            }
        }
    }

    /// What a leader must not do; reads of leases are left alone, and so are other members that ask.
    async fn answer_unconfirmed(&self, round: Vec<Ask>) -> Vec<Ask> {
        let Some(leading) = Leading::of(&self.raft, self.me).await else {
            return round;
        };
        let (others, reads): (Vec<_>, Vec<_>) = round.into_iter().partition(|ask| ask.leader_only);
        answer(reads, Ok(leading.committed()));
        others
    }

    fn late(&self) -> ReadBarrierError {
        match self.leadership.borrow().leader {
            Some(_) => ReadBarrierError::TimedOut,
            None => ReadBarrierError::NoLeader,
        }
    }

    async fn read_index(&mut self) -> Result<LogPosition, ()> {
        let leader = self.leadership.borrow_and_update().leader.ok_or(())?;
        match leader.0 == self.me {
            true => self.read_index_here().await,
            false => self.read_index_from(leader.0).await,
        }
    }

    async fn read_index_here(&self) -> Result<LogPosition, ()> {
        let leading = Leading::of(&self.raft, self.me).await.ok_or(())?;
        match self.is_confirmed(&leading).await {
            true => Ok(leading.committed()),
            false => Err(()),
        }
    }

    /// Asks every voter at once, and returns as soon as a quorum has answered, either way.
    ///
    /// The round is ours and not openraft's: its clock of acknowledgements takes a reply for one append as the
    /// reply to a later, empty one with the same last entry, and so may confirm a leader of long ago.
    async fn is_confirmed(&self, leading: &Leading) -> bool {
        let mut confirmed = BTreeSet::from([self.me]);
        let others: BTreeSet<u64> = leading.voters.iter().flatten().copied().collect();
        let mut answers: FuturesUnordered<_> = others
            .into_iter()
            .filter(|id| *id != self.me)
            .map(|id| self.confirm(id, leading.term))
            .collect();
        while !leading.is_quorum(&confirmed) {
            match answers.next().await {
                Some(Some(id)) => drop(confirmed.insert(id)),
                Some(None) => {}
                None => return false,
            }
        }
        true
    }

    async fn confirm(&self, member: u64, term: u64) -> Option<u64> {
        let link = self.links.to_member(member)?;
        let mut client = link.client(Lane::Control);
        let call = client.confirm(link.request(pb::ConfirmRequest { term }));
        let reply = timeout(CONFIRM_TIMEOUT, call).await.ok()?;
        let reply = link.checked(reply).ok()?;
        reply.confirmed.then_some(member)
    }

    async fn read_index_from(&self, leader: u64) -> Result<LogPosition, ()> {
        let link = self.links.to_member(leader).ok_or(())?;
        let mut client = link.client(Lane::Control);
        let call = client.read_index(link.request(pb::ReadIndexRequest {}));
        // A leader that hangs answers nothing; its successor is asked as soon as there is one.
        let mut leadership = self.leadership.clone();
        let succeeded = leadership.wait_for(|now| now.leader != Some(MemberId(leader)));
        let reply = tokio::select! {
            reply = timeout(Duration::from_secs(2), call) => reply.map_err(drop)?,
            _ = succeeded => return Err(()),
        };
        let reply = link.checked(reply).map_err(|status| {
            tracing::debug!(%status, "the leader gave no read index");
        })?;
        Ok(LogPosition {
            term: reply.term,
            index: reply.index,
        })
    }
}

/// What a leader knows at one instant: where its reads must reach, and who must confirm that it still leads.
struct Leading {
    term: u64,
    /// Of an entry of that term.
    committed_index: u64,
    /// One set of voters, or two while the membership changes: each must give a majority.
    voters: Vec<BTreeSet<u64>>,
}

impl Leading {
    /// `None` when this member does not lead, or has not committed an entry of its own term yet: until then it
    /// does not know what earlier leaders committed.
    async fn of(raft: &Raft, me: u64) -> Option<Self> {
        let read = raft.with_raft_state(move |state| {
            let vote = *state.vote_ref();
            let leads = vote.committed && vote.leader_id.voted_for == me;
            let committed = state
                .cluster_committed()
                .filter(|id| id.leader_id.term == vote.leader_id.term);
            let membership = state.membership_state.effective().membership();
            committed.filter(|_| leads).map(|committed| Self {
                term: vote.leader_id.term,
                committed_index: committed.index,
                voters: membership.get_joint_config().clone(),
            })
        });
        read.await.ok().flatten()
    }

    fn committed(&self) -> LogPosition {
        LogPosition {
            term: self.term,
            index: self.committed_index,
        }
    }

    fn is_quorum(&self, confirmed: &BTreeSet<u64>) -> bool {
        self.voters
            .iter()
            .all(|voters| voters.intersection(confirmed).count() * 2 > voters.len())
    }
}

fn answer(round: Vec<Ask>, result: Result<LogPosition, ReadBarrierError>) {
    for ask in round {
        drop(ask.answer.send(result.clone()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(voters: &[&[u64]], confirmed: &[u64], expect: bool) {
        let leading = Leading {
            term: 1,
            committed_index: 1,
            voters: voters.iter().map(|set| set.iter().copied().collect()).collect(),
        };
        let confirmed = confirmed.iter().copied().collect();
        assert_eq!(leading.is_quorum(&confirmed), expect, "{voters:?} {confirmed:?}");
    }

    #[test]
    fn a_quorum_is_a_majority_of_every_set() {
        check(&[&[1]], &[1], true);
        check(&[&[1, 2, 3]], &[1], false);
        check(&[&[1, 2, 3]], &[1, 3], true);
        check(&[&[1, 2, 3, 4]], &[1, 2], false);
        check(&[&[1, 2, 3], &[3, 4, 5]], &[1, 2], false);
        check(&[&[1, 2, 3], &[3, 4, 5]], &[1, 3, 4], true);
        // A leader that is not a voter itself counts for nothing.
        check(&[&[2, 3, 4]], &[1, 2], false);
    }
}
