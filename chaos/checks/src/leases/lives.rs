//! What clients did to each lease and heard of it: [`Lives`].

use std::collections::{BTreeMap, BTreeSet};

use crate::{
    history::{Answer, History, Operation, Request, Revision},
    model::{Owner, Owners},
};

pub(super) struct Lives {
    /// Of leases that can have been granted at most once.
    single: BTreeMap<i64, Life>,
    /// Leases that somebody asked to be granted.
    asked_for: BTreeSet<i64>,
}

/// Indices are of operations.
#[derive(Default)]
pub(super) struct Life {
    pub lease: i64,
    pub asked_ttl: i64,
    pub grant: Option<usize>,
    pub renewals: Vec<Renewal>,
    /// Revokes that may have taken effect.
    pub revokes: Vec<usize>,
    /// Keep-alives and times-to-live that were answered as of a lease that lives.
    pub signs: Vec<usize>,
    /// The same, answered as of a lease that is gone.
    pub denials: Vec<usize>,
    grants: usize,
}

/// From the call on the lease has at least `ttl` seconds.
pub(super) struct Renewal {
    pub operation: usize,
    pub is_grant: bool,
    pub ttl: i64,
    pub ret: u64,
    call: u64,
}

impl Renewal {
    /// It ends no earlier, give or take the clocks.
    pub fn runs_until(&self, tolerance_us: u64) -> u64 {
        let ttl_us = u64::try_from(self.ttl)
            .unwrap_or_default()
            .saturating_mul(1_000_000);
        self.call.saturating_add(ttl_us.saturating_sub(tolerance_us))
    }
}

impl Life {
    /// Whether somebody's revoke may have taken effect by then.
    pub fn may_be_revoked(&self, history: &History, by: u64) -> bool {
        self.revokes
            .iter()
            .any(|index| history.operations[*index].call <= by)
    }

    fn note(&mut self, index: usize, operation: &Operation) {
        if operation.is_not_applied() {
            return;
        }
        match operation.request {
            Request::LeaseGrant { ttl, .. } => {
                self.grants += 1;
                self.asked_ttl = ttl;
                self.grant = Some(index);
            }
            Request::LeaseRevoke { .. } => self.revokes.push(index),
            _ => {}
        }
        let Some((response, ret)) = operation.answered() else {
            return;
        };
        match response.answer {
            Answer::LeaseGrant { ttl, .. } => self.renew(index, operation.call, ret, ttl, true),
            Answer::LeaseKeepAlive { ttl } if ttl > 0 => {
                self.renew(index, operation.call, ret, ttl, false);
                self.signs.push(index);
            }
            Answer::LeaseTimeToLive { ttl, .. } if ttl > 0 => self.signs.push(index),
            // Nothing left and not yet gone.
            Answer::LeaseTimeToLive { ttl: 0, .. } => {}
            Answer::LeaseKeepAlive { .. } | Answer::LeaseTimeToLive { .. } => self.denials.push(index),
            _ => {}
        }
    }

    fn renew(&mut self, operation: usize, call: u64, ret: u64, ttl: i64, is_grant: bool) {
        self.renewals.push(Renewal {
            operation,
            is_grant,
            ttl,
            ret,
            call,
        });
    }
}

impl Lives {
    pub fn new(history: &History) -> Lives {
        let mut lives: BTreeMap<i64, Life> = BTreeMap::new();
        for (index, operation) in history.operations.iter().enumerate() {
            if let Some(lease) = lease_of(operation) {
                let life = lives.entry(lease).or_default();
                life.lease = lease;
                life.note(index, operation);
            }
        }
        let asked_for = lives
            .iter()
            .filter(|(_, life)| life.grants > 0)
            .map(|(lease, _)| *lease)
            .collect();
        lives.retain(|_, life| life.grants == 1);
        Lives {
            single: lives,
            asked_for,
        }
    }

    pub fn all(&self) -> impl Iterator<Item = &Life> {
        self.single.values()
    }

    pub fn is_empty(&self) -> bool {
        self.asked_for.is_empty()
    }

    pub fn of(&self, lease: i64) -> Option<&Life> {
        self.single.get(&lease)
    }

    pub fn asked_for(&self) -> impl Iterator<Item = i64> {
        self.asked_for.iter().copied()
    }

    pub fn was_asked_for(&self, lease: i64) -> bool {
        self.asked_for.contains(&lease)
    }

    /// The first revision at which each lease had certainly ended.
    pub fn gone(&self, history: &History, owners: &Owners) -> BTreeMap<i64, Revision> {
        let mut gone: BTreeMap<i64, Revision> = BTreeMap::new();
        let mut note = |lease: i64, revision: Revision| {
            let first = gone.entry(lease).or_insert(revision);
            *first = revision.min(*first);
        };
        for (revision, owner) in owners.iter() {
            if let Owner::Lease { lease, certain: true } = owner {
                note(lease, revision);
            }
        }
        for life in self.all() {
            let answers = life
                .revokes
                .iter()
                .filter_map(|index| history.operations[*index].response());
            for response in answers {
                note(life.lease, response.revision);
            }
        }
        gone.retain(|lease, _| self.single.contains_key(lease));
        gone
    }
}

/// The lease that an operation is about. An id that the server was to choose is that of the answer.
fn lease_of(operation: &Operation) -> Option<i64> {
    match (
        &operation.request,
        operation.response().map(|response| &response.answer),
    ) {
        (Request::LeaseGrant { id: 0, .. }, Some(Answer::LeaseGrant { id, .. })) => Some(*id),
        (Request::LeaseGrant { id: 0, .. }, _) => None,
        (
            Request::LeaseGrant { id, .. }
            | Request::LeaseRevoke { id }
            | Request::LeaseKeepAlive { id }
            | Request::LeaseTimeToLive { id },
            _,
        ) => Some(*id),
        _ => None,
    }
}
