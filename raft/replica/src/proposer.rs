//! Proposals on their way into the log: queued, batched, and sent once to whoever leads.
//!
//! One task drains whatever is queued into one `CommandBatch`, one log entry. A batch is meant for one term and is
//! appended in that term or not at all; only when the leader has said that it did not append it, or it never left
//! this member, is it sent again. Its outcome comes from [`Waiters`].

use std::{
    collections::VecDeque,
    sync::Arc,
    time::{Duration, Instant},
};

use barque_proto::{command::CommandBatch, peer as pb};
use bytes::Bytes;
use openraft::errors::ClientWriteError;
use prost::Message;
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore, mpsc, watch},
    time::timeout,
};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;

use crate::{
    Leadership, ProposeError, leadership,
    lifecycle::Phase,
    metrics::Counters,
    peer::link::{Lane, Link, Links},
    planted,
    proposals::{BATCH_OVERHEAD, Limits, ProposalQueue},
    types::{Callback, Commands, Raft},
    waiters::{Proposal, Waiters},
};

const MAX_COMMANDS: usize = 1024;
/// Batches sent and not yet applied here. What arrives meanwhile goes together into the next.
const IN_FLIGHT: usize = 4;
const FORWARD_BUFFER: usize = 2 * IN_FLIGHT;
const FORWARD_OPEN_TIMEOUT: Duration = Duration::from_secs(1);
/// After a refusal or a failed connection, before the next attempt.
const RETRY_AFTER: Duration = Duration::from_millis(20);

/// The task's side.
pub struct Proposer {
    me: u64,
    raft: Raft,
    links: Arc<Links>,
    waiters: Arc<Waiters>,
    leadership: watch::Receiver<Leadership>,
    queue: mpsc::Receiver<Proposal>,
    /// Batches that were definitely not appended come back here.
    returned_tx: mpsc::UnboundedSender<Vec<Proposal>>,
    returned: mpsc::UnboundedReceiver<Vec<Proposal>>,
    backlog: VecDeque<Proposal>,
    in_flight: Arc<Semaphore>,
    next_sequence: u64,
    /// Set by a refusal: the leader that refused is not asked again at once.
    pause_until: Option<tokio::time::Instant>,
    max_batch_bytes: usize,
    request_timeout: Duration,
}

/// Where the next batch goes.
#[derive(Debug, Clone, Copy)]
struct Route {
    term: u64,
    leader: u64,
}

impl Proposer {
    pub fn new(
        me: u64,
        raft: Raft,
        links: Arc<Links>,
        waiters: Arc<Waiters>,
        leadership: watch::Receiver<Leadership>,
        counters: Arc<Counters>,
        limits: Limits,
    ) -> (Self, ProposalQueue) {
        let (queued, queue) = ProposalQueue::new(&limits, counters);
        let (returned_tx, returned) = mpsc::unbounded_channel();
        let proposer = Self {
            me,
            raft,
            links,
            waiters,
            leadership,
            queue,
            returned_tx,
            returned,
            backlog: VecDeque::new(),
            in_flight: Arc::new(Semaphore::new(IN_FLIGHT)),
            next_sequence: 1,
            pause_until: None,
            max_batch_bytes: limits.max_batch_bytes,
            request_timeout: limits.request_timeout,
        };
        (proposer, queued)
    }

    /// Runs until the queue is closed or the member begins to shut down.
    pub async fn run(mut self, mut phase: watch::Receiver<Phase>) {
        let mut sweep = tokio::time::interval(Duration::from_secs(1));
        loop {
            let has_work = tokio::select! {
                biased;
                _ = phase.wait_for(|phase| *phase != Phase::Running) => false,
                _ = sweep.tick() => {
                    self.forget_old();
                    continue;
                }
                has_work = self.wait_for_work() => has_work,
            };
            if !has_work {
                break;
            }
            tokio::select! {
                _ = phase.wait_for(|phase| *phase != Phase::Running) => break,
                () = self.send_next() => {}
            }
        }
        self.queue.close();
        while let Ok(proposal) = self.queue.try_recv() {
            self.backlog.push_back(proposal);
        }
        // Nothing in the backlog was ever sent, or the leader said that it did not take it.
        self.backlog
            .drain(..)
            .for_each(|proposal| proposal.fail(ProposeError::Stopped));
    }

    async fn wait_for_work(&mut self) -> bool {
        if !self.backlog.is_empty() {
            return true;
        }
        tokio::select! {
            Some(returned) = self.returned.recv() => self.take_back(returned),
            queued = self.queue.recv() => match queued {
                Some(proposal) => self.backlog.push_back(proposal),
                None => return false,
            },
        }
        true
    }

    /// Takes over what has been queued meanwhile, and drops what nobody waits for any more.
    fn drain(&mut self) {
        while let Ok(returned) = self.returned.try_recv() {
            self.take_back(returned);
        }
        while let Ok(proposal) = self.queue.try_recv() {
            self.backlog.push_back(proposal);
        }
        self.backlog.retain(|proposal| !proposal.stage.is_cancelled());
    }

    fn take_back(&mut self, returned: Vec<Proposal>) {
        self.pause_until = Some(tokio::time::Instant::now() + RETRY_AFTER);
        returned
            .into_iter()
            .rev()
            .for_each(|proposal| self.backlog.push_front(proposal));
    }

    fn forget_old(&mut self) {
        // Callers have given up after the request timeout; outcomes later than that reach nobody.
        if let Some(before) = Instant::now().checked_sub(self.request_timeout + Duration::from_secs(1)) {
            self.waiters.forget(before);
        }
    }

    /// Sends one batch of the backlog, when there is a leader and a free slot.
    async fn send_next(&mut self) {
        if let Some(until) = self.pause_until.take() {
            leadership::news(&mut self.leadership, until).await;
        }
        let Some(route) = self.route().await else { return };
        let permit = self
            .in_flight
            .clone()
            .acquire_owned()
            .await
            .expect("the semaphore is never closed");
        self.drain();
        let batch = self.take_batch(route);
        if batch.is_empty() {
            return;
        }
        if let Err(back) = self.send(route, batch, permit).await {
            self.backlog.extend(back);
            // Not a poll: the leader is unreachable, or its term is over and the news is on the way.
            leadership::news(&mut self.leadership, tokio::time::Instant::now() + RETRY_AFTER).await;
        }
    }

    /// Who leads; waits a while for somebody to.
    async fn route(&mut self) -> Option<Route> {
        let known = self.leadership.borrow_and_update().route();
        if known.is_some() {
            return known;
        }
        leadership::news(
            &mut self.leadership,
            tokio::time::Instant::now() + Duration::from_millis(100),
        )
        .await;
        self.drain();
        None
    }

    /// The front of the backlog up to the bounds. Fenced commands go alone, and only to ourselves.
    fn take_batch(&mut self, route: Route) -> Vec<Proposal> {
        self.refuse_fenced_out(route);
        let Some(fence) = self.backlog.front().map(|proposal| proposal.command.fence_term) else {
            return Vec::new();
        };
        let mut batch = Vec::new();
        let mut bytes = BATCH_OVERHEAD;
        while let Some(next) = self.backlog.front() {
            let fits = batch.is_empty() || bytes + next.bytes <= self.max_batch_bytes;
            if !fits || batch.len() == MAX_COMMANDS || next.command.fence_term != fence {
                break;
            }
            let Some(proposal) = self.backlog.pop_front() else {
                break;
            };
            if proposal.stage.send() {
                bytes += proposal.bytes;
                batch.push(proposal);
            }
        }
        batch
    }

    fn refuse_fenced_out(&mut self, route: Route) {
        let here = (route.leader == self.me).then_some(route.term);
        let kept = |proposal: &Proposal| {
            let fence = proposal.command.fence_term;
            fence == 0 || Some(fence) == here
        };
        if self.backlog.iter().all(kept) {
            return;
        }
        let (kept, refused): (VecDeque<_>, VecDeque<_>) = self.backlog.drain(..).partition(kept);
        self.backlog = kept;
        refused
            .into_iter()
            .for_each(|proposal| proposal.fail(ProposeError::LeaderChanged));
    }

    /// Gives the proposals back when they definitely did not leave this member.
    async fn send(
        &mut self,
        route: Route,
        mut batch: Vec<Proposal>,
        permit: OwnedSemaphorePermit,
    ) -> Result<(), Vec<Proposal>> {
        let sequence = self.next_sequence;
        self.next_sequence += 1;
        let commands = batch.iter().map(|proposal| proposal.command.clone()).collect();
        let encoded: Bytes = CommandBatch {
            origin: self.waiters.origin,
            sequence,
            commands,
        }
        .encode_to_vec()
        .into();
        let link = match self.open_route(route).await {
            Ok(link) => link,
            Err(()) => {
                batch.iter_mut().for_each(|proposal| proposal.stage.refused());
                return Err(batch);
            }
        };
        let registered = self.waiters.register(sequence, route.term, batch, permit);
        registered.inspect_err(|batch| batch.iter().for_each(|proposal| proposal.stage.refused()))?;
        match link {
            None => self.append_here(route.term, sequence, encoded).await,
            Some(forward) => {
                let request = pb::ForwardRequest {
                    sequence,
                    term: route.term,
                    batch: encoded,
                };
                if forward.try_send(request).is_err() {
                    return Err(self.waiters.refused(sequence).unwrap_or_default());
                }
            }
        }
        Ok(())
    }

    /// None: this member leads.
    async fn open_route(&mut self, route: Route) -> Result<Option<mpsc::Sender<pb::ForwardRequest>>, ()> {
        if route.leader == self.me {
            return Ok(None);
        }
        let link = self.links.to_member(route.leader).ok_or(())?;
        self.forward_stream(&link).await.map(Some)
    }

    async fn append_here(&self, term: u64, sequence: u64, batch: Bytes) {
        let (waiters, returned) = (self.waiters.clone(), self.returned_tx.clone());
        let told = Callback(Box::new(move |result| {
            // Anything but this refusal is settled by apply, or stays unknown.
            if let Err(ClientWriteError::ForwardToLeader(_)) = result {
                give_back(&waiters, &returned, sequence);
            }
        }));
        let write = self.raft.write(Commands(batch)).with_leader(term).responder(told);
        if let Err(fatal) = write.await {
            tracing::debug!(%fatal, "a batch came to a member that stops");
        }
    }

    /// The open stream to the leader, opened when there is none.
    async fn forward_stream(&self, link: &Arc<Link>) -> Result<mpsc::Sender<pb::ForwardRequest>, ()> {
        if let Some(open) = link.forward.lock().as_ref().filter(|open| !open.is_closed()) {
            return Ok(open.clone());
        }
        let (tx, rx) = mpsc::channel(FORWARD_BUFFER);
        let mut client = link.client(Lane::Control);
        let opening = client.forward(link.request(ReceiverStream::new(rx)));
        let opened = timeout(FORWARD_OPEN_TIMEOUT, opening).await.map_err(drop)?;
        let refusals = link.checked(opened).map_err(|status| {
            tracing::debug!(%status, "cannot forward to the leader");
        })?;
        tokio::spawn(take_refusals(
            refusals,
            self.waiters.clone(),
            self.returned_tx.clone(),
        ));
        *link.forward.lock() = Some(tx.clone());
        Ok(tx)
    }
}

async fn take_refusals(
    mut refusals: Streaming<pb::ForwardRefusal>,
    waiters: Arc<Waiters>,
    returned: mpsc::UnboundedSender<Vec<Proposal>>,
) {
    while let Ok(Some(refusal)) = refusals.message().await {
        give_back(&waiters, &returned, refusal.sequence);
    }
    // What was on the stream is unknown until apply or a later term settles it, but keeps nobody else waiting.
    waiters.let_others_pass();
    if planted("proposal-sent-twice") {
        waiters
            .sequences()
            .into_iter()
            .for_each(|sequence| give_back(&waiters, &returned, sequence));
    }
}

/// The batch was not appended: its commands may go to the next leader, but fenced ones not to another term.
fn give_back(waiters: &Waiters, returned: &mpsc::UnboundedSender<Vec<Proposal>>, sequence: u64) {
    let Some(proposals) = waiters.refused(sequence) else {
        return;
    };
    let (fenced, free): (Vec<_>, Vec<_>) = proposals
        .into_iter()
        .partition(|proposal| proposal.command.fence_term != 0);
    fenced
        .into_iter()
        .for_each(|proposal| proposal.fail(ProposeError::LeaderChanged));
    if !free.is_empty() {
        let _ = returned.send(free);
    }
}

impl Leadership {
    fn route(&self) -> Option<Route> {
        self.leader.map(|leader| Route {
            term: self.term,
            leader: leader.0,
        })
    }
}
