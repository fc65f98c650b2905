//! Linearizability judged by values alone: is there any order that explains the answers?
//!
//! Wing and Gong's search with Lowe's memory of states that were tried. Revisions decide nothing here; those that the
//! answers carry only say which operation to try first, so that a history that is right is walked once, without going
//! back. A `mod_revision` is taken as a name of the version that it was read with.
//!
//! Linearizability is local to keys. Each key is looked at by itself, with what txns and ranges say about it; then the
//! groups of keys that txns and ranges tie together are looked at as a whole.

mod alike;
mod compile;
mod entry;
mod groups;
mod names;
mod project;
mod reduce;
mod search;

pub(crate) use entry::Entry;
pub(crate) use reduce::reduce;
pub(crate) use search::{Found, search};

use crate::{
    minimal::{self, Minimal},
    model::Evidence,
    verdict::{Check, Findings, Violation},
};
use compile::{Compiled, compile};
use groups::Groups;

/// Steps of all searches of one check together.
const STEPS: u64 = 5_000_000;
/// Steps for making the contradictions that were found smaller.
const SHRINKING_STEPS: u64 = 10_000_000;
/// Contradictions that are made smaller; the others are told as they were found.
const MAX_SHRUNK: usize = 3;

pub(crate) fn check(evidence: &Evidence<'_>) -> Check {
    let mut findings = Findings::new("linearizable by values");
    let compiled = compile(evidence);
    findings.count(compiled.entries.len());
    if compiled.loosened > 0 {
        findings.undecided(format!("{} txns have too many branches", compiled.loosened));
    }
    let mut steps = STEPS;
    let contradictions = contradictions(&compiled, &mut steps, &mut findings);
    let mut shrinking = SHRINKING_STEPS;
    for (at, contradiction) in contradictions.iter().enumerate() {
        let operation = &evidence.history.operations[contradiction.stuck];
        let keys = some_of(&contradiction.keys);
        let text = format!(
            "no order of the operations on {keys} explains their answers; at the latest: {operation}"
        );
        let operations = match at < MAX_SHRUNK {
            true => contradiction.shrink(&mut shrinking).all(),
            false => vec![contradiction.stuck],
        };
        findings.add(Violation::new(text).of(operations));
    }
    findings.done()
}

/// The smallest contradiction that can be found within bounds, of the first key or group of keys that has one.
pub(crate) fn smallest(evidence: &Evidence<'_>) -> Option<Minimal> {
    let compiled = compile(evidence);
    let mut ignored = Findings::new("");
    let contradictions = contradictions(&compiled, &mut { STEPS }, &mut ignored);
    contradictions
        .first()
        .map(|first| first.shrink(&mut { SHRINKING_STEPS }))
}

/// Entries that no order explains.
struct Contradiction {
    keys: Vec<String>,
    entries: Vec<Entry>,
    /// Of the state of a search.
    width: usize,
    /// The operation that no attempt got past.
    stuck: usize,
}

impl Contradiction {
    fn shrink(&self, steps: &mut u64) -> Minimal {
        minimal::shrink(&self.entries, self.width, self.keys.clone(), steps)
    }
}

fn contradictions(compiled: &Compiled<'_>, steps: &mut u64, findings: &mut Findings) -> Vec<Contradiction> {
    let groups = Groups::new(compiled);
    let mut found = Vec::new();
    for group in groups.all() {
        let before = found.len();
        for &key in &group.keys {
            let entries = groups
                .of_key(key)
                .iter()
                .filter_map(|at| compiled.entries[*at].project(key));
            let entries = entries.collect();
            found.extend(contradiction(compiled, &[key], entries, 1, steps, findings));
        }
        if group.keys.len() > 1 && found.len() == before {
            let entries = group
                .entries
                .iter()
                .map(|at| compiled.entries[*at].clone())
                .collect();
            let width = compiled.keys.len();
            found.extend(contradiction(
                compiled,
                &group.keys,
                entries,
                width,
                steps,
                findings,
            ));
        }
    }
    found
}

fn contradiction(
    compiled: &Compiled<'_>,
    keys: &[usize],
    entries: Vec<Entry>,
    width: usize,
    steps: &mut u64,
    findings: &mut Findings,
) -> Option<Contradiction> {
    // No search takes all, so that what one cannot decide does not keep the others from being looked at.
    let given = steps.div_ceil(2);
    let mut left = given;
    let found = search(&reduce(entries.clone()), width, &mut left);
    *steps -= given - left;
    let names = || {
        keys.iter()
            .map(|key| compiled.keys[*key].to_owned())
            .collect::<Vec<_>>()
    };
    let stuck = match found {
        Found::Order => return None,
        Found::Nothing { stuck } => Some(stuck),
        Found::TooMuch if width > 1 => None,
        Found::TooMuch => {
            let at = minimal::one_against_all(&entries, width, steps);
            at.map(|at| entries[at].operation)
        }
    };
    let Some(stuck) = stuck else {
        findings.undecided(format!(
            "the search on {} did not end within its steps",
            some_of(&names())
        ));
        return None;
    };
    Some(Contradiction {
        keys: names(),
        entries,
        width,
        stuck,
    })
}

fn some_of(keys: &[String]) -> String {
    match keys {
        [a, b, c, _, ..] => format!("{a}, {b}, {c} and {} more", keys.len() - 3),
        few => few.join(", "),
    }
}
