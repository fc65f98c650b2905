//! The side of proposals that callers hold: admitted, queued, waited for.

use std::{sync::Arc, time::Duration};

use barque_proto::command::Command;
use barque_store::Response;
use prost::Message;
use tokio::{
    sync::{mpsc, oneshot},
    time::timeout,
};

use crate::{
    ProposeError,
    metrics::{Counters, count},
    waiters::{Admission, Proposal, Stage},
};

/// Room for a batch's own fields, and for each command's tag and length.
pub const BATCH_OVERHEAD: usize = 32;
const COMMAND_OVERHEAD: usize = 8;

/// What a proposal costs against the bounds at least, so that small ones are bounded too.
fn cost(command: &Command) -> usize {
    command.encoded_len() + COMMAND_OVERHEAD
}

/// The side that callers hold.
#[derive(Clone)]
pub struct ProposalQueue {
    tx: mpsc::Sender<Proposal>,
    admission: Arc<Admission>,
    counters: Arc<Counters>,
    max_batch_bytes: usize,
    request_timeout: Duration,
}

impl ProposalQueue {
    pub fn new(limits: &Limits, counters: Arc<Counters>) -> (Self, mpsc::Receiver<Proposal>) {
        let (tx, queue) = mpsc::channel(limits.max_queued_commands.max(1));
        let queued = Self {
            tx,
            admission: Admission::new(limits.max_queued_commands, limits.max_queued_bytes),
            counters,
            max_batch_bytes: limits.max_batch_bytes,
            request_timeout: limits.request_timeout,
        };
        (queued, queue)
    }
    pub fn pending(&self) -> usize {
        self.admission.pending()
    }

    pub async fn propose(&self, command: Command) -> Result<Response, ProposeError> {
        let outcome = self.queue_and_wait(command).await;
        match &outcome {
            Ok(_) | Err(ProposeError::Refused(_)) => {}
            Err(_) => count(&self.counters.proposals_failed),
        }
        outcome
    }

    async fn queue_and_wait(&self, command: Command) -> Result<Response, ProposeError> {
        let bytes = cost(&command);
        if bytes + BATCH_OVERHEAD > self.max_batch_bytes {
            return Err(ProposeError::TooLarge);
        }
        let admitted = self.admission.admit(bytes).ok_or(ProposeError::TooManyRequests)?;
        let stage = Arc::new(Stage::default());
        let (answer, mut outcome) = oneshot::channel();
        let proposal = Proposal {
            command,
            bytes,
            stage: stage.clone(),
            answer,
            _admitted: admitted,
        };
        self.tx.try_send(proposal).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => ProposeError::TooManyRequests,
            mpsc::error::TrySendError::Closed(_) => ProposeError::Stopped,
        })?;
        // A caller that goes away takes along what has not been sent.
        let _given_up = CancelOnDrop(&stage);
        match timeout(self.request_timeout, &mut outcome).await {
            Ok(Ok(outcome)) => outcome,
            Ok(Err(_)) => Err(ProposeError::Stopped),
            Err(_) if stage.cancel() => Err(ProposeError::NoLeader),
            Err(_) => outcome.try_recv().unwrap_or(Err(ProposeError::TimedOut)),
        }
    }
}

struct CancelOnDrop<'a>(&'a Stage);

impl Drop for CancelOnDrop<'_> {
    fn drop(&mut self) {
        self.0.cancel();
    }
}

pub struct Limits {
    pub max_batch_bytes: usize,
    pub max_queued_commands: usize,
    pub max_queued_bytes: usize,
    pub request_timeout: Duration,
}
