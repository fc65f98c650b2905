//! Leases in time: the leader's deadlines, on its monotonic clock.
//!
//! [`Lessor`] is the bookkeeping, without clock or tasks: `now` comes in, expired leases come out. Deadlines are
//! never replicated. A new leader starts every lease at its full remaining TTL as the state has it, so that none
//! expires early; a member that does not lead keeps nothing.

use std::{
    collections::{BTreeSet, HashMap, HashSet},
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use barque_store::LeaseId;
use parking_lot::Mutex;
use tokio::{sync::Notify, time::Instant};

use crate::planted;

/// What a keep-alive found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeepAlive {
    /// Renewed to this many seconds.
    Renewed { ttl_s: i64 },
    /// No such lease: TTL 0 on the wire, not an error.
    NotFound,
}

/// What an applied entry did to a lease.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LeaseEvent {
    Granted { id: LeaseId, ttl_s: i64 },
    Revoked { id: LeaseId },
}

/// What a renewal came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Renewal {
    Renewed {
        ttl_s: i64,
    },
    /// The state holds a shorter remaining TTL: the full one has to be put back before this is answered, and
    /// [`Lessor::restored`] be told of it with the `mark`.
    Checkpointed {
        ttl_s: i64,
        mark: u64,
    },
    /// A shorter remaining TTL is on its way into the state: wait for that, so that the full one comes after it.
    Checkpointing,
    /// Its revocation is on the way: wait for that.
    Expiring,
    NotFound,
    NotLeading,
}

/// A lease as the state has it: id, granted TTL and remaining TTL in seconds.
pub type Kept = (LeaseId, i64, i64);

#[derive(Default)]
pub struct Lessor {
    leading: AtomicBool,
    inner: Mutex<Leases>,
    /// Deadlines came nearer, or a lease is gone.
    pub changed: Notify,
}

#[derive(Default)]
struct Leases {
    term: u64,
    loaded: bool,
    /// Applied while the state was still being loaded.
    early: Vec<LeaseEvent>,
    by_id: HashMap<LeaseId, Lease>,
    deadlines: BTreeSet<(Instant, LeaseId)>,
    /// A checkpoint of these is under way. Kept apart from the leases: one that is granted anew meanwhile may be hit
    /// by it as well.
    checkpointing: HashSet<LeaseId>,
    /// The last mark that was given; none is given twice.
    marks: u64,
}

#[derive(Debug, Clone, Copy)]
struct Lease {
    ttl_s: i64,
    deadline: Instant,
    expiring: bool,
    /// The state may hold less than the full TTL. Another checkpoint gives another mark, so that a restore that was
    /// under way by then does not hide it.
    checkpointed: Option<u64>,
}

impl Lease {
    /// The seconds left, when it has run for a while and still has longer than `over` to go.
    fn worth_checkpointing(&self, now: Instant, over: Duration) -> Option<i64> {
        let left = self.deadline.saturating_duration_since(now);
        let ran = seconds(self.ttl_s).saturating_sub(left);
        let worth = !self.expiring && left > over && ran >= over / 2;
        worth.then(|| left.as_secs() as i64 + 1)
    }
}

fn seconds(count: i64) -> Duration {
    // A century is as good as for ever, and far from what an Instant cannot hold.
    Duration::from_secs(count.clamp(0, 100 * 365 * 86_400) as u64)
}

impl Leases {
    fn of(term: u64, marks: u64) -> Self {
        Self {
            term,
            marks,
            ..Self::default()
        }
    }

    fn next_mark(&mut self) -> u64 {
        self.marks += 1;
        self.marks
    }

    fn put(&mut self, id: LeaseId, ttl_s: i64, remaining_s: i64, now: Instant) {
        self.remove(id);
        let deadline = now + seconds(remaining_s);
        let checkpointed = (remaining_s < ttl_s).then(|| self.next_mark());
        let lease = Lease {
            ttl_s,
            deadline,
            expiring: false,
            checkpointed,
        };
        self.by_id.insert(id, lease);
        self.deadlines.insert((deadline, id));
    }

    fn remove(&mut self, id: LeaseId) {
        if let Some(lease) = self.by_id.remove(&id) {
            self.deadlines.remove(&(lease.deadline, id));
        }
    }

    fn set_deadline(&mut self, id: LeaseId, deadline: Instant) {
        let Some(lease) = self.by_id.get_mut(&id) else {
            return;
        };
        self.deadlines.remove(&(lease.deadline, id));
        lease.deadline = deadline;
        self.deadlines.insert((deadline, id));
    }

    fn event(&mut self, event: LeaseEvent, now: Instant) {
        match event {
            LeaseEvent::Granted { id, ttl_s } => self.put(id, ttl_s, ttl_s, now),
            LeaseEvent::Revoked { id } => self.remove(id),
        }
    }
}

impl Lessor {
    pub fn is_leading(&self) -> bool {
        self.leading.load(Ordering::Acquire)
    }

    /// Starts to keep what is applied from now on; [`Self::load`] brings the leases that were there before.
    pub fn begin(&self, term: u64) {
        let mut leases = self.inner.lock();
        *leases = Leases::of(term, leases.marks);
        drop(leases);
        self.leading.store(true, Ordering::Release);
    }

    /// `kept` was read from the state after [`Self::begin`]: it may hold less than what was applied since.
    pub fn load(&self, term: u64, kept: Vec<Kept>, now: Instant) {
        let mut leases = self.inner.lock();
        if leases.term != term || leases.loaded {
            return;
        }
        for (id, ttl_s, remaining_s) in kept {
            let remaining_s = if remaining_s > 0 { remaining_s } else { ttl_s };
            leases.put(id, ttl_s, remaining_s, now);
        }
        for event in std::mem::take(&mut leases.early) {
            leases.event(event, now);
        }
        leases.loaded = true;
        drop(leases);
        self.changed.notify_waiters();
    }

    /// Leads no more: neither renews nor expires.
    pub fn stop(&self) {
        self.leading.store(false, Ordering::Release);
        let mut leases = self.inner.lock();
        *leases = Leases::of(0, leases.marks);
        drop(leases);
        self.changed.notify_waiters();
    }

    /// The leases of this term are loaded: neither those of an earlier leadership are here, nor none.
    pub fn is_of(&self, term: u64) -> bool {
        let leases = self.inner.lock();
        leases.loaded && leases.term == term
    }

    pub fn applied(&self, events: Vec<LeaseEvent>) {
        if events.is_empty() {
            return;
        }
        let mut leases = self.inner.lock();
        if leases.loaded {
            let now = Instant::now();
            events.into_iter().for_each(|event| leases.event(event, now));
        } else if self.is_leading() {
            leases.early.extend(events);
        }
        drop(leases);
        self.changed.notify_waiters();
    }

    pub fn renew(&self, id: LeaseId, now: Instant) -> Renewal {
        let mut leases = self.inner.lock();
        if !leases.loaded {
            return Renewal::NotLeading;
        }
        let Some(lease) = leases.by_id.get(&id).copied() else {
            return Renewal::NotFound;
        };
        if lease.expiring {
            return Renewal::Expiring;
        }
        if leases.checkpointing.contains(&id) {
            return Renewal::Checkpointing;
        }
        if let Some(mark) = lease.checkpointed {
            return Renewal::Checkpointed {
                ttl_s: lease.ttl_s,
                mark,
            };
        }
        if !planted("keep-alive-lost") {
            leases.set_deadline(id, now + seconds(lease.ttl_s));
        }
        Renewal::Renewed { ttl_s: lease.ttl_s }
    }

    /// The state holds the full TTL again, unless it was checkpointed since `mark` was given.
    pub fn restored(&self, id: LeaseId, mark: u64) {
        let mut leases = self.inner.lock();
        let lease = leases.by_id.get_mut(&id);
        if let Some(lease) = lease.filter(|lease| lease.checkpointed == Some(mark)) {
            lease.checkpointed = None;
        }
    }

    /// Granted TTL and remaining seconds; `Err` while not leading.
    pub fn time_to_live(&self, id: LeaseId, now: Instant) -> Result<Option<(i64, i64)>, ()> {
        let leases = self.inner.lock();
        if !leases.loaded {
            return Err(());
        }
        let lease = leases.by_id.get(&id);
        Ok(lease.map(|lease| {
            let remaining = lease.deadline.saturating_duration_since(now).as_secs();
            (lease.ttl_s, i64::try_from(remaining).unwrap_or(i64::MAX))
        }))
    }

    pub fn next_deadline(&self) -> Option<Instant> {
        self.inner.lock().deadlines.first().map(|(deadline, _)| *deadline)
    }

    /// Takes up to `max` leases whose time is over; they renew no more until [`Self::not_revoked`].
    pub fn expired(&self, now: Instant, max: usize) -> Vec<LeaseId> {
        let mut leases = self.inner.lock();
        let due: Vec<_> = leases
            .deadlines
            .range(..=(now, LeaseId(i64::MAX)))
            .take(max)
            .copied()
            .collect();
        for entry in &due {
            leases.deadlines.remove(entry);
            if let Some(lease) = leases.by_id.get_mut(&entry.1) {
                lease.expiring = true;
            }
        }
        due.into_iter().map(|(_, id)| id).collect()
    }

    /// The revocation did not come through: tried again at `again`. Renewable until then only when it definitely
    /// will not come through later. One that does not expire was granted anew meanwhile.
    pub fn not_revoked(&self, id: LeaseId, again: Instant, definitely: bool) {
        let mut leases = self.inner.lock();
        let lease = leases.by_id.get_mut(&id);
        let Some(lease) = lease.filter(|lease| lease.expiring) else {
            return;
        };
        lease.expiring = !definitely;
        leases.set_deadline(id, again);
        drop(leases);
        self.changed.notify_waiters();
    }

    /// The lease that was to be revoked turned out not to exist. One that does not expire was granted anew meanwhile.
    pub fn forget(&self, id: LeaseId) {
        let mut leases = self.inner.lock();
        if leases.by_id.get(&id).is_some_and(|lease| lease.expiring) {
            leases.remove(id);
        }
        drop(leases);
        self.changed.notify_waiters();
    }

    /// The leases that have run for a while and still have longer than `over` to go, to be written into the state.
    pub fn to_checkpoint(&self, now: Instant, over: Duration) -> Vec<LeaseId> {
        let leases = self.inner.lock();
        let worth = |(id, lease): (&LeaseId, &Lease)| lease.worth_checkpointing(now, over).map(|_| *id);
        leases.by_id.iter().filter_map(worth).collect()
    }

    /// Those of `ids` that are still to be written, with the seconds left as of now. They are not renewed until
    /// [`Self::end_checkpoint`].
    pub fn begin_checkpoint(&self, ids: &[LeaseId], now: Instant, over: Duration) -> Vec<(LeaseId, i64)> {
        let mut leases = self.inner.lock();
        let left = |id: &LeaseId| {
            let left_s = leases.by_id.get(id)?.worth_checkpointing(now, over)?;
            Some((*id, left_s))
        };
        let remaining: Vec<_> = ids.iter().filter_map(left).collect();
        leases.checkpointing = remaining.iter().map(|(id, _)| *id).collect();
        remaining
    }

    /// Whatever came of it, a renewal writes the full TTL from now on: right in either case.
    pub fn end_checkpoint(&self) {
        let mut leases = self.inner.lock();
        for id in std::mem::take(&mut leases.checkpointing) {
            let mark = leases.next_mark();
            if let Some(lease) = leases.by_id.get_mut(&id) {
                lease.checkpointed = Some(mark);
            }
        }
        drop(leases);
        self.changed.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: LeaseId = LeaseId(1);
    const B: LeaseId = LeaseId(2);

    fn lessor(kept: Vec<Kept>) -> (Lessor, Instant) {
        let lessor = Lessor::default();
        let now = Instant::now();
        lessor.begin(1);
        lessor.load(1, kept, now);
        (lessor, now)
    }

    /// Of a lease whose full TTL has to be put back before it is renewed.
    fn mark(lessor: &Lessor, id: LeaseId, now: Instant) -> u64 {
        match lessor.renew(id, now) {
            Renewal::Checkpointed { mark, .. } => mark,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_lease_expires_when_its_time_is_over_and_not_before() {
        let (lessor, now) = lessor(vec![(A, 10, 0), (B, 20, 0)]);
        assert!(lessor.expired(now + seconds(9), 10).is_empty());
        assert_eq!(lessor.expired(now + seconds(10), 10), [A]);
        assert_eq!(lessor.renew(A, now + seconds(10)), Renewal::Expiring);
        assert_eq!(lessor.renew(B, now + seconds(15)), Renewal::Renewed { ttl_s: 20 });
        assert!(lessor.expired(now + seconds(34), 10).is_empty());
        assert_eq!(lessor.expired(now + seconds(35), 10), [B]);
    }

    #[test]
    fn a_new_leader_starts_from_the_remaining_ttl() {
        let (lessor, now) = lessor(vec![(A, 600, 100)]);
        assert_eq!(lessor.time_to_live(A, now), Ok(Some((600, 100))));
        lessor.restored(A, mark(&lessor, A, now));
        assert_eq!(lessor.renew(A, now), Renewal::Renewed { ttl_s: 600 });
    }

    #[test]
    fn what_is_applied_while_loading_counts() {
        let lessor = Lessor::default();
        let now = Instant::now();
        lessor.begin(3);
        lessor.applied(vec![
            LeaseEvent::Revoked { id: A },
            LeaseEvent::Granted { id: B, ttl_s: 5 },
        ]);
        assert_eq!(lessor.renew(B, now), Renewal::NotLeading);
        lessor.load(3, vec![(A, 10, 10)], now);
        assert_eq!(lessor.renew(A, now), Renewal::NotFound);
        assert_eq!(lessor.renew(B, now), Renewal::Renewed { ttl_s: 5 });
    }

    #[test]
    fn a_deposed_leader_neither_renews_nor_expires() {
        let (lessor, now) = lessor(vec![(A, 1, 1)]);
        lessor.stop();
        assert_eq!(lessor.renew(A, now), Renewal::NotLeading);
        assert!(lessor.expired(now + seconds(100), 10).is_empty());
        lessor.applied(vec![LeaseEvent::Granted { id: B, ttl_s: 5 }]);
        assert_eq!(lessor.next_deadline(), None);
    }

    #[test]
    fn a_failed_revocation_is_tried_again() {
        let (lessor, now) = lessor(vec![(A, 1, 1)]);
        assert_eq!(lessor.expired(now + seconds(2), 10), [A]);
        lessor.not_revoked(A, now + seconds(3), false);
        assert_eq!(lessor.renew(A, now + seconds(2)), Renewal::Expiring);
        assert!(lessor.expired(now + seconds(2), 10).is_empty());
        assert_eq!(lessor.expired(now + seconds(3), 10), [A]);
        lessor.not_revoked(A, now + seconds(4), true);
        assert_eq!(lessor.renew(A, now + seconds(3)), Renewal::Renewed { ttl_s: 1 });
    }

    #[test]
    fn what_was_granted_anew_is_not_the_lease_that_expired() {
        let anew = || {
            let (lessor, now) = lessor(vec![(A, 1, 1)]);
            assert_eq!(lessor.expired(now + seconds(2), 10), [A]);
            lessor.applied(vec![
                LeaseEvent::Revoked { id: A },
                LeaseEvent::Granted { id: A, ttl_s: 60 },
            ]);
            (lessor, now)
        };
        // The keeper hears of its revocation only after both were applied.
        let (lessor, now) = anew();
        lessor.forget(A);
        assert_eq!(lessor.renew(A, now), Renewal::Renewed { ttl_s: 60 });
        assert_eq!(lessor.next_deadline(), Some(now + seconds(60)));
        // Or not at all.
        let (lessor, now) = anew();
        lessor.not_revoked(A, now + seconds(3), false);
        assert_eq!(lessor.renew(A, now), Renewal::Renewed { ttl_s: 60 });
        assert_eq!(lessor.next_deadline(), Some(now + seconds(60)));
    }

    #[test]
    fn a_lease_that_turns_out_not_to_exist_is_forgotten() {
        let (lessor, now) = lessor(vec![(A, 1, 1)]);
        assert_eq!(lessor.expired(now + seconds(2), 10), [A]);
        lessor.forget(A);
        assert_eq!(lessor.renew(A, now), Renewal::NotFound);
    }

    #[test]
    fn leases_are_of_the_term_that_they_were_loaded_in() {
        let (lessor, now) = lessor(vec![(A, 10, 10)]);
        assert!(lessor.is_of(1) && !lessor.is_of(2));
        lessor.begin(2);
        assert!(!lessor.is_of(1) && !lessor.is_of(2));
        lessor.load(2, vec![(A, 10, 10)], now);
        assert!(lessor.is_of(2));
    }

    const OVER: Duration = Duration::from_secs(300);

    #[test]
    fn only_long_leases_are_checkpointed() {
        let (lessor, now) = lessor(vec![(A, 3600, 3600), (B, 60, 60)]);
        assert!(lessor.to_checkpoint(now, OVER).is_empty());
        let now = now + seconds(200);
        assert_eq!(lessor.to_checkpoint(now, OVER), [A]);
        assert_eq!(lessor.begin_checkpoint(&[A, B], now, OVER), [(A, 3401)]);
    }

    #[test]
    fn a_lease_that_is_renewed_before_its_turn_is_not_checkpointed() {
        let (lessor, now) = lessor(vec![(A, 3600, 3600)]);
        let now = now + seconds(200);
        assert_eq!(lessor.to_checkpoint(now, OVER), [A]);
        assert_eq!(lessor.renew(A, now), Renewal::Renewed { ttl_s: 3600 });
        assert!(lessor.begin_checkpoint(&[A], now, OVER).is_empty());
        lessor.end_checkpoint();
        assert_eq!(lessor.renew(A, now), Renewal::Renewed { ttl_s: 3600 });
    }

    #[test]
    fn a_renewal_waits_for_the_checkpoint_under_way() {
        let (lessor, now) = lessor(vec![(A, 3600, 3600), (B, 3600, 3600)]);
        let now = now + seconds(200);
        assert_eq!(lessor.begin_checkpoint(&[A], now, OVER), [(A, 3401)]);
        assert_eq!(lessor.renew(A, now), Renewal::Checkpointing);
        assert_eq!(lessor.renew(B, now), Renewal::Renewed { ttl_s: 3600 });
        lessor.end_checkpoint();
        lessor.restored(A, mark(&lessor, A, now));
        assert_eq!(lessor.renew(A, now), Renewal::Renewed { ttl_s: 3600 });
    }

    #[test]
    fn a_restore_does_not_hide_a_checkpoint_that_came_after_it() {
        for ends_first in [false, true] {
            let (lessor, now) = lessor(vec![(A, 3600, 3000)]);
            // Proposed with this mark, and not answered yet when the checkpoint is.
            let restoring = mark(&lessor, A, now);
            assert_eq!(lessor.begin_checkpoint(&[A], now, OVER), [(A, 3001)]);
            if ends_first {
                lessor.end_checkpoint();
                lessor.restored(A, restoring);
            } else {
                lessor.restored(A, restoring);
                lessor.end_checkpoint();
            }
            let again = mark(&lessor, A, now);
            assert_ne!(again, restoring);
            lessor.restored(A, again);
            assert_eq!(lessor.renew(A, now), Renewal::Renewed { ttl_s: 3600 });
        }
    }

    #[test]
    fn a_restore_of_an_earlier_leadership_counts_no_more() {
        let (lessor, now) = lessor(vec![(A, 3600, 3000)]);
        let restoring = mark(&lessor, A, now);
        lessor.stop();
        lessor.begin(3);
        lessor.load(3, vec![(A, 3600, 2000)], now);
        lessor.restored(A, restoring);
        assert_ne!(mark(&lessor, A, now), restoring);
    }
}
