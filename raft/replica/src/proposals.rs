//! The side of proposals that callers hold: admitted, queued, waited for.

use std::{sync::Arc, time::Duration};

use barque_proto::command::{Command, Txn, command::Op, operation};
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

/// How many txns may lie in one another, the outermost one counted. Decoding ends at 100 messages in one another, and
/// a level is two of them: with batch, command, innermost operation and index term it is 67.
pub const MAX_TXN_DEPTH: usize = 32;

/// Whether it can be read back from the log. Encoding has no limit of depth and decoding has one: an entry beyond it
/// would stop every member that applies it, for good. Only txns nest, and commands get into the log through the queue
/// alone (a batch that a peer forwards came through the peer's), so that it is enough to look here.
fn is_readable(command: &Command) -> bool {
    match &command.op {
        Some(Op::Txn(txn)) => nests_within(txn, MAX_TXN_DEPTH),
        _ => true,
    }
}

fn nests_within(txn: &Txn, depth: usize) -> bool {
    let Some(below) = depth.checked_sub(1) else {
        return false;
    };
    let mut operations = txn.success.iter().chain(&txn.failure);
    operations.all(|operation| match &operation.op {
        Some(operation::Op::Txn(nested)) => nests_within(nested, below),
        _ => true,
    })
}

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

    pub fn pending_bytes(&self) -> usize {
        self.admission.pending_bytes()
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
        if !is_readable(&command) || bytes + BATCH_OVERHEAD > self.max_batch_bytes {
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

#[cfg(test)]
mod tests {
    use barque_proto::command::{CommandBatch, IndexTerm, Operation, Put};

    use super::*;

    fn inside(op: operation::Op) -> Txn {
        Txn {
            success: vec![Operation { op: Some(op) }],
            ..Txn::default()
        }
    }

    /// Txns in one another, as many as `depth`, around the deepest operation there is.
    fn nested(depth: usize) -> Command {
        let put = Put {
            key: "k".into(),
            terms: vec![IndexTerm::default()],
            ..Put::default()
        };
        let innermost = inside(operation::Op::Put(put));
        let txn = (1..depth).fold(innermost, |txn, _| inside(operation::Op::Txn(txn)));
        Command {
            op: Some(Op::Txn(txn)),
            ..Command::default()
        }
    }

    #[test]
    fn what_may_be_proposed_can_be_read_back() {
        let readable: Vec<usize> = (1..=60).filter(|depth| is_readable(&nested(*depth))).collect();
        assert_eq!(readable, (1..=MAX_TXN_DEPTH).collect::<Vec<_>>());
        for depth in readable {
            let batch = CommandBatch {
                origin: 1,
                sequence: 1,
                commands: vec![nested(depth)],
            };
            let read = CommandBatch::decode(batch.encode_to_vec().as_slice());
            assert_eq!(read.unwrap(), batch, "depth {depth}");
        }
    }

    #[tokio::test]
    async fn what_could_not_be_read_back_is_refused() {
        let limits = Limits {
            max_batch_bytes: 1 << 20,
            max_queued_commands: 10,
            max_queued_bytes: 1 << 20,
            request_timeout: Duration::from_secs(10),
        };
        let (queue, mut queued) = ProposalQueue::new(&limits, Arc::default());
        let refused = queue.propose(nested(MAX_TXN_DEPTH + 1)).await;
        assert!(matches!(refused, Err(ProposeError::TooLarge)), "{refused:?}");
        assert!(queued.try_recv().is_err());
    }
}
