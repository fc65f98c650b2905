//! A contradiction made small enough to be looked at: [`minimal`].
//!
//! Taking an operation out of a history is not free: a read of a value that nobody writes any more is a contradiction of
//! another kind. So operations are not taken out but *weakened*, in two steps: first an operation says nothing of what it
//! saw, then a write becomes one that may or may not have happened (of a txn the branch that its answer names). If the
//! whole history had an order, the weakened one would have it too; so what is still without an order contradicts itself,
//! whether the rest happened or not.

use serde::{Deserialize, Serialize};

use crate::{
    history::History,
    linearizability::values::{self, Entry, Found, reduce, search},
    model::Evidence,
};

/// Steps of one search while shrinking. A search that does not end counts as one that found an order.
const STEPS_PER_SEARCH: u64 = 400_000;

/// What it costs to copy an entry, in steps.
const STEPS_PER_ENTRY: u64 = 4;

/// Operations that cannot be put in order.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Minimal {
    pub keys: Vec<String>,
    /// Indices of those that contradict each other.
    pub operations: Vec<usize>,
    /// Indices of writes that may or may not have happened, which makes no difference.
    pub supporting: Vec<usize>,
}

impl Minimal {
    /// Both kinds, in the order of the history.
    pub fn all(&self) -> Vec<usize> {
        let mut all: Vec<usize> = self.operations.iter().chain(&self.supporting).copied().collect();
        all.sort_unstable();
        all.dedup();
        all
    }
}

/// The smallest contradiction that can be found within bounds; `None`: the history can be put in order by its values, or
/// the search did not end.
pub fn minimal(history: &History) -> Option<Minimal> {
    values::smallest(&Evidence::new(history))
}

/// What is left of an entry that has to be in the order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Level {
    /// It may have written, if it writes.
    Optional,
    /// It has written, or may have if that is not known.
    Muted,
    Whole,
}

/// Delta debugging: first as few as possible say what they saw, then as few as possible must have happened; at last what
/// may have happened may have done so whatever it asked for.
pub(crate) fn shrink(entries: &[Entry], width: usize, keys: Vec<String>, steps: &mut u64) -> Minimal {
    let mut shrinking = Shrinking {
        entries,
        width,
        levels: vec![Level::Whole; entries.len()],
        steps,
    };
    let (optional, required): (Vec<usize>, Vec<usize>) =
        (0..entries.len()).partition(|at| entries[*at].is_optional());
    if width > 1 || shrinking.single_out().is_none() {
        shrinking.lower(required.clone(), Level::Muted);
    }
    shrinking.lower(required, Level::Optional);
    shrinking.lower(optional, Level::Muted);
    shrinking.told(keys)
}

/// An entry whose answer alone contradicts the writes of all others; a much easier question than whether there is an
/// order that explains all answers.
pub(crate) fn one_against_all(entries: &[Entry], width: usize, steps: &mut u64) -> Option<usize> {
    let levels = vec![Level::Whole; entries.len()];
    let mut shrinking = Shrinking {
        entries,
        width,
        levels,
        steps,
    };
    shrinking.single_out()
}

struct Shrinking<'s> {
    entries: &'s [Entry],
    width: usize,
    levels: Vec<Level>,
    steps: &'s mut u64,
}

impl Shrinking<'_> {
    /// Mutes all but one entry, if one is found that still contradicts.
    fn single_out(&mut self) -> Option<usize> {
        let kept = self.levels.clone();
        for at in 0..self.entries.len() {
            let says = self.entries[at].says_something() && !self.entries[at].is_optional();
            if !says {
                continue;
            }
            self.levels = vec![Level::Muted; self.entries.len()];
            self.levels[at] = Level::Whole;
            if self.contradicts() {
                return Some(at);
            }
        }
        self.levels = kept;
        None
    }

    /// In halves, quarters, and so on down to single ones, as long as the contradiction stays.
    fn lower(&mut self, mut above: Vec<usize>, level: Level) {
        let mut chunk = above.len().div_ceil(2).max(1);
        loop {
            let before = above.len();
            let mut at = 0;
            while at < above.len() {
                let end = (at + chunk).min(above.len());
                if self.try_lower(&above[at..end], level) {
                    above.drain(at..end);
                } else {
                    at = end;
                }
            }
            if chunk == 1 && (above.len() == before || *self.steps == 0) {
                return;
            }
            chunk = (chunk / 2).max(1);
        }
    }

    fn try_lower(&mut self, some: &[usize], level: Level) -> bool {
        let kept = self.levels.clone();
        for at in some {
            self.levels[*at] = level.min(self.levels[*at]);
        }
        // What nobody says or does any more is lowered without a search.
        let contradicts = self.levels == kept || self.contradicts();
        if !contradicts {
            self.levels = kept;
        }
        contradicts
    }

    fn contradicts(&mut self) -> bool {
        // Going over all of them costs something however few remain.
        let Some(left) = self.steps.checked_sub(self.entries.len() as u64) else {
            *self.steps = 0;
            return false;
        };
        *self.steps = left;
        let entries = self.remaining();
        let Some(left) = self.steps.checked_sub(entries.len() as u64 * STEPS_PER_ENTRY) else {
            *self.steps = 0;
            return false;
        };
        let given = left.min(STEPS_PER_SEARCH);
        let mut of_this = given;
        let found = search(&entries, self.width, &mut of_this);
        *self.steps = left - (given - of_this);
        matches!(found, Found::Nothing { .. })
    }

    fn remaining(&self) -> Vec<Entry> {
        let weakened = self
            .entries
            .iter()
            .zip(&self.levels)
            .filter_map(|(entry, level)| match level {
                Level::Whole => Some(entry.clone()),
                Level::Muted => entry.only_writes(entry.ret),
                Level::Optional => entry.only_writes(None),
            });
        reduce(weakened.collect())
    }

    fn told(&self, keys: Vec<String>) -> Minimal {
        let still = |at: &usize| match self.levels[*at] {
            Level::Whole => true,
            Level::Muted => self.entries[*at].only_writes(None).is_some(),
            Level::Optional => false,
        };
        let required = (0..self.entries.len()).filter(|at| !self.entries[*at].is_optional());
        let mut operations: Vec<usize> = required
            .filter(still)
            .map(|at| self.entries[at].operation)
            .collect();
        let mut supporting: Vec<usize> = self.remaining().iter().map(|entry| entry.operation).collect();
        supporting.retain(|operation| !operations.contains(operation));
        for indices in [&mut operations, &mut supporting] {
            indices.sort_unstable();
            indices.dedup();
        }
        Minimal {
            keys,
            operations,
            supporting,
        }
    }
}
