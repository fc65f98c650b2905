//! What this member remembers of the others: `member/peers.json`, and what the membership says.
//!
//! Of each member the file holds its incarnation (which data directory may speak under the ID), the last start of it that
//! was heard of, whether it has lost entries that it had acknowledged, and whether it has left the cluster. Everything is
//! durable before it counts.
//!
//! A **start** tells a data directory from an older copy of itself. Each start raises a counter in `identity.json`, durably,
//! before anybody is spoken to, and draws a random number for this life. Worked example, seen from a peer:
//!
//! ```text
//! c says   (start 4, life 70)   never heard of: noted
//! c says   (start 4, life 70)   the same life goes on
//! c says   (start 5, life 81)   a restart: noted
//! c says   (start 5, life 92)   refused: a copy of c's directory from before start 5 was put back and started, which
//!                               counted from 4 to 5 as well. c had voted and acknowledged in life 81
//! c says   (start 4, life 70)   refused: the copy is older still; or a message of an earlier life that was under way
//! c says   (start 6, life 95)   refused, though the counter grew: the copy was started once while nobody heard of it. It
//!                               shows the lives that it had, and (start 5, life 81) is none of them
//! ```
//!
//! So a member shows its last [`LIVES`] lives beside the one under way. Of a peer that has not heard of it for longer than
//! that it is believed if its counter grew: it may have restarted that often meanwhile.
//!
//! IDs never come back: a member that is added anew gets another one.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    path::{Path, PathBuf},
};

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::{
    planted,
    refusal::{Refusal, Why},
    sealed::{self, Found, hex},
    types::Start,
};

/// Members that are remembered. Far more than a cluster ever has; of those that have left, the first to go.
const KNOWN_MAX: usize = 1000;

/// Lives that a member shows: the one under way, and those before it.
pub const LIVES: usize = 32;

/// What a member says of itself on each call and each reply.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Told<'a> {
    pub incarnation: u64,
    /// A program that does not count its starts says none.
    pub start: Option<Start>,
    /// Its last lives, in the form of [`past`].
    pub past: &'a str,
}

/// As lives are shown: `number-life` of each in hexadecimal, with commas between.
pub fn past(lives: &[Start]) -> String {
    let shown: Vec<String> = lives
        .iter()
        .map(|Start { number, life }| format!("{number:x}-{life:x}"))
        .collect();
    shown.join(",")
}

pub fn parse_start(text: &str) -> Option<Start> {
    let (number, life) = text.split_once('-')?;
    Some(Start {
        number: u64::from_str_radix(number, 16).ok()?,
        life: u64::from_str_radix(life, 16).ok()?,
    })
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Noted {
    #[serde(with = "hex")]
    member_id: u64,
    /// 0: the member has not told it yet.
    #[serde(with = "hex")]
    incarnation: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    start: Option<Start>,
    /// Acknowledged entries that it had lost, as this member saw when it led.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    lost: Option<Lost>,
    /// A committed membership has had it.
    #[serde(default)]
    was_member: bool,
    /// The index of the committed membership that has it no more; 0: none.
    #[serde(default)]
    left_at: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Lost {
    acknowledged: u64,
    missing: u64,
}

impl Noted {
    fn of(member_id: u64) -> Self {
        Self {
            member_id,
            incarnation: 0,
            start: None,
            lost: None,
            was_member: false,
            left_at: 0,
        }
    }
}

/// The content of `member/peers.json`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Notes {
    peers: Vec<Noted>,
    /// Index of the last committed membership that is in here. Memberships before it say nothing new: after a restart the
    /// log is applied again.
    membership_at: u64,
}

impl Notes {
    fn get(&self, member_id: u64) -> Option<&Noted> {
        self.peers.iter().find(|noted| noted.member_id == member_id)
    }

    fn entry(&mut self, member_id: u64) -> &mut Noted {
        let at = self.peers.iter().position(|noted| noted.member_id == member_id);
        let at = at.unwrap_or_else(|| {
            self.peers.push(Noted::of(member_id));
            self.peers.len() - 1
        });
        &mut self.peers[at]
    }

    /// Forgets those that left first.
    fn bound(&mut self) -> io::Result<()> {
        while self.peers.len() > KNOWN_MAX {
            let gone = self
                .peers
                .iter()
                .enumerate()
                .filter(|(_, noted)| noted.left_at > 0);
            let Some((oldest, _)) = gone.min_by_key(|(_, noted)| noted.left_at) else {
                return Err(io::Error::other(format!("{KNOWN_MAX} members are known already")));
            };
            self.peers.remove(oldest);
        }
        Ok(())
    }
}

/// Who belongs here. Of anybody else nothing is remembered, so that no stranger fills the file.
#[derive(Debug, Default)]
struct Roster {
    /// What the membership says; it wins over what was seen first.
    incarnations: BTreeMap<u64, u64>,
    /// In the membership, committed or not. Empty until there is one.
    members: BTreeSet<u64>,
    /// Those of `--initial-cluster`, who introduce themselves before there is a membership.
    founders: BTreeSet<u64>,
}

impl Roster {
    fn has(&self, member_id: u64) -> bool {
        match self.members.is_empty() {
            true => self.founders.contains(&member_id),
            false => self.members.contains(&member_id),
        }
    }
}

#[derive(Debug)]
pub struct KnownPeers {
    path: PathBuf,
    notes: Mutex<Notes>,
    roster: Mutex<Roster>,
}

impl KnownPeers {
    /// As at the very first start: an empty file, durable.
    pub fn create(member_dir: &Path) -> io::Result<()> {
        sealed::save(&Self::path(member_dir), &Notes::default())
    }

    /// `None`: there is no file. One of format 1 is read only if it `may_be_old`.
    pub fn load(member_dir: &Path, may_be_old: bool) -> io::Result<Option<Self>> {
        let path = Self::path(member_dir);
        let unsealed = |value| of_format_1(value).filter(|_| may_be_old);
        let notes: Option<Found<Notes>> = sealed::load(&path, unsealed)?;
        // Before the identity says that its starts are counted: from then on format 1 is damage.
        if let Some(Found::Unsealed(notes)) = &notes {
            sealed::save(&path, notes)?;
        }
        Ok(notes.map(|notes| Self {
            path,
            notes: Mutex::new(notes.into_inner()),
            roster: Mutex::default(),
        }))
    }

    pub fn path(member_dir: &Path) -> PathBuf {
        member_dir.join("peers.json")
    }

    /// Those that may introduce themselves before there is a membership.
    pub fn expect(&self, founders: impl IntoIterator<Item = u64>) {
        self.roster.lock().founders.extend(founders);
    }

    pub fn incarnation_of(&self, member_id: u64) -> Option<u64> {
        let bound = self.roster.lock().incarnations.get(&member_id).copied();
        let noted = || self.notes.lock().get(member_id).map(|noted| noted.incarnation);
        bound.or_else(noted).filter(|incarnation| *incarnation != 0)
    }

    /// The membership says so. It need not be remembered here: the log does.
    pub fn bind(&self, member_id: u64, incarnation: u64) {
        if incarnation != 0 {
            self.roster.lock().incarnations.insert(member_id, incarnation);
        }
    }

    /// The newest membership, committed or not, as it is before anybody is answered.
    pub fn enlist(&self, members: impl IntoIterator<Item = u64>) {
        self.roster.lock().members.extend(members);
    }

    /// Whether this is the member that is known under its ID. What is new of a member is durable when this returns.
    pub fn check(&self, member_id: u64, told: Told) -> io::Result<Result<(), Refusal>> {
        let refused = |why| Ok(Err(Refusal { member_id, why }));
        let (bound, belongs) = {
            let roster = self.roster.lock();
            (
                roster.incarnations.get(&member_id).copied(),
                roster.has(member_id),
            )
        };
        let mut notes = self.notes.lock();
        let noted = notes.get(member_id).copied().unwrap_or(Noted::of(member_id));
        if noted.left_at > 0 {
            return refused(Why::Removed);
        }
        let known = bound.unwrap_or(noted.incarnation);
        let is_wiped = known != 0 && known != told.incarnation;
        if is_wiped && !planted("wiped-voter-votes") {
            return refused(Why::Wiped);
        }
        // Of another incarnation, which the membership did not choose.
        let is_of_it = noted.incarnation == told.incarnation;
        if let Some(lost) = noted.lost.filter(|_| is_of_it) {
            return refused(lost.why());
        }
        let seen = noted.start.filter(|_| is_of_it);
        if let Some(why) = older_copy(seen, told).filter(|_| !planted("older-copy-votes")) {
            return refused(why);
        }
        let is_news = !is_of_it || told.start.is_some_and(|told| seen != Some(told));
        if is_news && belongs && !is_wiped {
            let mut changed = notes.clone();
            *changed.entry(member_id) = Noted {
                incarnation: told.incarnation,
                start: told.start.or(seen),
                lost: None,
                ..noted
            };
            self.save(&mut notes, changed)?;
        }
        Ok(Ok(()))
    }

    /// The member has lost entries that it had acknowledged: from now on it is refused, after a restart too.
    pub fn note_lost(&self, member_id: u64, acknowledged: u64, missing: u64) -> io::Result<Refusal> {
        let lost = Lost {
            acknowledged,
            missing,
        };
        let incarnation = self.incarnation_of(member_id).unwrap_or(0);
        let mut notes = self.notes.lock();
        let mut changed = notes.clone();
        let entry = changed.entry(member_id);
        entry.incarnation = incarnation;
        let lost = *entry.lost.get_or_insert(lost);
        self.save(&mut notes, changed)?;
        Ok(Refusal {
            member_id,
            why: lost.why(),
        })
    }

    /// The membership that is committed at `index`: who was in one and is in it no more has left, for good. `effective`
    /// is the newest membership, committed or not.
    pub fn note_membership(
        &self,
        index: u64,
        committed: &BTreeSet<u64>,
        effective: &BTreeSet<u64>,
    ) -> io::Result<()> {
        self.roster.lock().members = committed | effective;
        let mut notes = self.notes.lock();
        if committed.is_empty() || index <= notes.membership_at {
            return Ok(());
        }
        let mut changed = notes.clone();
        changed.membership_at = index;
        for member_id in committed {
            changed.entry(*member_id).was_member = true;
        }
        for noted in &mut changed.peers {
            if noted.was_member && noted.left_at == 0 && !committed.contains(&noted.member_id) {
                noted.left_at = index;
            }
        }
        self.save(&mut notes, changed)
    }

    fn save(&self, notes: &mut Notes, mut changed: Notes) -> io::Result<()> {
        changed.bound()?;
        sealed::save(&self.path, &changed)?;
        *notes = changed;
        Ok(())
    }
}

impl Lost {
    fn why(self) -> Why {
        Why::LostEntries {
            acknowledged: self.acknowledged,
            missing: self.missing,
        }
    }
}

/// A counter that falls, or does not grow though the life is another; or a past in which another life had the number.
fn older_copy(seen: Option<Start>, told: Told) -> Option<Why> {
    let (seen, now) = (seen?, told.start?);
    if now == seen {
        return None;
    }
    let had_another = || {
        let past = told.past.split(',').take(LIVES).filter_map(parse_start);
        past.into_iter()
            .any(|life| life.number == seen.number && life.life != seen.life)
    };
    let is_older = now.number <= seen.number || had_another();
    is_older.then_some(Why::OlderCopy {
        seen: seen.number,
        told: now.number,
    })
}

/// A list of IDs and incarnations.
fn of_format_1(value: Value) -> Option<Map<String, Value>> {
    value.is_array().then(|| {
        Map::from_iter([
            ("peers".to_owned(), value),
            ("membership_at".to_owned(), 0.into()),
        ])
    })
}

#[cfg(test)]
#[path = "known_peers_tests.rs"]
mod tests;
