//! Numbers for the keys and values of a history: [`Names`].

use std::collections::{BTreeMap, BTreeSet};

use super::entry::{Key, Value};
use crate::history::{Answer, History, KeySpan, KeyValue, Operation, Request, Response, Revision, Target};

pub(super) struct Names<'a> {
    pub keys: Vec<&'a str>,
    values: Vec<&'a str>,
    /// Which value a version had. A version that was told with two values is left out.
    versions: BTreeMap<(&'a str, Revision), Option<&'a str>>,
    scope: Option<&'a KeySpan>,
}

impl<'a> Names<'a> {
    pub fn new(history: &'a History) -> Names<'a> {
        let mut collected = Collected::default();
        for operation in &history.operations {
            collected.see(operation);
        }
        let in_scope = |key: &&str| history.in_scope(key);
        Names {
            keys: collected.keys.into_iter().filter(in_scope).collect(),
            values: collected.values.into_iter().collect(),
            versions: collected.versions,
            scope: history.scope.as_ref(),
        }
    }

    /// `None`: out of the scope.
    pub fn key(&self, key: &str) -> Option<Key> {
        self.keys.binary_search(&key).ok()
    }

    pub fn value(&self, value: &str) -> Value {
        let at = self.values.partition_point(|known| *known < value);
        Value::try_from(at + 1).expect("a history has fewer than four thousand million values")
    }

    /// The value of the version with this mod revision.
    pub fn version(&self, key: &str, revision: Revision) -> Option<Value> {
        let value = self.versions.get(&(key, revision)).copied().flatten()?;
        Some(self.value(value))
    }

    /// The keys of the span; `None`: not all of them are in the scope.
    pub fn span(&self, span: &KeySpan) -> Option<(Key, Key)> {
        if self.scope.is_some_and(|scope| !span.is_within(scope)) {
            return None;
        }
        let from = self.keys.partition_point(|key| *key < span.from.as_str());
        let within = self.keys[from..].partition_point(|key| span.contains(key));
        Some((from, from + within))
    }
}

#[derive(Default)]
struct Collected<'a> {
    keys: BTreeSet<&'a str>,
    values: BTreeSet<&'a str>,
    versions: BTreeMap<(&'a str, Revision), Option<&'a str>>,
}

impl<'a> Collected<'a> {
    fn see(&mut self, operation: &'a Operation) {
        operation.request.visit(&mut |request| match request {
            Request::Put { key, value, .. } => {
                self.keys.insert(key);
                self.values.insert(value);
            }
            Request::Delete { key, .. } | Request::Get { key, .. } => {
                self.keys.insert(key);
            }
            Request::Range { from, to, .. } | Request::DeleteRange { from, to, .. } if to.is_empty() => {
                self.keys.insert(from);
            }
            Request::Txn { compares, .. } => {
                for compare in compares {
                    if compare.to.is_empty() {
                        self.keys.insert(&compare.key);
                    }
                    if let Target::Value(value) = &compare.target {
                        self.values.insert(value);
                    }
                }
            }
            _ => {}
        });
        if let Some(response) = operation.response() {
            response.answer.visit(&mut |kv: &'a KeyValue| {
                self.keys.insert(&kv.key);
                // Of a read of keys alone.
                if !kv.value.is_empty() {
                    self.values.insert(&kv.value);
                    self.name(&kv.key, kv.mod_revision, &kv.value);
                }
            });
            self.see_puts(&operation.request, response, response.revision);
        }
    }

    /// The versions that acknowledged puts have made.
    fn see_puts(&mut self, request: &'a Request, response: &'a Response, revision: Revision) {
        match (request, &response.answer) {
            (Request::Put { key, value, .. }, Answer::Put { .. }) => self.name(key, revision, value),
            (Request::Txn { then, otherwise, .. }, Answer::Txn { succeeded, responses }) => {
                let taken = if *succeeded { then } else { otherwise };
                for (request, response) in taken.iter().zip(responses) {
                    self.see_puts(request, response, revision);
                }
            }
            _ => {}
        }
    }

    fn name(&mut self, key: &'a str, revision: Revision, value: &'a str) {
        let named = self.versions.entry((key, revision)).or_insert(Some(value));
        if *named != Some(value) {
            *named = None;
        }
    }
}
