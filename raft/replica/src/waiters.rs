//! Proposals that were submitted and whose outcome is awaited, by the sequence number of their batch.
//!
//! An outcome comes from this member's own apply of the batch. A batch is only ever appended in the term that
//! it was submitted for; once an entry of a later term is applied here, a batch of an earlier term that was
//! not applied before can never be: that is the definite `LeaderChanged`. What a snapshot jumped over is unknown.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicU8, AtomicUsize, Ordering},
    },
    time::Instant,
};

use barque_proto::command::Command;
use barque_store::{Outcome, Response};
use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, oneshot};

use crate::ProposeError;

const QUEUED: u8 = 0;
const SENT: u8 = 1;
const CANCELLED: u8 = 2;

/// Whether a proposal has left this member. Decides between "definitely not" and "unknown" without a race:
/// whoever moves it away from queued, the proposer or the caller that gives up, settles it.
#[derive(Debug, Default)]
pub struct Stage(AtomicU8);

impl Stage {
    fn swap(&self, from: u8, to: u8) -> bool {
        self.0
            .compare_exchange(from, to, Ordering::AcqRel, Ordering::Acquire)
            .is_ok()
    }

    /// `false`: the caller has given up, it must not be sent any more.
    pub fn send(&self) -> bool {
        self.swap(QUEUED, SENT)
    }

    /// `true`: it was not sent and never will be.
    pub fn cancel(&self) -> bool {
        self.swap(QUEUED, CANCELLED)
    }

    pub fn refused(&self) {
        self.swap(SENT, QUEUED);
    }

    pub fn is_cancelled(&self) -> bool {
        self.0.load(Ordering::Acquire) == CANCELLED
    }
}

/// How much is queued and in flight, in commands and bytes.
#[derive(Debug)]
pub struct Admission {
    commands: AtomicUsize,
    bytes: AtomicUsize,
    max_commands: usize,
    max_bytes: usize,
}

impl Admission {
    pub fn new(max_commands: usize, max_bytes: usize) -> Arc<Self> {
        Arc::new(Self {
            commands: AtomicUsize::new(0),
            bytes: AtomicUsize::new(0),
            max_commands,
            max_bytes,
        })
    }

    pub fn admit(self: &Arc<Self>, bytes: usize) -> Option<Admitted> {
        let commands = self.commands.fetch_add(1, Ordering::Relaxed) + 1;
        let total = self.bytes.fetch_add(bytes, Ordering::Relaxed) + bytes;
        let admitted = Admitted {
            admission: self.clone(),
            bytes,
        };
        (commands <= self.max_commands && total <= self.max_bytes).then_some(admitted)
    }

    pub fn pending(&self) -> usize {
        self.commands.load(Ordering::Relaxed)
    }

    pub fn pending_bytes(&self) -> usize {
        self.bytes.load(Ordering::Relaxed)
    }
}

/// Gives its share back when dropped.
#[derive(Debug)]
pub struct Admitted {
    admission: Arc<Admission>,
    bytes: usize,
}

impl Drop for Admitted {
    fn drop(&mut self) {
        self.admission.commands.fetch_sub(1, Ordering::Relaxed);
        self.admission.bytes.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

/// One command and whoever waits for it.
#[derive(Debug)]
pub struct Proposal {
    pub command: Command,
    pub bytes: usize,
    pub stage: Arc<Stage>,
    pub answer: oneshot::Sender<Result<Response, ProposeError>>,
    /// Held until the proposal is settled.
    pub _admitted: Admitted,
}

impl Proposal {
    pub fn fail(self, error: ProposeError) {
        // The caller may have given up.
        drop(self.answer.send(Err(error)));
    }
}

struct Pending {
    term: u64,
    since: Instant,
    proposals: Vec<Proposal>,
    /// Gives the next batch its turn when this one is settled.
    in_flight: Option<OwnedSemaphorePermit>,
}

pub struct Waiters {
    /// Drawn at start: outcomes of batches from an earlier life, or of another member, are not ours.
    pub origin: u64,
    inner: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    pending: HashMap<u64, Pending>,
    applied_term: u64,
    closed: bool,
}

impl Waiters {
    pub fn new(origin: u64, applied_term: u64) -> Arc<Self> {
        let inner = Inner {
            applied_term,
            ..Inner::default()
        };
        Arc::new(Self {
            origin,
            inner: Mutex::new(inner),
        })
    }

    /// Called before the batch is sent; gives the proposals back when `term` is already over.
    pub fn register(
        &self,
        sequence: u64,
        term: u64,
        proposals: Vec<Proposal>,
        in_flight: OwnedSemaphorePermit,
    ) -> Result<(), Vec<Proposal>> {
        let mut inner = self.inner.lock();
        if inner.applied_term > term || inner.closed {
            return Err(proposals);
        }
        let pending = Pending {
            term,
            since: Instant::now(),
            proposals,
            in_flight: Some(in_flight),
        };
        inner.pending.insert(sequence, pending);
        Ok(())
    }

    /// This member has applied the batch.
    pub fn complete(&self, sequence: u64, outcomes: Vec<Outcome>) {
        let Some(pending) = self.inner.lock().pending.remove(&sequence) else {
            return;
        };
        assert_eq!(
            pending.proposals.len(),
            outcomes.len(),
            "an outcome for each command of a batch"
        );
        for (proposal, outcome) in pending.proposals.into_iter().zip(outcomes) {
            drop(proposal.answer.send(outcome.map_err(ProposeError::Refused)));
        }
    }

    /// This member has applied everything up to an entry of `term`.
    pub fn applied_term(&self, term: u64) {
        let over: Vec<Pending> = {
            let mut inner = self.inner.lock();
            if inner.applied_term >= term {
                return;
            }
            inner.applied_term = term;
            inner
                .pending
                .extract_if(|_, pending| pending.term < term)
                .map(|(_, pending)| pending)
                .collect()
        };
        fail(over, ProposeError::LeaderChanged);
    }

    /// A snapshot of `term` replaced the state: what was pending may be in it.
    pub fn jumped(&self, term: u64) {
        let unknown: Vec<Pending> = {
            let mut inner = self.inner.lock();
            inner.applied_term = inner.applied_term.max(term);
            inner.pending.drain().map(|(_, pending)| pending).collect()
        };
        fail(unknown, ProposeError::TimedOut);
    }

    /// The leader answered that it did not append the batch.
    pub fn refused(&self, sequence: u64) -> Option<Vec<Proposal>> {
        let pending = self.inner.lock().pending.remove(&sequence)?;
        pending
            .proposals
            .iter()
            .for_each(|proposal| proposal.stage.refused());
        Some(pending.proposals)
    }

    /// The way to the leader broke: what is pending stays so, but takes no turn from others any more.
    pub fn let_others_pass(&self) {
        self.inner
            .lock()
            .pending
            .values_mut()
            .for_each(|pending| drop(pending.in_flight.take()));
    }

    /// Of the batches that are pending, oldest first.
    pub fn sequences(&self) -> Vec<u64> {
        let mut sequences: Vec<u64> = self.inner.lock().pending.keys().copied().collect();
        sequences.sort_unstable();
        sequences
    }

    /// Forgets batches sent before `before`: their callers have been answered "unknown" by now.
    pub fn forget(&self, before: Instant) {
        let mut inner = self.inner.lock();
        inner.pending.retain(|_, pending| pending.since >= before);
    }

    pub fn close(&self) {
        let open: Vec<Pending> = {
            let mut inner = self.inner.lock();
            inner.closed = true;
            inner.pending.drain().map(|(_, pending)| pending).collect()
        };
        fail(open, ProposeError::Stopped);
    }
}

fn fail(batches: Vec<Pending>, error: ProposeError) {
    for proposal in batches.into_iter().flat_map(|pending| pending.proposals) {
        proposal.fail(error.clone());
    }
}

#[cfg(test)]
mod tests {
    use barque_store::{PutResponse, Revision};
    use tokio::sync::Semaphore;

    use super::*;

    type Answer = oneshot::Receiver<Result<Response, ProposeError>>;

    fn proposal() -> (Proposal, Answer) {
        let (answer, rx) = oneshot::channel();
        let admitted = Admission::new(10, 1000).admit(1).unwrap();
        let stage = Arc::new(Stage::default());
        assert!(stage.send());
        (
            Proposal {
                command: Command::default(),
                bytes: 1,
                stage,
                answer,
                _admitted: admitted,
            },
            rx,
        )
    }

    fn permit() -> OwnedSemaphorePermit {
        Arc::new(Semaphore::new(1)).try_acquire_owned().unwrap()
    }

    fn pending(waiters: &Waiters, sequence: u64, term: u64) -> Answer {
        let (proposal, rx) = proposal();
        waiters
            .register(sequence, term, vec![proposal], permit())
            .unwrap();
        rx
    }

    #[test]
    fn a_batch_is_answered_by_its_own_apply() {
        let waiters = Waiters::new(1, 0);
        let mut rx = pending(&waiters, 1, 2);
        let response = Response::Put(PutResponse {
            revision: Revision(5),
            prev_kv: None,
        });
        waiters.complete(1, vec![Ok(response)]);
        assert!(matches!(rx.try_recv().unwrap(), Ok(Response::Put(put)) if put.revision == Revision(5)));
    }

    #[test]
    fn a_later_term_settles_what_an_earlier_one_left_open() {
        let waiters = Waiters::new(1, 0);
        let (mut old, mut new) = (pending(&waiters, 1, 2), pending(&waiters, 2, 3));
        waiters.applied_term(3);
        assert!(matches!(
            old.try_recv().unwrap(),
            Err(ProposeError::LeaderChanged)
        ));
        assert!(new.try_recv().is_err());
        let (late, _rx) = proposal();
        assert!(waiters.register(3, 2, vec![late], permit()).is_err());
    }

    #[test]
    fn what_a_snapshot_jumped_over_is_unknown() {
        let waiters = Waiters::new(1, 0);
        let mut rx = pending(&waiters, 1, 2);
        waiters.jumped(5);
        assert!(matches!(rx.try_recv().unwrap(), Err(ProposeError::TimedOut)));
    }

    #[test]
    fn a_refused_batch_can_be_cancelled_again() {
        let waiters = Waiters::new(1, 0);
        let _rx = pending(&waiters, 1, 2);
        let back = waiters.refused(1).unwrap();
        assert!(back[0].stage.cancel());
        assert!(!back[0].stage.send());
    }

    #[test]
    fn admission_counts_commands_and_bytes() {
        let admission = Admission::new(2, 100);
        let first = admission.admit(60).unwrap();
        assert!(admission.admit(60).is_none());
        let _second = admission.admit(40).unwrap();
        assert!(admission.admit(0).is_none());
        drop(first);
        assert!(admission.admit(60).is_some());
    }
}
