//! The keyspace's small state: what `meta` holds beside the rows.
//!
//! [`State`] is read when a database is opened, changed by apply, and written with every batch. It knows the
//! names in `meta`; it never touches keys or values.

use std::collections::BTreeSet;

use bytes::Bytes;

use crate::{
    LogPosition, StoreError,
    codec::{self, FORMAT, StateRow},
    kv::{Bounds, Family, View},
    state_hash::StateHash,
};

const STATE: &[u8] = b"state";
const MEMBERSHIP: &[u8] = b"membership";
const ALARM_PREFIX: &[u8] = b"alarm/";
pub const COMPACT_CURSOR: &[u8] = b"compact_cursor";

/// An alarm that is raised: its kind and the member it is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Alarm {
    pub kind: AlarmKind,
    pub member_id: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum AlarmKind {
    NoSpace,
    /// Members differ: see `CommandError::Corrupt`.
    Corrupt,
    /// A member's own files are damaged. It stops; those that are whole go on.
    Damaged,
}

impl AlarmKind {
    fn number(self) -> u8 {
        match self {
            AlarmKind::NoSpace => 1,
            AlarmKind::Corrupt => 2,
            AlarmKind::Damaged => 3,
        }
    }

    fn from_number(number: u8) -> Option<Self> {
        [AlarmKind::NoSpace, AlarmKind::Corrupt, AlarmKind::Damaged]
            .into_iter()
            .find(|kind| kind.number() == number)
    }
}

#[derive(Debug, Clone)]
pub struct State {
    pub revision: i64,
    pub compact_revision: i64,
    pub applied: Option<LogPosition>,
    pub membership: Option<(LogPosition, Bytes)>,
    pub alarms: BTreeSet<Alarm>,
    pub hash: StateHash,
}

impl State {
    /// Of an empty keyspace: revision 1 (contract line 10).
    pub fn empty() -> Self {
        Self {
            revision: 1,
            compact_revision: 0,
            applied: None,
            membership: None,
            alarms: BTreeSet::new(),
            hash: StateHash::default(),
        }
    }

    /// `None`: nothing was ever applied.
    pub fn load(view: &dyn View) -> Result<Option<Self>, StoreError> {
        let Some(row) = view.get(Family::Meta, STATE)? else {
            return if is_empty(view)? {
                Ok(None)
            } else {
                Err(without_state())
            };
        };
        let row = StateRow::decode(&row)?;
        let membership = match view.get(Family::Meta, MEMBERSHIP)? {
            Some(row) => {
                let ((term, index), body) = codec::decode_membership(&row)?;
                Some((LogPosition { term, index }, body))
            }
            None => None,
        };
        Ok(Some(Self {
            revision: row.revision as i64,
            compact_revision: row.compact_revision as i64,
            applied: row.applied.map(|(term, index)| LogPosition { term, index }),
            membership,
            alarms: load_alarms(view)?,
            hash: StateHash(row.state_hash),
        }))
    }

    pub fn row(&self) -> Result<(Bytes, Bytes), StoreError> {
        let row = StateRow {
            format: FORMAT,
            revision: self.revision as u64,
            compact_revision: self.compact_revision as u64,
            applied: self.applied.map(|at| (at.term, at.index)),
            state_hash: self.hash.0,
        };
        Ok((Bytes::from_static(STATE), row.encode()?))
    }

    pub fn has_alarm(&self, kind: AlarmKind) -> bool {
        self.alarms.iter().any(|alarm| alarm.kind == kind)
    }
}

pub fn membership_row(position: LogPosition, body: &[u8]) -> Result<(Bytes, Bytes), StoreError> {
    Ok((
        Bytes::from_static(MEMBERSHIP),
        codec::encode_membership((position.term, position.index), body)?,
    ))
}

pub fn alarm_key(alarm: Alarm) -> Bytes {
    let mut key = ALARM_PREFIX.to_vec();
    key.push(alarm.kind.number());
    key.extend_from_slice(&alarm.member_id.to_be_bytes());
    key.into()
}

fn load_alarms(view: &dyn View) -> Result<BTreeSet<Alarm>, StoreError> {
    let mut cursor = view.cursor(Family::Meta, Bounds::new(ALARM_PREFIX, Some(b"alarm0")))?;
    let mut alarms = BTreeSet::new();
    while let Some((row, _)) = cursor.row() {
        alarms.insert(split_alarm(row)?);
        cursor.advance()?;
    }
    Ok(alarms)
}

fn split_alarm(row: &[u8]) -> Result<Alarm, StoreError> {
    let parse = || {
        let (kind, member) = row[ALARM_PREFIX.len()..].split_first()?;
        Some(Alarm {
            kind: AlarmKind::from_number(*kind)?,
            member_id: u64::from_be_bytes(member.try_into().ok()?),
        })
    };
    parse().ok_or_else(|| StoreError::Corrupt {
        what: "alarm",
        detail: format!("{row:02x?}"),
    })
}

fn is_empty(view: &dyn View) -> Result<bool, StoreError> {
    for family in Family::ALL {
        if view.cursor(family, Bounds::ALL)?.row().is_some() {
            return Ok(false);
        }
    }
    Ok(true)
}

fn without_state() -> StoreError {
    StoreError::Corrupt {
        what: "database",
        detail: "it holds rows, but no state".to_owned(),
    }
}
