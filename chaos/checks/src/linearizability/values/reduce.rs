//! Fewer open questions before a search: [`reduce`].
//!
//! A write of unknown outcome doubles what a search may have to try. But one whose value somebody saw did happen, and
//! before that was answered; and one that nothing observes, directly or by what is missing, can be left out.

use std::collections::{BTreeMap, BTreeSet};

use super::alike::simplify;
use super::entry::{ABSENT, Alternative, Entry, Key, Step, Value};

/// The same question with fewer optional entries.
pub(crate) fn reduce(mut entries: Vec<Entry>) -> Vec<Entry> {
    require_what_was_seen(&mut entries);
    let mut observed = Observed::default();
    for entry in entries.iter().filter(|entry| !entry.is_optional()) {
        observed.add(entry);
    }
    let mut keep: Vec<bool> = entries.iter().map(|entry| !entry.is_optional()).collect();
    loop {
        let before = keep.clone();
        for (at, entry) in entries.iter().enumerate() {
            if !keep[at] && observed.matters(entry) {
                keep[at] = true;
                observed.add(entry);
            }
        }
        if keep == before {
            break;
        }
    }
    let mut keep = keep.into_iter();
    entries.retain(|_| keep.next().unwrap_or(true));
    simplify(&mut entries);
    entries
}

/// An unknown write whose value, which nobody else writes, was seen is bounded by the first return of those who saw it.
fn require_what_was_seen(entries: &mut [Entry]) {
    let mut seen: BTreeMap<(Key, Value), u64> = BTreeMap::new();
    let mut writers: BTreeMap<(Key, Value), usize> = BTreeMap::new();
    for entry in entries.iter() {
        let written: BTreeSet<_> = entry.alternatives.iter().flat_map(Alternative::writes).collect();
        for write in written {
            *writers.entry(write).or_default() += 1;
        }
        let Some(ret) = entry.ret else { continue };
        for way in &entry.alternatives {
            visit_exact(way, &mut |key, value| {
                let first = seen.entry((key, value)).or_insert(ret);
                *first = ret.min(*first);
            });
        }
    }
    for entry in entries.iter_mut().filter(|entry| entry.is_optional()) {
        let ways = entry.alternatives.iter();
        let own = |write: &(Key, Value)| write.1 != ABSENT && writers.get(write) == Some(&1);
        let first = ways.flat_map(Alternative::writes).filter(own);
        let first = first.filter_map(|write| Some((*seen.get(&write)?, write))).min();
        let Some((ret, write)) = first.filter(|(ret, _)| *ret >= entry.call) else {
            continue;
        };
        entry.ret = Some(ret);
        entry
            .alternatives
            .retain(|way| way.writes().any(|other| other == write));
    }
}

/// What entries look at.
#[derive(Default)]
struct Observed {
    values: BTreeSet<(Key, Value)>,
    absences: BTreeSet<Key>,
    /// Looked at in a way that no single value answers.
    inexact: BTreeSet<Key>,
}

impl Observed {
    fn add(&mut self, entry: &Entry) {
        for way in &entry.alternatives {
            let mut exact = BTreeSet::new();
            visit_exact(way, &mut |key, value| {
                exact.insert(key);
                match value {
                    ABSENT => self.absences.insert(key),
                    value => self.values.insert((key, value)),
                };
            });
            self.add_inexact(way, &exact);
        }
    }

    fn add_inexact(&mut self, way: &Alternative, exact: &BTreeSet<Key>) {
        let tested = way.conditions.iter().flat_map(|condition| &condition.tests);
        self.inexact
            .extend(tested.map(|(key, _)| *key).filter(|key| !exact.contains(key)));
        for step in &way.steps {
            match step {
                Step::Present { key } => {
                    self.inexact.insert(*key);
                }
                Step::List(list) => self.inexact.extend(list.told_until()..list.to),
                _ => {}
            }
        }
    }

    /// Whether leaving the entry out could make a difference.
    fn matters(&self, entry: &Entry) -> bool {
        let mut writes = entry.alternatives.iter().flat_map(Alternative::writes);
        writes.any(|(key, value)| {
            self.inexact.contains(&key)
                || match value {
                    ABSENT => self.absences.contains(&key),
                    value => self.values.contains(&(key, value)),
                }
        })
    }
}

/// Calls `see` with what the entry says a key was before it, as far as that is exact: once it has written a key, it sees
/// its own.
fn visit_exact(way: &Alternative, see: &mut impl FnMut(Key, Value)) {
    let mut written = BTreeSet::new();
    for step in &way.steps {
        match step {
            Step::Write { key, .. } => {
                written.insert(*key);
            }
            Step::Expect { key, value } if !written.contains(key) => see(*key, *value),
            Step::List(list) => {
                let shown: BTreeMap<Key, Value> = list.shown.iter().copied().collect();
                for key in (list.from..list.told_until()).filter(|key| !written.contains(key)) {
                    see(key, shown.get(&key).copied().unwrap_or(ABSENT));
                }
            }
            _ => {}
        }
    }
}
