//! Which keys belong together because one operation touches several: [`Groups`].

use std::collections::BTreeMap;

use super::{compile::Compiled, entry::Key};

pub(super) struct Groups {
    groups: Vec<Group>,
    by_key: Vec<Vec<usize>>,
}

/// Keys, and the entries that touch any of them.
#[derive(Default)]
pub(super) struct Group {
    pub keys: Vec<Key>,
    pub entries: Vec<usize>,
}

impl Groups {
    pub fn new(compiled: &Compiled<'_>) -> Groups {
        let mut ties = Ties::new(compiled.keys.len());
        let mut by_key = vec![Vec::new(); compiled.keys.len()];
        for (at, entry) in compiled.entries.iter().enumerate() {
            let mut first = None;
            entry.visit_keys(&mut |from, to| {
                for entries in &mut by_key[from..to] {
                    note(entries, at);
                }
                if from < to {
                    ties.tie_run(from, to);
                    ties.tie(*first.get_or_insert(from), from);
                }
            });
        }
        ties.tie_runs();
        let mut groups: BTreeMap<Key, Group> = BTreeMap::new();
        for key in 0..compiled.keys.len() {
            groups.entry(ties.root(key)).or_default().keys.push(key);
        }
        for (at, entry) in compiled.entries.iter().enumerate() {
            let mut first = None;
            entry.visit_keys(&mut |from, to| first = first.or((from < to).then_some(from)));
            if let Some(group) = first.and_then(|key| groups.get_mut(&ties.root(key))) {
                group.entries.push(at);
            }
        }
        Groups {
            groups: groups.into_values().collect(),
            by_key,
        }
    }

    pub fn all(&self) -> &[Group] {
        &self.groups
    }

    /// The entries that touch this key.
    pub fn of_key(&self, key: Key) -> &[usize] {
        &self.by_key[key]
    }
}

fn note(entries: &mut Vec<usize>, at: usize) {
    if entries.last() != Some(&at) {
        entries.push(at);
    }
}

/// A union of sets. Runs of keys, of which range reads make many, are gathered and tied in one pass.
struct Ties {
    parents: Vec<Key>,
    /// Runs that begin at the key, less those that ended before it.
    runs: Vec<i64>,
}

impl Ties {
    fn new(keys: usize) -> Ties {
        Ties {
            parents: (0..keys).collect(),
            runs: vec![0; keys + 1],
        }
    }

    fn root(&mut self, key: Key) -> Key {
        let mut at = key;
        while self.parents[at] != at {
            self.parents[at] = self.parents[self.parents[at]];
            at = self.parents[at];
        }
        at
    }

    fn tie(&mut self, one: Key, other: Key) {
        let (one, other) = (self.root(one), self.root(other));
        self.parents[one.max(other)] = one.min(other);
    }

    fn tie_run(&mut self, from: Key, to: Key) {
        self.runs[from] += 1;
        self.runs[to - 1] -= 1;
    }

    /// Ties each key to the next while a run covers both.
    fn tie_runs(&mut self) {
        let mut open = 0;
        for key in 0..self.parents.len().saturating_sub(1) {
            open += self.runs[key];
            if open > 0 {
                self.tie(key, key + 1);
            }
        }
    }
}
