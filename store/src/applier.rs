//! The single writer: log entries in, one atomic batch per call, outcomes out.
//!
//! [`Applier`] owns the engine for writing. It carries entries through a [`Machine`], writes what that
//! gathered, and publishes view, head and events, in this order. Everything that must happen between two
//! batches is here too: flush, checkpoint, install, steps of physical compaction and of moving ended rows. It draws
//! no random numbers and reads no clock: what it does depends on the entries alone.

use std::{path::Path, sync::Arc};

use bytes::Bytes;

use crate::{
    Head, LogPosition, Outcome, Revision, StoreError,
    apply::{Bounded, Machine},
    compaction,
    counts::Counts,
    kv::{Batch, Bounds, Engine, Family, View},
    live::{self, Live},
    mover, planted,
    state::State,
    state_hash::{Mark, Trail},
    store::{Inner, Published},
};

/// A committed log entry as Raft hands it over.
#[derive(Debug, Clone)]
pub struct Entry {
    pub position: LogPosition,
    pub body: EntryBody,
}

#[derive(Debug, Clone)]
pub enum EntryBody {
    /// A new leader's first entry.
    Blank,
    /// An encoded `CommandBatch`.
    Commands(Bytes),
    /// Raft's membership, opaque here; the last one is kept with the state.
    Membership(Bytes),
}

pub struct Applier {
    engine: Arc<dyn Engine>,
    inner: Arc<Inner>,
    state: State,
    counts: Arc<Counts>,
    /// Rows of `cur` that a deletion has ended.
    ended: u64,
    /// Where the mover goes on.
    moved_to: Bytes,
    bounded: Bounded,
    flushed: Option<LogPosition>,
    epoch: u64,
}

/// What a checkpoint covers, as read from the checkpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checkpoint {
    pub applied: Option<LogPosition>,
    pub membership: Option<(LogPosition, Bytes)>,
}

/// An opened database: what its `meta` says, and its keys counted.
pub(crate) struct Opened {
    pub engine: Arc<dyn Engine>,
    pub view: Arc<dyn View>,
    pub state: State,
    pub counts: Arc<Counts>,
    pub ended: u64,
}

impl Opened {
    /// Reads the state; an empty database is given its first one.
    pub fn new(engine: Arc<dyn Engine>) -> Result<Self, StoreError> {
        let view = engine.view();
        match State::load(&*view)? {
            Some(state) => Self::with_state(engine, view, state),
            None => Self::with_state(engine, view, State::empty()),
        }
    }

    /// Of a copy, which must hold a state.
    fn installed(engine: Arc<dyn Engine>) -> Result<Self, StoreError> {
        let view = engine.view();
        let state = State::load(&*view)?;
        let state = state.ok_or_else(|| corrupt_copy("it holds no state"))?;
        let opened = Self::with_state(engine, view, state)?;
        compaction::check_log_end(&*opened.view, opened.state.revision)?;
        Ok(opened)
    }

    fn with_state(engine: Arc<dyn Engine>, view: Arc<dyn View>, state: State) -> Result<Self, StoreError> {
        let ended = live::count_ended(&*view)?;
        let live = Live {
            view: &*view,
            any_ended: ended > 0,
        };
        let counts = Arc::new(Counts::build(live)?);
        Ok(Self {
            engine,
            view,
            state,
            counts,
            ended,
        })
    }

    pub fn trail(&self) -> Trail {
        let applied = self.state.applied.map(|position| position.index);
        Trail::begin(applied, self.state.hash)
    }

    pub fn published(&self, epoch: u64) -> Published {
        Published {
            head: Arc::new(head(&self.state, epoch)),
            view: Arc::clone(&self.view),
            ended: self.ended,
            counts: Arc::clone(&self.counts),
            state_hash: self.state.hash,
            alarms: self.state.alarms.clone(),
        }
    }
}

impl Applier {
    pub(crate) fn new(opened: Opened, inner: Arc<Inner>) -> Self {
        let Opened {
            engine,
            state,
            counts,
            ended,
            ..
        } = opened;
        // What was found when it was opened is what had been flushed.
        let flushed = state.applied;
        Self {
            engine,
            inner,
            state,
            counts,
            ended,
            moved_to: Bytes::new(),
            bounded: Bounded::default(),
            flushed,
            epoch: 0,
        }
    }

    /// Applies entries in order as one atomic write (or several, each of whole entries, when they write much), publishes
    /// them, and returns each entry's outcomes (empty for anything but commands). An error means the member must stop.
    pub fn apply(&mut self, entries: &[Entry]) -> Result<Vec<Vec<Outcome>>, StoreError> {
        self.apply_for(entries, |_| true)
    }

    /// As [`Self::apply`]; outcomes of entries that are not `awaited` lack what their commands read.
    pub fn apply_for(
        &mut self,
        entries: &[Entry],
        awaited: impl Fn(&Entry) -> bool,
    ) -> Result<Vec<Vec<Outcome>>, StoreError> {
        let mut outcomes = Vec::with_capacity(entries.len());
        while outcomes.len() < entries.len() {
            let applied = self.apply_batch(&entries[outcomes.len()..], &awaited, &mut outcomes);
            applied.inspect_err(|error| self.inner.damage.note(error))?;
        }
        Ok(outcomes)
    }

    /// Applies at least one entry.
    fn apply_batch(
        &mut self,
        entries: &[Entry],
        awaited: &impl Fn(&Entry) -> bool,
        outcomes: &mut Vec<Vec<Outcome>>,
    ) -> Result<(), StoreError> {
        let base = self.engine.view();
        let counts = Arc::clone(&self.counts);
        let mut machine = Machine::new(base, counts, self.ended, self.state.clone(), self.bounded);
        let mut marks = Vec::with_capacity(entries.len());
        for entry in entries {
            outcomes.push(machine.entry(entry, awaited(entry))?);
            marks.push(Mark::new(entry.position.index, machine.state.hash));
            if machine.overlay.bytes() >= self.bounded.batch_bytes {
                break;
            }
        }
        self.write(machine, marks)
    }

    /// Writes what was gathered, and publishes it.
    fn write(&mut self, machine: Machine, marks: Vec<Mark>) -> Result<(), StoreError> {
        let Machine {
            mut overlay,
            mut counts,
            ended,
            state,
            changes,
            ..
        } = machine;
        let (key, row) = match planted("position-outside-batch") {
            true => self.state.row()?,
            false => state.row()?,
        };
        overlay.put(Family::Meta, key, row);
        self.engine.write(overlay.into_batch())?;
        let view = self.engine.view();
        if counts.is_crowded() {
            let live = Live {
                view: &*view,
                any_ended: ended > 0,
            };
            Arc::make_mut(&mut counts).rebalance(live)?;
        }
        self.state = state;
        self.counts = counts;
        self.ended = ended;
        self.inner.trail.lock().extend(marks);
        let published = self.published(view);
        let head = Arc::clone(&published.head);
        self.inner
            .hub
            .publish(head, changes, || self.inner.publish(published));
        Ok(())
    }

    fn published(&self, view: Arc<dyn View>) -> Published {
        Published {
            head: Arc::new(head(&self.state, self.epoch)),
            view,
            ended: self.ended,
            counts: Arc::clone(&self.counts),
            state_hash: self.state.hash,
            alarms: self.state.alarms.clone(),
        }
    }

    /// The last applied entry and the last applied membership, as in the state (flushed or not).
    pub fn applied(&self) -> Option<LogPosition> {
        self.state.applied
    }

    pub fn membership(&self) -> Option<(LogPosition, Bytes)> {
        self.state.membership.clone()
    }

    /// Removes what interrupted starts and installs left in the data directory. To be called once after opening, when
    /// the log was found to reach back to [`Self::applied`]: before, a leftover may be all that there is of the data.
    pub fn clear_leftovers(&mut self) -> Result<(), StoreError> {
        self.engine.clear_leftovers()
    }

    /// Makes everything applied durable; returns the position that the durable state covers.
    pub fn flush(&mut self) -> Result<Option<LogPosition>, StoreError> {
        let flushed = self.engine.flush();
        flushed.inspect_err(|error| self.inner.damage.note(error))?;
        self.flushed = self.state.applied;
        Ok(self.flushed)
    }

    /// The position that the durable state covers; the log may be purged up to it.
    pub fn flushed(&self) -> Option<LogPosition> {
        self.flushed
    }

    /// Writes a flushed, self-contained copy of the whole state into `dir` (hard links where possible), and
    /// returns the position and membership read from that copy. `dir` must not exist; the one above it must.
    pub fn checkpoint(&mut self, dir: &Path) -> Result<Checkpoint, StoreError> {
        if planted("snapshot-metadata-first") {
            self.write_position(self.flushed)?;
        }
        self.engine.checkpoint(dir)?;
        if planted("snapshot-metadata-first") {
            self.write_position(self.state.applied)?;
        }
        let view = self.engine.open_checkpoint(dir)?;
        let state = State::load(&*view)?.unwrap_or_else(State::empty);
        // A copy is made of what is durable.
        self.flushed = state.applied;
        Ok(Checkpoint {
            applied: state.applied,
            membership: state.membership,
        })
    }

    /// See `snapshot-metadata-first` among the planted bugs.
    fn write_position(&self, applied: Option<LogPosition>) -> Result<(), StoreError> {
        let state = State {
            applied,
            ..self.state.clone()
        };
        let (key, row) = state.row()?;
        let mut batch = Batch::default();
        batch.put(Family::Meta, key, row);
        self.engine.write(batch)
    }

    /// Replaces the whole state by the copy in `dir`, which was written by [`Self::checkpoint`] on another
    /// member; `dir` is taken over. Every block of it is verified first, then it is made current by renaming a pointer
    /// file and syncing the directory. After an error the old state is still the one in use; the next start finds one of
    /// the two, whole. A damaged copy is [`StoreError::Corrupt`], and stays where it is for its owner to remove.
    pub fn install(&mut self, dir: &Path) -> Result<(), StoreError> {
        self.engine.verify_copy(dir, &mut |_| true)?;
        let staged = self.engine.stage(dir)?;
        if planted("snapshot-misses-family") {
            lose_lease_keys(&*staged)?;
        }
        if planted("row-lost-in-snapshot") {
            lose_superseded(&*staged)?;
        }
        let opened = Opened::installed(Arc::clone(&staged)).inspect_err(|_| staged.retire())?;
        // It must outlive an error here: the pointer may name it by then.
        staged.make_current()?;
        let trail = opened.trail();
        let replaced = std::mem::replace(&mut self.engine, opened.engine);
        replaced.retire();
        self.inner.replace_engine(Arc::clone(&self.engine));
        self.epoch += 1;
        *self.inner.trail.lock() = trail;
        self.flushed = opened.state.applied;
        self.state = opened.state;
        self.counts = opened.counts;
        self.ended = opened.ended;
        self.moved_to = Bytes::new();
        let published = self.published(opened.view);
        let head = Arc::clone(&published.head);
        self.inner.hub.reset(head, || self.inner.publish(published));
        Ok(())
    }

    /// Physically removes some of what compaction made unreachable; `true` while there is more to do.
    pub fn compact_step(&mut self) -> Result<bool, StoreError> {
        let any_ended = self.ended > 0;
        let step = compaction::step(&*self.engine, self.state.compact_revision, any_ended);
        let (step, ended) = step.inspect_err(|error| self.inner.damage.note(error))?;
        self.no_longer_ended(ended);
        if step == compaction::Step::Finished {
            // An idle store would pin what was removed until the next apply.
            self.inner.publish(self.published(self.engine.view()));
        }
        Ok(step == compaction::Step::More)
    }

    /// Physically moves some of the rows that deletions have ended; `true` while there is more to do.
    pub fn move_step(&mut self) -> Result<bool, StoreError> {
        self.move_some(mover::STEP_ROWS)
    }

    /// As [`Self::move_step`], of so many rows at most.
    pub fn move_some(&mut self, rows: usize) -> Result<bool, StoreError> {
        if self.ended == 0 {
            return Ok(false);
        }
        let step = mover::step(&*self.engine, self.state.compact_revision, &self.moved_to, rows)?;
        if step.moved == 0 && self.moved_to.is_empty() {
            return Err(StoreError::Corrupt {
                what: "ended rows",
                detail: format!("{} are counted, none is there", self.ended),
            });
        }
        // Later deletions may lie before; they are met in the next round.
        self.moved_to = step.next.unwrap_or_default();
        self.no_longer_ended(step.moved);
        if self.ended == 0 {
            self.inner.publish(self.published(self.engine.view()));
        }
        Ok(self.ended > 0)
    }

    fn no_longer_ended(&mut self, rows: u64) {
        let left = self.ended.checked_sub(rows);
        self.ended = left.expect("no more ended rows are moved than there are");
    }

    /// Whether there is something for [`Self::move_step`].
    pub fn has_ended_rows(&self) -> bool {
        self.ended > 0
    }

    #[cfg(test)]
    pub(crate) fn bound(&mut self, bounded: Bounded) {
        self.bounded = bounded;
    }

    /// How many bytes of deleted rows one apply moves itself instead of leaving them to [`Self::move_step`]; reads,
    /// events and hashes are the same whatever it is.
    pub fn move_at_once(&mut self, bytes: usize) {
        self.bounded.move_at_once = bytes;
    }
}

fn head(state: &State, epoch: u64) -> Head {
    Head {
        revision: Revision(state.revision),
        compact_revision: Revision(state.compact_revision),
        applied: state.applied,
        epoch,
    }
}

/// See `snapshot-misses-family` among the planted bugs.
/// Planted: the newest superseded version of the last key that has one.
fn lose_superseded(engine: &dyn Engine) -> Result<(), StoreError> {
    let last = engine.view().floor(Family::Hist, &[], &[0xff; 8])?;
    let mut batch = Batch::default();
    last.into_iter()
        .for_each(|(key, _)| batch.delete(Family::Hist, key));
    engine.write(batch)?;
    engine.flush()
}

fn lose_lease_keys(engine: &dyn Engine) -> Result<(), StoreError> {
    let mut batch = Batch::default();
    let view = engine.view();
    let mut rows = view.cursor(Family::LeaseKey, Bounds::ALL)?;
    while let Some((key, _)) = rows.row() {
        batch.delete(Family::LeaseKey, Bytes::copy_from_slice(key));
        rows.advance()?;
    }
    engine.write(batch)
}

pub(crate) fn corrupt_copy(detail: &str) -> StoreError {
    StoreError::Corrupt {
        what: "copy",
        detail: detail.to_owned(),
    }
}
