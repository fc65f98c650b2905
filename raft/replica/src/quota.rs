//! The space quota (`--quota-backend-bytes`): no command that grows the database is proposed when there is no room.
//!
//! [`Quota`] is asked by the member that serves a request, before it proposes. What is in use is measured once per
//! interval, not per request; in between counts what was let through since. A member without room raises the NOSPACE
//! alarm, by which from then on every member refuses alike, until somebody disarms it. Deletes, compactions and
//! revocations always pass: they are the way out.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use barque_proto::command::{Command, Operation, Put, Txn, alarm::Kind, command::Op, operation};
use barque_store::{CommandError, Store};
use tokio::{
    sync::{Mutex, watch},
    time::{MissedTickBehavior, interval},
};

use crate::{ProposeError, alarm, lifecycle::Phase, planted, proposals::ProposalQueue};

const MEASURE_EVERY: Duration = Duration::from_secs(1);
/// What etcd reckons for a key and for a lease beside their bytes.
const KEY_OVERHEAD: u64 = 256;
const LEASE_OVERHEAD: u64 = 64;

pub struct Quota {
    me: u64,
    /// Not 0.
    limit: u64,
    store: Store,
    queue: ProposalQueue,
    /// Bytes in use when last measured.
    measured: AtomicU64,
    /// Bytes that were let through since, or were under way then.
    accepted: AtomicU64,
    /// Held while the alarm is on its way, so that many refusals raise it once.
    raising: Mutex<()>,
}

impl Quota {
    /// `None`: there is no limit.
    pub fn new(limit: u64, me: u64, store: Store, queue: ProposalQueue) -> Option<Arc<Self>> {
        if limit == 0 {
            return None;
        }
        let quota = Self {
            me,
            limit,
            store,
            queue,
            measured: AtomicU64::new(0),
            accepted: AtomicU64::new(0),
            raising: Mutex::new(()),
        };
        quota.measure();
        Some(Arc::new(quota))
    }

    pub fn limit(&self) -> u64 {
        self.limit
    }

    /// Refuses what there is no room for, and sees to it that the other members will too.
    pub async fn admit(&self, command: &Command) -> Result<(), ProposeError> {
        let is_delete = matches!(&command.op, Some(Op::DeleteRange(_)));
        let cost = match is_delete && planted("delete-needs-space") {
            true => KEY_OVERHEAD,
            false => cost(command),
        };
        if cost == 0 || self.has_room(cost) {
            return Ok(());
        }
        self.raise().await;
        Err(CommandError::NoSpace.into())
    }

    /// Measures at intervals until the member stops.
    pub async fn follow(self: Arc<Self>, mut phase: watch::Receiver<Phase>) {
        let mut stopping =
            std::pin::pin!(async move { drop(phase.wait_for(|phase| *phase != Phase::Running).await) });
        let mut ticks = interval(MEASURE_EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = &mut stopping => return,
                _ = ticks.tick() => self.measure(),
            }
        }
    }

    fn has_room(&self, cost: u64) -> bool {
        if !self.fits(cost) {
            // Not on the word of an estimate: an alarm stays until somebody comes.
            self.measure();
            if !self.fits(cost) {
                return false;
            }
        }
        self.accepted.fetch_add(cost, Ordering::Relaxed);
        true
    }

    fn fits(&self, cost: u64) -> bool {
        self.estimate().saturating_add(cost) < self.limit
    }

    fn estimate(&self) -> u64 {
        let measured = self.measured.load(Ordering::Relaxed);
        measured.saturating_add(self.accepted.load(Ordering::Relaxed))
    }

    fn measure(&self) {
        // Read first: what is applied in between counts twice, until the next time, rather than not at all.
        let under_way = self.queue.pending_bytes() as u64;
        let in_use = self.store.sizes().in_use_bytes;
        self.measured.store(in_use, Ordering::Relaxed);
        self.accepted.store(under_way, Ordering::Relaxed);
    }

    fn is_raised(&self) -> bool {
        self.store.alarms().contains(&(self.me, Kind::Nospace))
    }

    async fn raise(&self) {
        // Whoever comes meanwhile is refused all the same.
        let Ok(_raising) = self.raising.try_lock() else {
            return;
        };
        if self.is_raised() {
            return;
        }
        let (in_use, quota) = (self.measured.load(Ordering::Relaxed), self.limit);
        match alarm::raise(&self.store, &self.queue, Kind::Nospace, self.me).await {
            Ok(()) => tracing::warn!(
                in_use,
                quota,
                "the database exceeds --quota-backend-bytes: nothing is written until space was freed and the \
                 alarm NOSPACE disarmed"
            ),
            Err(error) => tracing::warn!(%error, in_use, quota, "the alarm NOSPACE could not be raised"),
        }
    }
}

/// How many bytes a command may add, as etcd reckons; 0: it passes always.
fn cost(command: &Command) -> u64 {
    match &command.op {
        Some(Op::Put(put)) => put_cost(put),
        Some(Op::Txn(txn)) => txn_cost(txn),
        Some(Op::LeaseGrant(_)) => LEASE_OVERHEAD,
        Some(
            Op::DeleteRange(_) | Op::Compact(_) | Op::LeaseRevoke(_) | Op::LeaseCheckpoint(_) | Op::Alarm(_),
        )
        | None => 0,
    }
}

fn put_cost(put: &Put) -> u64 {
    KEY_OVERHEAD + put.key.len() as u64 + put.value.len() as u64
}

/// That of the dearer branch. Puts in nested ones count too, which etcd overlooks.
fn txn_cost(txn: &Txn) -> u64 {
    let branch = |operations: &[Operation]| -> u64 { operations.iter().map(operation_cost).sum() };
    branch(&txn.success).max(branch(&txn.failure))
}

fn operation_cost(operation: &Operation) -> u64 {
    match &operation.op {
        Some(operation::Op::Put(put)) => put_cost(put),
        Some(operation::Op::Txn(nested)) => txn_cost(nested),
        Some(operation::Op::Range(_) | operation::Op::DeleteRange(_)) | None => 0,
    }
}

#[cfg(test)]
mod tests {
    use barque_proto::command::{Alarm, CommandBatch, Compact, DeleteRange, LeaseGrant};
    use barque_store::{
        Applier, Entry, EntryBody, LogPosition, Response, Revision, kv::memory::MemoryEngine,
    };
    use prost::Message;
    use tokio::sync::mpsc;

    use super::*;
    use crate::{metrics::Counters, proposals::Limits, waiters::Proposal};

    const ME: u64 = 7;

    fn put(value: usize) -> Put {
        Put {
            key: "key".into(),
            value: vec![b'v'; value].into(),
            ..Put::default()
        }
    }

    fn command(op: Op) -> Command {
        Command {
            op: Some(op),
            ..Command::default()
        }
    }

    fn operations(ops: Vec<operation::Op>) -> Vec<Operation> {
        ops.into_iter().map(|op| Operation { op: Some(op) }).collect()
    }

    /// A quota over a store that the test applies to itself, and the end of the queue.
    struct Fixture {
        quota: Arc<Quota>,
        applier: Applier,
        index: u64,
        proposed: mpsc::Receiver<Proposal>,
    }

    impl Fixture {
        fn new(limit: u64) -> Self {
            let (store, applier) = Store::open_with(Arc::new(MemoryEngine::new()), 1 << 20).unwrap();
            let limits = Limits {
                max_batch_bytes: 1 << 20,
                max_queued_commands: 10,
                max_queued_bytes: 1 << 20,
                request_timeout: Duration::from_secs(60),
            };
            let (queue, proposed) = ProposalQueue::new(&limits, Arc::new(Counters::default()));
            Self {
                quota: Quota::new(limit, ME, store, queue).unwrap(),
                applier,
                index: 0,
                proposed,
            }
        }

        fn apply(&mut self, command: Command) -> Response {
            self.index += 1;
            let batch = CommandBatch {
                commands: vec![command],
                ..CommandBatch::default()
            };
            let entry = Entry {
                position: LogPosition {
                    term: 1,
                    index: self.index,
                },
                body: EntryBody::Commands(batch.encode_to_vec().into()),
            };
            self.applier.apply(&[entry]).unwrap().remove(0).remove(0).unwrap()
        }

        async fn admits(&self, op: Op) -> bool {
            match self.quota.admit(&command(op)).await {
                Ok(()) => true,
                Err(ProposeError::Refused(CommandError::NoSpace)) => false,
                Err(other) => panic!("{other}"),
            }
        }

        /// Refuses, and meanwhile proposes the alarm, which is applied.
        async fn refuses_with_alarm(&mut self, op: Op) {
            let quota = self.quota.clone();
            let refused = tokio::spawn(async move { quota.admit(&command(op)).await });
            let proposal = self.proposed.recv().await.unwrap();
            let raised = Alarm {
                kind: Kind::Nospace.into(),
                member_id: ME,
                active: true,
            };
            assert_eq!(proposal.command, command(Op::Alarm(raised)));
            let response = self.apply(proposal.command);
            drop(proposal.answer.send(Ok(response)));
            let refused = refused.await.unwrap();
            assert!(matches!(
                refused,
                Err(ProposeError::Refused(CommandError::NoSpace))
            ));
        }

        fn disarm(&mut self) {
            let disarmed = Alarm {
                kind: Kind::Nospace.into(),
                member_id: ME,
                active: false,
            };
            self.apply(command(Op::Alarm(disarmed)));
        }
    }

    #[test]
    fn costs_are_etcds() {
        let range = || operation::Op::Range(Default::default());
        let nested = Txn {
            failure: operations(vec![operation::Op::Put(put(50))]),
            ..Txn::default()
        };
        let txn = Txn {
            success: operations(vec![operation::Op::Put(put(10)), range()]),
            failure: operations(vec![operation::Op::Put(put(1)), operation::Op::Txn(nested)]),
            ..Txn::default()
        };
        let reading = Txn {
            success: operations(vec![range(), operation::Op::DeleteRange(DeleteRange::default())]),
            ..Txn::default()
        };
        for (op, expected) in [
            (Op::Put(put(100)), 256 + 3 + 100),
            (Op::Txn(txn), 2 * (256 + 3) + 1 + 50),
            (Op::Txn(reading), 0),
            (Op::LeaseGrant(LeaseGrant::default()), 64),
            (Op::DeleteRange(DeleteRange::default()), 0),
            (Op::Compact(Compact::default()), 0),
            (Op::Alarm(Alarm::default()), 0),
        ] {
            assert_eq!(cost(&command(op)), expected);
        }
        assert_eq!(cost(&Command::default()), 0);
    }

    #[test]
    fn none_is_no_limit() {
        let (store, _applier) = Store::open_with(Arc::new(MemoryEngine::new()), 1 << 20).unwrap();
        let limits = Limits {
            max_batch_bytes: 1,
            max_queued_commands: 1,
            max_queued_bytes: 1,
            request_timeout: Duration::ZERO,
        };
        let (queue, _proposed) = ProposalQueue::new(&limits, Arc::new(Counters::default()));
        assert!(Quota::new(0, ME, store, queue).is_none());
    }

    #[tokio::test]
    async fn what_was_let_through_counts_until_it_is_measured() {
        let fixture = Fixture::new(10_000);
        assert!(fixture.admits(Op::Put(put(9_000))).await);
        assert!(fixture.quota.estimate() > 9_000);
        // Nothing of it was ever proposed: looked at again, the space is free.
        assert!(fixture.admits(Op::Put(put(9_000))).await);
        fixture.quota.measure();
        assert_eq!(fixture.quota.estimate(), fixture.quota.store.sizes().in_use_bytes);
    }

    #[tokio::test]
    async fn what_grows_is_refused_until_there_is_room_and_the_alarm_is_disarmed() {
        let mut fixture = Fixture::new(10_000);
        fixture.apply(command(Op::Put(put(8_000))));
        fixture.quota.measure();
        assert!(fixture.admits(Op::Put(put(100))).await);
        fixture.refuses_with_alarm(Op::Put(put(4_000))).await;

        // Raised already: refused without another proposal, which nobody here would answer.
        assert!(!fixture.admits(Op::Put(put(4_000))).await);
        let with_put = Txn {
            success: operations(vec![operation::Op::Put(put(4_000))]),
            ..Txn::default()
        };
        assert!(!fixture.admits(Op::Txn(with_put)).await);
        let all = DeleteRange {
            key: "key".into(),
            ..DeleteRange::default()
        };
        assert!(fixture.admits(Op::DeleteRange(all.clone())).await);
        assert!(fixture.admits(Op::Compact(Compact { revision: 2 })).await);
        assert!(fixture.proposed.try_recv().is_err());

        // Disarmed without more room: raised again.
        fixture.disarm();
        fixture.refuses_with_alarm(Op::Put(put(4_000))).await;

        fixture.apply(command(Op::DeleteRange(all)));
        assert_eq!(fixture.quota.store.head().revision, Revision(3));
        fixture.apply(command(Op::Compact(Compact { revision: 3 })));
        while fixture.applier.compact_step().unwrap() {}
        fixture.disarm();
        assert!(fixture.admits(Op::Put(put(4_000))).await);
    }

    #[tokio::test]
    async fn a_lease_costs_too() {
        let mut fixture = Fixture::new(10_000);
        fixture.apply(command(Op::Put(put(9_990))));
        fixture.quota.measure();
        let grant = LeaseGrant { id: 1, ttl_s: 60 };
        fixture.refuses_with_alarm(Op::LeaseGrant(grant)).await;
    }
}
