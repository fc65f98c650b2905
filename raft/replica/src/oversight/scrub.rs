//! The slow check of everything that members hold: rows against rows, and each member against the others.
//!
//! Marks tell that members were given the same changes. What became of the rows since, they do not tell: a bit that
//! turned, an index row that a bug left behind. So now and then the leader has every member walk through all its rows
//! (`barque_store::Scrub`) at a revision that all have, and compares what they hash to. What a member finds wrong with
//! itself is damage (see `damaged`); where two differ it is as with marks (see `judgement`).
//!
//! It is slow on purpose: a member reads a bounded number of bytes per second, in steps between which it waits.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, SystemTime},
};

use barque_proto::peer as pb;
use barque_store::{Mark, Revision, Scrub, Scrubbed, Store};
use futures_util::{StreamExt, stream::FuturesUnordered};
use parking_lot::Mutex;
use tokio::{
    runtime::{Handle, RuntimeFlavor},
    sync::watch,
    time::{Instant, sleep_until, timeout},
};
use tonic::Status;

use super::{
    Evidence, Oversight, RAISE_ATTEMPTS,
    judgement::{Judgement, judge},
    marks::{Marks, members},
};
use crate::{
    Leadership,
    applied::Applied,
    blocking::block,
    metrics::{Counters, count},
    peer::link::Lane,
};

/// What a walk may take of a disk: a database of the default quota takes some minutes.
const BYTES_PER_SECOND: u64 = 16 << 20;
/// How long a member waits until it has applied what its leader had.
const CATCH_UP_WITHIN: Duration = Duration::from_secs(30);
/// For all members' walks.
const SCRUB_WITHIN: Duration = Duration::from_secs(6 * 3600);
/// One that takes longer is said to have ended.
const LONG: Duration = Duration::from_secs(10);
/// Rounds that are repeated, so much later, since it is not clear who is wrong without members that did not answer.
const UNCLEAR_ROUNDS: u32 = 3;
const UNCLEAR_AGAIN_AFTER: Duration = Duration::from_secs(10);
/// Between attempts to raise the alarm.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// One member's walks, and what the last one found.
#[derive(Clone)]
pub struct Scrubber {
    store: Store,
    applied: Arc<Applied>,
    counters: Arc<Counters>,
    /// One at a time.
    walking: Arc<tokio::sync::Mutex<()>>,
    last: Arc<Mutex<Last>>,
}

struct Last {
    ended: Instant,
    found: Option<Scrubbed>,
}

impl Scrubber {
    pub fn new(store: Store, applied: Arc<Applied>, counters: Arc<Counters>) -> Self {
        let never = Last {
            ended: Instant::now(),
            found: None,
        };
        Self {
            store,
            applied,
            counters,
            walking: Arc::default(),
            last: Arc::new(Mutex::new(never)),
        }
    }

    /// Walks through all rows once the entry at `index` is applied; with the HashKV at `revision`.
    pub async fn scrub(&self, index: u64, revision: Revision) -> Result<Scrubbed, Status> {
        let _alone = self
            .walking
            .try_lock()
            .map_err(|_| Status::aborted("another walk is under way"))?;
        match timeout(CATCH_UP_WITHIN, self.applied.wait_for_index(index)).await {
            Ok(true) => {}
            Ok(false) => return Err(Status::unavailable("the member stops")),
            Err(_) => return Err(Status::deadline_exceeded("the member lags behind")),
        }
        let mut scrub = Scrub::new(self.store.reader(), revision)
            .map_err(|error| Status::out_of_range(error.to_string()))?;
        let (began, mut walked) = (Instant::now(), 0);
        while block(|| scrub.step()).map_err(damaged)? {
            let bytes = scrub.bytes();
            self.counters
                .scrub_bytes
                .fetch_add(bytes - walked, Ordering::Relaxed);
            walked = bytes;
            let due = Duration::from_secs_f64(bytes as f64 / BYTES_PER_SECOND as f64);
            sleep_until(began + due).await;
        }
        let found = scrub.finish().map_err(damaged)?;
        self.verify_blocks().await?;
        self.ended(&found);
        Ok(found)
    }

    /// What the walk read may have come from a cache, and old versions that nobody can ask for were not in it.
    async fn verify_blocks(&self) -> Result<(), Status> {
        let (store, counters) = (self.store.clone(), self.counters.clone());
        let over = OverOnDrop::default();
        let is_over = over.0.clone();
        let verify = move |is_paced: bool| {
            let (began, mut read) = (std::time::Instant::now(), 0);
            store.verify_blocks(&mut |bytes| {
                read += bytes;
                counters.scrub_bytes.fetch_add(bytes, Ordering::Relaxed);
                let due = Duration::from_secs_f64(read as f64 / BYTES_PER_SECOND as f64);
                if is_paced {
                    std::thread::sleep(due.saturating_sub(began.elapsed()));
                }
                !is_over.load(Ordering::Relaxed)
            })
        };
        // A runtime of one thread (the simulator's) has no other to wait on.
        let verified = match Handle::current().runtime_flavor() {
            RuntimeFlavor::CurrentThread => verify(false),
            _ => {
                let verifying = tokio::task::spawn_blocking(move || verify(true));
                verifying
                    .await
                    .map_err(|error| Status::internal(error.to_string()))?
            }
        };
        verified.map_err(|error| {
            self.store.note_damage(&error);
            damaged(error)
        })
    }

    fn ended(&self, found: &Scrubbed) {
        *self.last.lock() = Last {
            ended: Instant::now(),
            found: Some(found.clone()),
        };
        count(&self.counters.scrubs);
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        let now_s = now.map_or(0, |now| now.as_secs());
        self.counters.scrub_ended_s.store(now_s, Ordering::Relaxed);
    }

    fn last_ended(&self) -> Instant {
        self.last.lock().ended
    }

    /// What the last walk here found, beside what another member has.
    pub fn evidence_against(&self, theirs: &pb::Scrubbed) -> Option<Evidence> {
        let own = self.last.lock().found.clone()?;
        Some(Evidence::Scrub {
            own,
            theirs: scrubbed_from_pb(theirs),
        })
    }
}

/// Ends work on another thread with the future that waits for it.
#[derive(Default)]
struct OverOnDrop(Arc<AtomicBool>);

impl Drop for OverOnDrop {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// It was noted where it was met.
fn damaged(error: barque_store::StoreError) -> Status {
    Status::data_loss(error.to_string())
}

/// The leader's side: has all members walk, every so often.
pub struct Scrubs {
    pub oversight: Oversight,
    pub scrubber: Scrubber,
    /// 0: never.
    pub every: Duration,
}

impl Scrubs {
    /// While this member leads, until it stops. A new leader goes on from the last walk that it took part in.
    pub async fn run(self) {
        if self.every.is_zero() {
            return;
        }
        let mut leadership = self.oversight.leadership.clone();
        let (mut tried, mut unclear) = (Instant::now(), 0);
        loop {
            let now = *leadership.borrow_and_update();
            let due = match unclear {
                0 => tried.max(self.scrubber.last_ended()) + self.every,
                _ => tried + UNCLEAR_AGAIN_AFTER,
            };
            tokio::select! {
                changed = leadership.changed() => if changed.is_err() { return },
                () = sleep_until(due), if now.is_self => {
                    tried = Instant::now();
                    let is_last = unclear + 1 >= UNCLEAR_ROUNDS;
                    let is_clear = self.round(now, leadership.clone(), is_last).await;
                    unclear = if is_clear { 0 } else { unclear + 1 };
                }
            }
        }
    }

    /// Given up when another leader takes over. `false`: members differ, and it is not clear who is wrong; not of the
    /// last round, which decides as well as it can.
    async fn round(
        &self,
        led: Leadership,
        mut leadership: watch::Receiver<Leadership>,
        is_last: bool,
    ) -> bool {
        let began = Instant::now();
        let over = leadership.wait_for(|now| now.term != led.term || !now.is_self);
        let found = tokio::select! {
            found = self.walk_all() => found,
            _ = over => {
                tracing::info!("the check of all rows ended with this leadership");
                return true;
            }
        };
        if began.elapsed() >= LONG {
            let took_s = began.elapsed().as_secs();
            tracing::info!(
                members = found.len(),
                took_s,
                "all rows were checked and compared"
            );
        }
        let me = self.oversight.me;
        let Some(own) = found.get(&me) else { return true };
        let (voters, _) = members(&self.oversight.raft, me);
        // Each of the two by itself, since either may stand for another point at one of the members.
        for marks in [history_marks(own, &found), row_marks(own, &found)] {
            match judge(me, &voters, &marks) {
                Judgement::Alike => {}
                Judgement::Unclear(members) if !is_last => {
                    tracing::warn!(
                        members = members.len(),
                        "rows differ, and not all members could be asked"
                    );
                    return false;
                }
                Judgement::Differ(members) | Judgement::Unclear(members) => {
                    for member in members {
                        self.condemn(member, own, &found[&member], led.term).await;
                    }
                }
                Judgement::LeaderDiffers { from } => {
                    let evidence = evidence(own, &found[&from]);
                    self.oversight.resign(from, &evidence, led.term).await;
                    return true;
                }
            }
        }
        true
    }

    async fn condemn(&self, member: u64, own: &Scrubbed, theirs: &Scrubbed, term: u64) {
        let evidence = evidence(own, theirs);
        for attempt in 1..=RAISE_ATTEMPTS {
            if self.oversight.condemn(member, &evidence, term, attempt).await {
                return;
            }
            tokio::time::sleep(RETRY_AFTER).await;
        }
    }

    /// What each member found that could be asked.
    async fn walk_all(&self) -> BTreeMap<u64, Scrubbed> {
        let head = self.oversight.store.head();
        let (index, revision) = (head.applied.map_or(0, |position| position.index), head.revision);
        let me = self.oversight.me;
        let (_, mut all) = members(&self.oversight.raft, me);
        all.push(me);
        let walking = all.into_iter().map(|member| async move {
            let walked = match member == me {
                true => self.scrubber.scrub(index, revision).await,
                false => self.ask(member, index, revision).await,
            };
            (member, walked)
        });
        let mut walking: FuturesUnordered<_> = walking.collect();
        let mut found = BTreeMap::new();
        while let Some((member, walked)) = walking.next().await {
            match walked {
                Ok(scrubbed) => drop(found.insert(member, scrubbed)),
                Err(status) => {
                    let member = format!("{member:x}");
                    tracing::warn!(member, %status, "a member's rows could not be checked");
                }
            }
        }
        found
    }

    async fn ask(&self, member: u64, index: u64, revision: Revision) -> Result<Scrubbed, Status> {
        let link = self.oversight.links.to_member(member);
        let link = link.ok_or_else(|| Status::unavailable("it is no member any more"))?;
        let mut client = link.client(Lane::Control);
        let asked = pb::ScrubRequest {
            index,
            revision: revision.0,
        };
        let late = |_| Status::deadline_exceeded("no answer in time");
        let reply = timeout(SCRUB_WITHIN, client.scrub(link.request(asked))).await;
        let reply = link.checked(reply.map_err(late)?)?;
        Ok(scrubbed_from_pb(&reply))
    }
}

fn evidence(own: &Scrubbed, theirs: &Scrubbed) -> Evidence {
    Evidence::Scrub {
        own: own.clone(),
        theirs: theirs.clone(),
    }
}

/// The HashKVs that stand for the same as the leader's.
fn history_marks(own: &Scrubbed, found: &BTreeMap<u64, Scrubbed>) -> Marks {
    let point = |of: &Scrubbed| (of.revision, of.compact_revision);
    let comparable = found.iter().filter(|(_, scrubbed)| point(scrubbed) == point(own));
    let mark = |(member, scrubbed): (&u64, &Scrubbed)| {
        let hash = u64::from(scrubbed.hash_kv);
        (*member, Mark { index: 0, hash })
    };
    comparable.map(mark).collect()
}

/// The rows as they were after the same entry as the leader's.
fn row_marks(own: &Scrubbed, found: &BTreeMap<u64, Scrubbed>) -> Marks {
    let comparable = found
        .iter()
        .filter(|(_, scrubbed)| scrubbed.applied == own.applied);
    let mark = |(member, scrubbed): (&u64, &Scrubbed)| {
        let hash = u64::from(scrubbed.rows);
        (*member, Mark { index: 0, hash })
    };
    comparable.map(mark).collect()
}

pub fn scrubbed_to_pb(scrubbed: &Scrubbed) -> pb::Scrubbed {
    pb::Scrubbed {
        applied: scrubbed.applied,
        revision: scrubbed.revision.0,
        compact_revision: scrubbed.compact_revision.0,
        hash_kv: scrubbed.hash_kv,
        rows: scrubbed.rows,
    }
}

fn scrubbed_from_pb(scrubbed: &pb::Scrubbed) -> Scrubbed {
    Scrubbed {
        applied: scrubbed.applied,
        revision: Revision(scrubbed.revision),
        compact_revision: Revision(scrubbed.compact_revision),
        hash_kv: scrubbed.hash_kv,
        rows: scrubbed.rows,
    }
}
