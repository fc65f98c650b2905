//! Physical compaction: removing, in the background and bounded per step, what no read may ask for any more.
//!
//! It walks `log` up to the compact revision C. The change that ended a version at or before C takes that
//! version's `hist` and `log` rows with it, or its row in `cur` when that was not moved yet; a tombstone before C goes
//! itself. What happened *at* C stays
//! readable as history, so rows at C are walked again under a later C'. Reads never differ by how far this
//! has come, and the state hash does not cover it.

use bytes::Bytes;

use crate::{
    StoreError,
    codec::{LogOp, LogRow},
    keys::{self, VERSION_LEN, Version},
    kv::{Batch, Bounds, Engine, Family, View},
    live::Live,
    planted,
    state::COMPACT_CURSOR,
};

/// Changes looked at in one step.
const STEP_CHANGES: usize = 1000;

/// How far the walk has come, and for which compact revision.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Progress {
    next: Version,
    target: i64,
}

impl Progress {
    fn load(view: &dyn View, target: i64) -> Result<Self, StoreError> {
        let Some(row) = view.get(Family::Meta, COMPACT_CURSOR)? else {
            return Ok(Self {
                next: Version::default(),
                target,
            });
        };
        let saved = Self::decode(&row).ok_or_else(|| StoreError::Corrupt {
            what: "compaction cursor",
            detail: format!("{row:02x?}"),
        })?;
        if saved.target == target {
            return Ok(saved);
        }
        // Under a later target, changes at the earlier one are to be judged again.
        Ok(Self {
            next: saved.next.min(Version::first_of(saved.target)),
            target,
        })
    }

    fn decode(row: &[u8]) -> Option<Self> {
        let (next, target) = row.split_at_checked(VERSION_LEN)?;
        Some(Self {
            next: Version::from_bytes(next)?,
            target: i64::from_be_bytes(target.try_into().ok()?),
        })
    }

    fn encode(self) -> Bytes {
        let mut row = self.next.to_bytes().to_vec();
        row.extend_from_slice(&self.target.to_be_bytes());
        row.into()
    }

    fn is_done(self) -> bool {
        self.next == Version::last_of(self.target)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// There was nothing to do.
    Idle,
    More,
    /// This was the last one.
    Finished,
}

/// Removes some; returns also how many ended rows went from `cur` with it.
pub fn step(engine: &dyn Engine, compact_revision: i64, any_ended: bool) -> Result<(Step, u64), StoreError> {
    if compact_revision == 0 {
        return Ok((Step::Idle, 0));
    }
    let compact_revision = compact_revision + i64::from(planted("compaction-drops-visible"));
    let view = engine.view();
    let mut progress = Progress::load(&*view, compact_revision)?;
    if progress.is_done() {
        return Ok((Step::Idle, 0));
    }
    let live = Live {
        view: &*view,
        any_ended,
    };
    let mut batch = Batch::default();
    let ended;
    (progress.next, ended) = walk(live, progress, &mut batch)?;
    batch.put(
        Family::Meta,
        Bytes::from_static(COMPACT_CURSOR),
        progress.encode(),
    );
    engine.write(batch)?;
    let step = if progress.is_done() {
        Step::Finished
    } else {
        Step::More
    };
    Ok((step, ended))
}

/// Gathers deletions from `progress.next` on; returns where to go on, and the ended rows among them.
fn walk(live: Live<'_>, progress: Progress, batch: &mut Batch) -> Result<(Version, u64), StoreError> {
    let last = Version::last_of(progress.target);
    let (from, to) = (progress.next.to_bytes(), last.to_bytes());
    let mut log = live.view.cursor(Family::Log, Bounds::new(&from, Some(&to)))?;
    let mut ended = 0;
    for _ in 0..STEP_CHANGES {
        let Some((row, value)) = log.row() else {
            return Ok((last, ended));
        };
        let (at, change) = (keys::split_log(row)?, LogRow::decode(value)?);
        judge(at, &change, progress.target, batch);
        if is_ended_row_left(live, at, &change, progress.target)? {
            let key = Bytes::copy_from_slice(change.key);
            batch.delete(Family::Cur, key.clone());
            batch.delete(Family::Ended, key);
            ended += 1;
        }
        log.advance()?;
    }
    let next = log.row().map_or(Ok(last), |(row, _)| keys::split_log(row))?;
    Ok((next, ended))
}

/// Whether the version that this deletion ended, and nobody may ask for, still lies in `cur`.
fn is_ended_row_left(
    live: Live<'_>,
    at: Version,
    change: &LogRow<'_>,
    compact_revision: i64,
) -> Result<bool, StoreError> {
    let gone = change.prev.is_some_and(|prev| prev.main < compact_revision);
    Ok(gone && change.op == LogOp::Delete && live.end_of(change.key)? == Some(at))
}

fn judge(at: Version, change: &LogRow<'_>, compact_revision: i64, batch: &mut Batch) {
    if let Some(prev) = change.prev.filter(|prev| prev.main < compact_revision) {
        batch.delete(Family::Hist, keys::hist(change.key, prev));
        batch.delete(Family::Log, keys::log(prev));
    }
    if change.op == LogOp::Delete && at.main < compact_revision {
        batch.delete(Family::Log, keys::log(at));
    }
}

/// No change lies beyond the revision that the state claims.
pub fn check_log_end(view: &dyn View, revision: i64) -> Result<(), StoreError> {
    let after = Version::first_of(revision + 1).to_bytes();
    match view.cursor(Family::Log, Bounds::new(&after, None))?.row() {
        None => Ok(()),
        Some(_) => Err(StoreError::Corrupt {
            what: "copy",
            detail: format!("changes after revision {revision}, which its state claims to be the last"),
        }),
    }
}
