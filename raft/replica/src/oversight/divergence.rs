//! Members that applied the same entries have the same state: the leader sees to it that it is so.
//!
//! Once a second, and as soon as its leadership begins, it asks every other member for the mark of its newest applied
//! entry (see `barque_store::Mark`) and compares that with its own mark of the same entry. Only what is applied is
//! compared, so only what is committed: a log's uncommitted end, elections and snapshots make nobody differ. And since
//! it is the leader that remembers, a follower that lags, or was just started, is compared as any other: a second after
//! it answers. Who is wrong is then decided at one entry, for which all are asked again (see `judgement`).
//!
//! A call that fails raises nothing: only two marks of one entry do.

use std::{collections::BTreeMap, time::Duration};

use barque_proto::peer as pb;
use barque_store::{Mark, Store};
use tokio::time::Instant;
use tonic::Status;

use super::{
    Evidence, Oversight,
    condemned::Condemned,
    judgement::{Judgement, judge},
    marks::{Marks, ask, mark_from_pb, members},
    scrub::Scrubber,
};
use crate::{leadership, planted};

const COMPARE_EVERY: Duration = Duration::from_secs(1);
/// Rounds for which a judgement waits for members that lag behind, or do not answer, while these may decide it.
const PUT_OFF: u32 = 3;

pub struct Divergence {
    oversight: Oversight,
    /// Rounds in a row that found a difference and left it undecided.
    put_off: u32,
    /// Attempts to raise the alarm for each member that differs.
    attempts: BTreeMap<u64, u32>,
}

impl Divergence {
    pub fn new(oversight: Oversight) -> Self {
        Self {
            oversight,
            put_off: 0,
            attempts: BTreeMap::new(),
        }
    }

    /// Compares while this member leads, until it stops.
    pub async fn run(mut self) {
        let mut leadership = self.oversight.leadership.clone();
        loop {
            let now = *leadership.borrow_and_update();
            if now.is_self {
                self.round(now.term).await;
                leadership::news(&mut leadership, Instant::now() + COMPARE_EVERY).await;
            } else {
                self.is_over();
            }
            let ended = match now.is_self {
                true => leadership.has_changed().is_err(),
                false => leadership.changed().await.is_err(),
            };
            if ended {
                return;
            }
        }
    }

    /// Nobody differs, or it is another leader's turn to find it.
    fn is_over(&mut self) {
        self.put_off = 0;
        self.attempts.clear();
    }

    async fn round(&mut self, term: u64) {
        let (voters, others) = members(&self.oversight.raft, self.oversight.me);
        let newest = self.newest(&others).await;
        let differing = newest.values().filter(|mark| self.differs(mark));
        let Some(first) = differing.map(|mark| mark.index).min() else {
            return self.is_over();
        };
        if planted("corrupt-not-told") {
            return;
        }
        // All who answer have applied the first of these.
        let reached = newest.values().map(|mark| mark.index).min().unwrap_or(first);
        let at = if self.put_off < PUT_OFF { reached } else { first };
        let mut marks = ask(&self.oversight.links, &others, Some(at)).await;
        marks.extend(
            self.oversight
                .store
                .mark_at(at)
                .map(|own| (self.oversight.me, own)),
        );
        match judge(self.oversight.me, &voters, &marks) {
            // The difference lies behind an entry that a member which lags has yet to apply.
            Judgement::Alike => self.put_off += 1,
            Judgement::Unclear(_) if self.put_off < PUT_OFF => self.put_off += 1,
            Judgement::Differ(members) | Judgement::Unclear(members) => {
                for member in members {
                    let attempt = self.attempts.entry(member).or_default();
                    *attempt += 1;
                    let evidence = Evidence::between(&marks, self.oversight.me, member);
                    self.oversight.condemn(member, &evidence, term, *attempt).await;
                }
            }
            Judgement::LeaderDiffers { from } => {
                let evidence = Evidence::between(&marks, self.oversight.me, from);
                self.oversight.resign(from, &evidence, term).await;
            }
        }
    }

    /// The newest marks of those who answer, of entries that are applied here too.
    async fn newest(&self, members: &[u64]) -> Marks {
        let Oversight { links, store, .. } = &self.oversight;
        let mut newest = ask(links, members, None).await;
        let Some(own) = store.newest_mark() else {
            return Marks::new();
        };
        let is_ahead = |(_, mark): &(&u64, &Mark)| mark.index > own.index;
        let ahead: Vec<u64> = newest
            .iter()
            .filter(is_ahead)
            .map(|(member, _)| *member)
            .collect();
        newest.retain(|_, mark| mark.index <= own.index);
        newest.extend(ask(links, &ahead, Some(own.index)).await);
        newest
    }

    /// From what is remembered here.
    fn differs(&self, theirs: &Mark) -> bool {
        let own = self.oversight.store.mark_at(theirs.index);
        own.is_some_and(|own| own != *theirs)
    }
}

/// The answer to a leader that says that this member differs: it stops, if what it has itself says so too.
pub fn diverged(
    store: &Store,
    scrubber: &Scrubber,
    condemned: &Condemned,
    told: &pb::DivergedRequest,
) -> Result<(), Status> {
    let own = match (&told.mark, &told.scrub) {
        (Some(theirs), _) => {
            let theirs = mark_from_pb(*theirs);
            let own = store.mark_at(theirs.index);
            own.map(|own| Evidence::Mark { own, theirs })
        }
        (None, Some(theirs)) => scrubber.evidence_against(theirs),
        (None, None) => None,
    };
    match own.filter(Evidence::is_difference) {
        Some(evidence) => {
            condemned.stop(&format!("{evidence} (found in term {})", told.term));
            Ok(())
        }
        None => Err(Status::failed_precondition("nothing like that is known here")),
    }
}
