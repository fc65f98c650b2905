//! Applying commands: the deterministic part, without engine, hub or files.
//!
//! [`Machine`] carries one call's entries through: it reads and writes an [`Overlay`], gives each command its
//! outcome, and gathers the changes to be published. A command that is refused leaves no trace. One file per
//! kind of command.

mod alarm;
mod change;
mod compact;
mod compare;
mod delete_range;
mod doomed;
mod lease;
mod put;
#[cfg(test)]
mod tests;
mod txn;

use std::{collections::HashMap, sync::Arc};

use barque_proto::command::{Command, CommandBatch, command::Op};
use bytes::Bytes;
use prost::Message;

use self::doomed::{Bill, Limits};
use crate::{
    CommandError, Entry, EntryBody, LogPosition, Outcome, ReadError, Response, Revision, StoreError,
    counts::Counts,
    kv::{Family, View},
    live::Live,
    overlay::Overlay,
    read::Keyspace,
    state::{self, State},
    state_hash::EntryHash,
    watch::{Changes, Event, EventKind, Previous},
};

/// The newest cluster version whose commands this program knows: major << 16 | minor.
const KNOWN_VERSION: u32 = 1;

/// Why a command was not carried out.
enum Refusal {
    /// Part of the outcome: every member refuses alike.
    Command(CommandError),
    /// The command says something that this program does not understand.
    Unknown,
    Store(StoreError),
}

impl From<CommandError> for Refusal {
    fn from(error: CommandError) -> Self {
        Refusal::Command(error)
    }
}

impl From<StoreError> for Refusal {
    fn from(error: StoreError) -> Self {
        Refusal::Store(error)
    }
}

impl From<ReadError> for Refusal {
    fn from(error: ReadError) -> Self {
        match error {
            ReadError::Compacted { compact_revision } => CommandError::Compacted { compact_revision }.into(),
            ReadError::FutureRevision => CommandError::FutureRevision.into(),
            ReadError::Store(error) => error.into(),
        }
    }
}

type Applied<T> = Result<T, Refusal>;

pub struct Machine {
    pub overlay: Overlay,
    pub counts: Arc<Counts>,
    /// Rows of `cur` that a deletion has ended.
    pub ended: u64,
    pub state: State,
    /// One per main revision.
    pub changes: Vec<Arc<Changes>>,
    /// Whether somebody waits for the outcomes of the entry under way.
    awaited: bool,
    /// Bytes of deleted rows that may still be moved at once.
    may_move: usize,
    limits: Limits,
    command: CommandUnderWay,
    hash: EntryHash,
}

/// What has to be kept or undone when the command ends.
#[derive(Default)]
struct CommandUnderWay {
    changes: Vec<Event>,
    bill: Bill,
    /// Of keys changed by a txn, the version before it; other commands change a key once.
    before_txn: Option<HashMap<Bytes, Previous>>,
    /// Of a command that may be refused after it has written: how it was before, beside what the overlay remembers.
    before: Option<Before>,
}

struct Before {
    ended: u64,
    hash: EntryHash,
}

/// What one call of apply may take.
#[derive(Debug, Clone, Copy)]
pub struct Bounded {
    /// The same on every member: they decide what is refused.
    pub limits: Limits,
    /// Bytes of deleted rows that are moved from `cur` to `hist` at once; what is beyond is left to the mover. Most
    /// applies delete little, and then readers have nothing to pass over.
    pub move_at_once: usize,
    /// What one batch writes at most, its last entry aside.
    pub batch_bytes: usize,
}

impl Default for Bounded {
    fn default() -> Self {
        Self {
            limits: Limits::default(),
            move_at_once: 256 << 10,
            batch_bytes: 64 << 20,
        }
    }
}

impl Machine {
    pub fn new(view: Arc<dyn View>, counts: Arc<Counts>, ended: u64, state: State, bounded: Bounded) -> Self {
        let hash = EntryHash::new(state.hash);
        Self {
            overlay: Overlay::new(view),
            counts,
            ended,
            state,
            changes: Vec::new(),
            awaited: true,
            may_move: bounded.move_at_once,
            limits: bounded.limits,
            command: CommandUnderWay::default(),
            hash,
        }
    }

    /// The outcomes of the entry's commands; without what they read, unless it is `awaited`.
    pub fn entry(&mut self, entry: &Entry, awaited: bool) -> Result<Vec<Outcome>, StoreError> {
        self.awaited = awaited;
        let follows = self
            .state
            .applied
            .is_none_or(|last| last.index < entry.position.index);
        assert!(
            follows,
            "entry {:?} after {:?}",
            entry.position, self.state.applied
        );
        let outcomes = match &entry.body {
            EntryBody::Blank => Vec::new(),
            EntryBody::Membership(body) => {
                let body = Bytes::copy_from_slice(body);
                let (key, row) = state::membership_row(entry.position, &body)?;
                self.overlay.put(Family::Meta, key, row);
                self.state.membership = Some((entry.position, body));
                Vec::new()
            }
            EntryBody::Commands(body) => self.commands(entry.position, body)?,
        };
        self.overlay.keep();
        self.state.applied = Some(entry.position);
        Ok(outcomes)
    }

    fn commands(&mut self, position: LogPosition, body: &Bytes) -> Result<Vec<Outcome>, StoreError> {
        let batch = CommandBatch::decode(body.clone()).map_err(|error| StoreError::Corrupt {
            what: "log entry",
            detail: format!("{}: {error}", position.index),
        })?;
        self.hash = EntryHash::new(self.state.hash);
        let outcomes = batch
            .commands
            .iter()
            .map(|command| self.command(position, command))
            .collect();
        let hash = std::mem::replace(&mut self.hash, EntryHash::new(self.state.hash));
        self.state.hash = hash.finish();
        outcomes
    }

    fn command(&mut self, position: LogPosition, command: &Command) -> Result<Outcome, StoreError> {
        match self.dispatch(position, command) {
            Ok(response) => {
                self.keep();
                Ok(Ok(response))
            }
            Err(Refusal::Command(error)) => {
                self.undo();
                Ok(Err(error))
            }
            Err(Refusal::Unknown) => Err(StoreError::UnknownCommand {
                index: position.index,
            }),
            Err(Refusal::Store(error)) => Err(error),
        }
    }

    fn dispatch(&mut self, position: LogPosition, command: &Command) -> Applied<Response> {
        if command.since_version > KNOWN_VERSION {
            return Err(Refusal::Unknown);
        }
        if command.fence_term != 0 && command.fence_term != position.term {
            return Err(CommandError::FencedOut.into());
        }
        let op = command.op.as_ref().ok_or(Refusal::Unknown)?;
        self.check_not_corrupt(op)?;
        match op {
            Op::Put(put) => {
                self.check_space()?;
                self.put(put).map(Response::Put)
            }
            Op::DeleteRange(delete) => self.delete_range(delete).map(Response::DeleteRange),
            Op::Txn(txn) => self.txn(txn).map(Response::Txn),
            Op::Compact(compact) => self.compact(compact),
            Op::LeaseGrant(grant) => self.lease_grant(grant).map(Response::LeaseGrant),
            Op::LeaseRevoke(revoke) => self.lease_revoke(revoke),
            Op::LeaseCheckpoint(checkpoint) => self.lease_checkpoint(checkpoint),
            Op::Alarm(alarm) => self.alarm(alarm),
        }
    }

    /// Ends a command that succeeded: its changes become a main revision.
    fn keep(&mut self) {
        let command = std::mem::take(&mut self.command);
        self.overlay.keep();
        if command.changes.is_empty() {
            return;
        }
        self.state.revision += 1;
        self.changes.push(Arc::new(Changes {
            revision: Revision(self.state.revision),
            events: command.changes,
        }));
    }

    /// The command under way may be refused after it has written. Others are refused before.
    fn remember(&mut self) {
        self.overlay.remember();
        self.command.before_txn = Some(HashMap::new());
        self.command.before = Some(Before {
            ended: self.ended,
            hash: self.hash.clone(),
        });
    }

    fn undo(&mut self) {
        let command = std::mem::take(&mut self.command);
        self.overlay.undo();
        let Some(before) = command.before else { return };
        self.ended = before.ended;
        self.hash = before.hash;
        for event in command.changes.iter().rev() {
            match event.kind {
                EventKind::Put if event.kv.version == 1 => self.recount(&event.kv.key, false),
                EventKind::Put => {}
                EventKind::Delete => self.recount(&event.kv.key, true),
            }
        }
    }

    fn recount(&mut self, key: &[u8], came: bool) {
        let counts = Arc::make_mut(&mut self.counts);
        if came {
            counts.insert(key)
        } else {
            counts.remove(key)
        }
    }

    /// The revision that a response carries at this point of the command.
    fn revision_now(&self) -> i64 {
        self.state.revision + i64::from(!self.command.changes.is_empty())
    }

    fn live(&self) -> Live<'_> {
        self.keyspace().live()
    }

    fn keyspace(&self) -> Keyspace<'_> {
        Keyspace {
            view: &self.overlay,
            any_ended: self.ended > 0,
            counts: &self.counts,
            revision: self.revision_now(),
            committed: self.state.revision,
            compact_revision: self.state.compact_revision,
        }
    }
}
