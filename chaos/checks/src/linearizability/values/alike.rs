//! Differences that make no difference, taken out of a search.
//!
//! A value that nobody names is as good as any other such value that compares alike. Optional entries that do the same are used in the order
//! of their calls, since one that is called is never too late. An optional entry that changes a key from one named value
//! is looked at only while the key has it.

use std::{
    collections::{BTreeMap, BTreeSet},
    rc::Rc,
};

use super::entry::{ABSENT, Alike, Alternative, Entry, Key, Step, Test, Value};
use crate::history::Relation;

pub(super) fn simplify(entries: &mut [Entry]) {
    anonymize(entries);
    set_triggers(entries);
    order_alike(entries);
}

fn anonymize(entries: &mut [Entry]) {
    let mut named = Named::default();
    for way in entries.iter().flat_map(|entry| &entry.alternatives) {
        named.add(way);
    }
    let mut standing: BTreeMap<(Key, Option<Value>), Value> = BTreeMap::new();
    for way in entries.iter_mut().flat_map(|entry| &mut entry.alternatives) {
        for step in &mut way.steps {
            if let Step::Write { key, value } = step
                && !named.contains(*key, *value)
            {
                let below = named.bound_below(*key, *value);
                *value = *standing.entry((*key, below)).or_insert(*value);
            }
        }
    }
}

/// Values that somebody looks for.
#[derive(Default)]
struct Named {
    values: BTreeSet<(Key, Value)>,
    /// Those of them that others are compared with by order.
    bounds: BTreeSet<(Key, Value)>,
}

impl Named {
    fn add(&mut self, way: &Alternative) {
        for (key, test) in way.conditions.iter().flat_map(|condition| &condition.tests) {
            match test {
                Test::Text { relation, given } => {
                    self.values.insert((*key, *given));
                    if matches!(relation, Relation::Less | Relation::Greater) {
                        self.bounds.insert((*key, *given));
                    }
                }
                Test::Number { names, .. } => self.values.extend(names.map(|value| (*key, value))),
            }
        }
        for step in &way.steps {
            match step {
                Step::Expect { key, value } => {
                    self.values.insert((*key, *value));
                }
                Step::List(list) => self.values.extend(&list.shown),
                Step::Present { .. } | Step::Write { .. } => {}
            }
        }
    }

    fn contains(&self, key: Key, value: Value) -> bool {
        value == ABSENT || self.values.contains(&(key, value))
    }

    fn bound_below(&self, key: Key, value: Value) -> Option<Value> {
        let below = self.bounds.range((key, ABSENT)..(key, value));
        below.last().map(|(_, bound)| *bound)
    }
}

/// Only where the value has one writer and the entry replaces it: then it can be used once, and need not be remembered.
fn set_triggers(entries: &mut [Entry]) {
    let mut writers: BTreeMap<(Key, Value), usize> = BTreeMap::new();
    for entry in entries.iter() {
        let writes: BTreeSet<(Key, Value)> =
            entry.alternatives.iter().flat_map(Alternative::writes).collect();
        for write in writes {
            *writers.entry(write).or_default() += 1;
        }
    }
    for entry in entries.iter_mut().filter(|entry| entry.is_optional()) {
        let [way] = entry.alternatives.as_slice() else {
            continue;
        };
        entry.trigger = way
            .replaces()
            .filter(|replaced| writers.get(replaced) == Some(&1));
    }
}

/// Says of those that do the same which is to be used first, and hands out the hints in that order.
fn order_alike(entries: &mut [Entry]) {
    let mut alike: BTreeMap<String, Vec<usize>> = BTreeMap::new();
    for (at, entry) in entries.iter().enumerate() {
        if entry.is_optional() && entry.trigger.is_none() {
            alike
                .entry(format!("{:?}", entry.alternatives))
                .or_default()
                .push(at);
        }
    }
    for mut group in alike.into_values() {
        group.sort_by_key(|at| (entries[*at].call, *at));
        let mut hints: Vec<u64> = group.iter().map(|at| entries[*at].hint).collect();
        hints.sort_unstable();
        let hints: Rc<[u64]> = hints.into();
        let mut only_after = None;
        for (turn, at) in group.into_iter().enumerate() {
            let hints = Rc::clone(&hints);
            entries[at].alike = Some(Alike {
                only_after: only_after.replace(at),
                hints,
                turn,
            });
        }
    }
}
