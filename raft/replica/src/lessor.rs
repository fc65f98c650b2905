//! Leases in time: the leader's deadlines, on its monotonic clock.
//!
//! [`Lessor`] is the bookkeeping, without clock or tasks: `now` comes in, expired leases come out. Deadlines are
//! never replicated. A new leader starts every lease at its full remaining TTL as the state has it, so that none
//! expires early; a member that does not lead keeps nothing.

use std::{
    collections::{BTreeSet, HashMap},
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
    /// The state holds a shorter remaining TTL, which has to be put back before this is answered.
    Checkpointed {
        ttl_s: i64,
    },
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
}

#[derive(Debug, Clone, Copy)]
struct Lease {
    ttl_s: i64,
    deadline: Instant,
    expiring: bool,
    checkpointed: bool,
}

fn seconds(count: i64) -> Duration {
    // A century is as good as for ever, and far from what an Instant cannot hold.
    Duration::from_secs(count.clamp(0, 100 * 365 * 86_400) as u64)
}

impl Leases {
    fn put(&mut self, id: LeaseId, ttl_s: i64, remaining_s: i64, now: Instant) {
        self.remove(id);
        let deadline = now + seconds(remaining_s);
        let lease = Lease {
            ttl_s,
            deadline,
            expiring: false,
            checkpointed: remaining_s < ttl_s,
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
        *self.inner.lock() = Leases {
            term,
            ..Leases::default()
        };
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
        *self.inner.lock() = Leases::default();
        self.changed.notify_waiters();
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
        if lease.checkpointed {
            return Renewal::Checkpointed { ttl_s: lease.ttl_s };
        }
        if !planted("keep-alive-lost") {
            leases.set_deadline(id, now + seconds(lease.ttl_s));
        }
        Renewal::Renewed { ttl_s: lease.ttl_s }
    }

    /// The state holds the full TTL again.
    pub fn restored(&self, id: LeaseId) {
        if let Some(lease) = self.inner.lock().by_id.get_mut(&id) {
            lease.checkpointed = false;
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
    /// will not come through later.
    pub fn not_revoked(&self, id: LeaseId, again: Instant, definitely: bool) {
        let mut leases = self.inner.lock();
        if let Some(lease) = leases.by_id.get_mut(&id) {
            lease.expiring = !definitely;
        }
        leases.set_deadline(id, again);
        drop(leases);
        self.changed.notify_waiters();
    }

    /// The lease turned out not to exist.
    pub fn forget(&self, id: LeaseId) {
        self.inner.lock().remove(id);
        self.changed.notify_waiters();
    }

    /// Remaining seconds of the leases that have run for a while and still have longer than `over` to go, to be
    /// written into the state.
    pub fn to_checkpoint(&self, now: Instant, over: Duration) -> Vec<(LeaseId, i64)> {
        let mut leases = self.inner.lock();
        let mut remaining = Vec::new();
        for (id, lease) in &mut leases.by_id {
            let left = lease.deadline.saturating_duration_since(now);
            let ran = seconds(lease.ttl_s).saturating_sub(left);
            if !lease.expiring && left > over && ran >= over / 2 {
                lease.checkpointed = true;
                remaining.push((*id, left.as_secs() as i64 + 1));
            }
        }
        remaining
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
        assert_eq!(lessor.renew(A, now), Renewal::Checkpointed { ttl_s: 600 });
        lessor.restored(A);
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
    fn only_long_leases_are_checkpointed() {
        let (lessor, now) = lessor(vec![(A, 3600, 3600), (B, 60, 60)]);
        assert!(lessor.to_checkpoint(now, seconds(300)).is_empty());
        assert_eq!(
            lessor.to_checkpoint(now + seconds(200), seconds(300)),
            [(A, 3401)]
        );
    }
}
