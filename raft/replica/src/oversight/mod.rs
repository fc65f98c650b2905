//! Whether the members' states are what they must be, and what becomes of one that is not.
//!
//! `divergence` compares members entry by entry, `scrub` compares and checks their rows now and then, and `damaged`
//! hears of what cannot be read. A member that is found wrong is named by an alarm and stops for good (`condemned`).

pub mod condemned;
pub mod damaged;
pub mod divergence;
mod judgement;
pub mod marks;
pub mod scrub;

use std::{fmt, sync::Arc, time::Duration};

use barque_proto::{command::alarm::Kind, peer as pb};
use barque_store::{Mark, Scrubbed, Store};
use condemned::Condemned;
use marks::{ANSWER_WITHIN, Marks, mark_to_pb};
use tokio::{sync::watch, time::timeout};
use tonic::Status;

use crate::{
    Leadership, alarm, leadership,
    metrics::{Counters, count},
    peer::link::{Lane, Links},
    proposals::ProposalQueue,
    types::Raft,
};

/// Attempts to raise an alarm before the member that it names is told all the same.
const RAISE_ATTEMPTS: u32 = 3;

/// What it takes to compare members, and to act on it.
#[derive(Clone)]
pub struct Oversight {
    pub me: u64,
    pub store: Store,
    pub raft: Raft,
    pub links: Arc<Links>,
    pub queue: ProposalQueue,
    pub leadership: watch::Receiver<Leadership>,
    pub condemned: Condemned,
    pub counters: Arc<Counters>,
    pub election_timeout: Duration,
}

/// What a member has, and what another one has there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Evidence {
    Mark { own: Mark, theirs: Mark },
    Scrub { own: Scrubbed, theirs: Scrubbed },
}

impl Evidence {
    fn between(marks: &Marks, own: u64, theirs: u64) -> Self {
        Self::Mark {
            own: marks[&own],
            theirs: marks[&theirs],
        }
    }

    fn is_difference(&self) -> bool {
        match self {
            Self::Mark { own, theirs } => own.index == theirs.index && own.hash != theirs.hash,
            Self::Scrub { own, theirs } => own.differs(theirs),
        }
    }

    /// What its subject is told: what this member has itself.
    fn request(&self, term: u64) -> pb::DivergedRequest {
        let (mark, scrub) = match self {
            Self::Mark { own, .. } => (Some(mark_to_pb(*own)), None),
            Self::Scrub { own, .. } => (None, Some(scrub::scrubbed_to_pb(own))),
        };
        pb::DivergedRequest { mark, scrub, term }
    }
}

impl fmt::Display for Evidence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Mark { own, theirs } => write!(
                f,
                "after entry {} the state here hashes to {:016x}, there to {:016x}",
                own.index, own.hash, theirs.hash
            ),
            Self::Scrub { own, theirs } => write!(
                f,
                "at revision {} the rows here hash to {:08x} and {:08x}, there to {:08x} and {:08x}",
                own.revision.0, own.hash_kv, own.rows, theirs.hash_kv, theirs.rows
            ),
        }
    }
}

impl Oversight {
    /// Raises CORRUPT for a member that differs, and tells it to stop. In this order: without that member there may be
    /// no majority left to commit the alarm. Tried again by whoever finds the difference again.
    /// `true` once it was told.
    async fn condemn(&self, member: u64, evidence: &Evidence, term: u64, attempt: u32) -> bool {
        let id = format!("{member:x}");
        if attempt == 1 {
            count(&self.counters.divergences);
            tracing::error!(
                member = id,
                term,
                "a member has another state than this leader and is told to stop: {evidence}"
            );
        }
        let raised = alarm::raise(&self.store, &self.queue, Kind::Corrupt, member).await;
        if let Err(error) = raised {
            tracing::warn!(%error, member = id, "the alarm CORRUPT could not be raised");
            if attempt < RAISE_ATTEMPTS {
                return false;
            }
        }
        let told = self.tell(member, evidence, term).await;
        if let Err(status) = &told {
            tracing::warn!(%status, member = id, "a member that differs could not be told");
        }
        told.is_ok()
    }

    async fn tell(&self, member: u64, evidence: &Evidence, term: u64) -> Result<(), Status> {
        let link = self.links.to_member(member);
        let link = link.ok_or_else(|| Status::unavailable("it is no member any more"))?;
        let mut client = link.client(Lane::Control);
        let call = client.diverged(link.request(evidence.request(term)));
        let late = |_| Status::deadline_exceeded("no answer in time");
        let reply = timeout(ANSWER_WITHIN, call).await.map_err(late)?;
        link.checked(reply).map(drop)
    }

    /// This leader is the one that is wrong: says so, hands over to a member of the majority, and stops.
    async fn resign(&self, right: u64, evidence: &Evidence, term: u64) {
        count(&self.counters.divergences);
        tracing::error!(
            term,
            "a majority has another state than this leader, which hands over and stops: {evidence}"
        );
        let raised = alarm::raise(&self.store, &self.queue, Kind::Corrupt, self.me).await;
        if let Err(error) = raised {
            tracing::warn!(%error, "the alarm CORRUPT could not be raised");
        }
        self.hand_over(right).await;
        self.condemned.stop(&format!("{evidence} (found in term {term})"));
    }

    async fn hand_over(&self, to: u64) -> bool {
        leadership::hand_over(&self.raft, &self.leadership, to, self.election_timeout).await
    }
}
