//! Operations as entries of a search: [`compile`].

use std::collections::BTreeMap;

use super::{
    entry::{ABSENT, Alternative, Condition, Entry, Key, List, Step, Test, Value},
    names::Names,
};
use crate::{
    history::{
        Answer, Compare, KeyValue, Operation, Outcome, Request, Response, Revision, Target, WatchEvent,
    },
    model::{Evidence, Timeline},
};

/// Ways in which one txn of unknown outcome can have gone.
const MAX_ALTERNATIVES: usize = 64;

pub(super) struct Compiled<'a> {
    pub entries: Vec<Entry>,
    pub keys: Vec<&'a str>,
    /// Operations with too many ways to go, about which less is asked.
    pub loosened: usize,
}

/// Reads that need not be current and reads of the past are no matter of linearizability, and are left out.
pub(super) fn compile<'a>(evidence: &Evidence<'a>) -> Compiled<'a> {
    let mut compiler = Compiler {
        names: Names::new(evidence.history),
        hints: Hints::new(evidence),
        entries: Vec::new(),
        leased: Vec::new(),
        loosened: 0,
    };
    for (index, operation) in evidence.history.operations.iter().enumerate() {
        if operation.request.is_keyed() && !operation.request.is_serializable() {
            compiler.compile(index, operation);
        }
    }
    Compiled {
        entries: compiler.entries,
        keys: compiler.names.keys,
        loosened: compiler.loosened,
    }
}

struct Compiler<'e, 'a> {
    names: Names<'a>,
    hints: Hints<'e>,
    entries: Vec<Entry>,
    /// Versions with a lease that the operation at hand writes.
    leased: Vec<(&'a str, &'a str)>,
    loosened: usize,
}

impl<'a> Compiler<'_, 'a> {
    fn compile(&mut self, index: usize, operation: &'a Operation) {
        let (ret, alternatives) = match &operation.outcome {
            Outcome::Done(response) => {
                let mut went = Alternative::default();
                self.conditions(&operation.request, response, &mut went);
                self.steps(&operation.request, response, &mut went);
                (operation.ret, vec![went])
            }
            Outcome::NotApplied(_) => return,
            Outcome::Unknown(_) => {
                let mut ways = self.ways(&operation.request);
                if ways.len() > MAX_ALTERNATIVES {
                    return self.loosen(index, operation);
                }
                ways.retain(|way| way.writes().next().is_some());
                ways.sort_by_key(|way| !self.was_committed(index, way));
                (None, ways)
            }
        };
        if alternatives
            .iter()
            .any(|way| !(way.steps.is_empty() && way.conditions.is_empty()))
        {
            let hint = self.hints.of(index, operation);
            self.entries
                .push(Entry::new(index, operation.call, ret, hint, alternatives));
        }
        self.add_expiries(index, operation);
    }

    /// Whether it is this way that the list of revisions says the operation went: to be tried first.
    fn was_committed(&self, index: usize, way: &Alternative) -> bool {
        let events = self.hints.events(index).iter().filter_map(|event| {
            let value = event.key_value().map_or(ABSENT, |kv| self.names.value(&kv.value));
            Some((self.names.key(&event.key)?, value))
        });
        let changed: BTreeMap<Key, Value> = events.collect();
        let written: BTreeMap<Key, Value> = way.writes().collect();
        changed.iter().all(|(key, value)| written.get(key) == Some(value))
            && written
                .iter()
                .all(|(key, value)| *value == ABSENT || changed.contains_key(key))
    }

    /// A txn that can have gone too many ways: each of its writes may have happened by itself. That allows for more than
    /// what can have been, so nothing that is right is found wrong.
    fn loosen(&mut self, index: usize, operation: &'a Operation) {
        self.loosened += 1;
        self.leased.clear();
        operation.request.visit(&mut |request| {
            let mut write = Alternative::default();
            self.write(request, &mut write);
            if !write.steps.is_empty() {
                let hint = self.hints.of(index, operation);
                self.entries
                    .push(Entry::new(index, operation.call, None, hint, vec![write]));
            }
        });
        self.add_expiries(index, operation);
    }

    /// A leased version may vanish at any moment, by a revocation or because time is up. (That all keys of a lease vanish
    /// at once is looked at by the check of leases.)
    fn add_expiries(&mut self, index: usize, operation: &Operation) {
        for (name, text) in std::mem::take(&mut self.leased) {
            let Some(key) = self.names.key(name) else { continue };
            let value = self.names.value(text);
            let steps = vec![Step::Expect { key, value }, Step::Write { key, value: ABSENT }];
            let conditions = Vec::new();
            let expiry = Alternative { conditions, steps };
            let hint = self.hints.of_expiry(index, operation, name);
            self.entries
                .push(Entry::new(index, operation.call, None, hint, vec![expiry]));
        }
    }

    /// What the branches that were taken say about the state before.
    fn conditions(&self, request: &'a Request, response: &Response, into: &mut Alternative) {
        let (
            Request::Txn {
                compares,
                then,
                otherwise,
            },
            Answer::Txn { succeeded, responses },
        ) = (request, &response.answer)
        else {
            return;
        };
        self.condition(compares, *succeeded, into);
        let taken = if *succeeded { then } else { otherwise };
        for (request, response) in taken.iter().zip(responses) {
            self.conditions(request, response, into);
        }
    }

    fn condition(&self, compares: &[Compare], expected: bool, into: &mut Alternative) {
        let tests: Vec<_> = compares.iter().filter_map(|compare| self.test(compare)).collect();
        if expected {
            for (key, test) in tests {
                match test.as_step(key) {
                    Some(step) => into.steps.push(step),
                    None => into.conditions.push(Condition {
                        tests: vec![(key, test)],
                        expected,
                    }),
                }
            }
        } else if tests.len() == compares.len() {
            into.conditions.push(Condition { tests, expected });
        }
    }

    fn test(&self, compare: &Compare) -> Option<(Key, Test)> {
        // What holds for all keys of a range is left to the check by revisions.
        if !compare.to.is_empty() {
            return None;
        }
        let key = self.names.key(&compare.key)?;
        let relation = compare.relation;
        let test = match &compare.target {
            Target::Value(given) => Test::Text {
                relation,
                given: self.names.value(given),
            },
            Target::ModRevision(given) => Test::Number {
                relation,
                given: *given,
                names: self.names.version(&compare.key, *given),
            },
            Target::CreateRevision(given) | Target::Version(given) => Test::Number {
                relation,
                given: *given,
                names: None,
            },
        };
        Some((key, test))
    }

    fn steps(&mut self, request: &'a Request, response: &Response, into: &mut Alternative) {
        match (request, &response.answer) {
            (Request::Put { key, prev_kv, .. }, Answer::Put { prev_kv: previous }) => {
                if let Some(key) = self.names.key(key).filter(|_| *prev_kv) {
                    let value = self.value(previous.as_ref());
                    into.steps.push(Step::Expect { key, value });
                }
                self.write(request, into);
            }
            (Request::Delete { key, prev_kv }, Answer::Delete { deleted, prev_kvs }) => {
                if let Some(key) = self.names.key(key) {
                    into.steps.push(match (*deleted > 0, *prev_kv) {
                        (true, false) => Step::Present { key },
                        (true, true) => Step::Expect {
                            key,
                            value: self.value(prev_kvs.first()),
                        },
                        (false, _) => Step::Expect { key, value: ABSENT },
                    });
                }
                self.write(request, into);
            }
            (Request::DeleteRange { prev_kv, .. }, Answer::Delete { deleted, prev_kvs }) => {
                let shown = if *prev_kv { prev_kvs.as_slice() } else { &[] };
                into.steps.extend(self.read(request, shown, *deleted));
                self.write(request, into);
            }
            // Only the count is that of the whole range: what was sorted, filtered or stripped is left to the check by
            // revisions.
            (
                Request::Range {
                    revision: 0, shape, ..
                },
                Answer::Range { count, .. },
            ) if !shape.is_plain() => {
                into.steps.extend(self.read(request, &[], *count));
            }
            (
                Request::Get { revision: 0, .. } | Request::Range { revision: 0, .. },
                Answer::Range { kvs, count, .. },
            ) => {
                into.steps.extend(self.read(request, kvs, *count));
            }
            (Request::Txn { then, otherwise, .. }, Answer::Txn { succeeded, responses }) => {
                let taken = if *succeeded { then } else { otherwise };
                for (request, response) in taken.iter().zip(responses) {
                    self.steps(request, response, into);
                }
            }
            _ => {}
        }
    }

    fn read(&self, request: &Request, kvs: &[KeyValue], count: i64) -> Option<Step> {
        let span = request.span()?;
        let (from, to) = self.names.span(&span)?;
        if span.to.is_empty() {
            let value = self.value(kvs.first());
            return Some(Step::Expect { key: from, value });
        }
        let shown = kvs
            .iter()
            .filter_map(|kv| Some((self.names.key(&kv.key)?, self.names.value(&kv.value))));
        Some(Step::List(List {
            from,
            to,
            shown: shown.collect(),
            count: usize::try_from(count).unwrap_or_default(),
        }))
    }

    fn write(&mut self, request: &'a Request, into: &mut Alternative) {
        let (name, value) = match request {
            Request::Put {
                key, value, lease, ..
            } => {
                if *lease != 0 {
                    self.leased.push((key, value));
                }
                (key, self.names.value(value))
            }
            Request::Delete { key, .. } => (key, ABSENT),
            Request::DeleteRange { .. } => return self.write_absent(request, into),
            _ => return,
        };
        if let Some(key) = self.names.key(name) {
            into.steps.push(Step::Write { key, value });
        }
    }

    /// Every key that there ever is in the span.
    fn write_absent(&self, request: &Request, into: &mut Alternative) {
        let (from, to) = self.deleted(request);
        let absent = |key| Step::Write { key, value: ABSENT };
        into.steps.extend((from..to).map(absent));
    }

    /// The keys of the scope in a span; one that reaches out of the scope deletes no more of it than these.
    fn deleted(&self, request: &Request) -> (Key, Key) {
        let span = request.span().and_then(|span| self.names.span(&span));
        span.unwrap_or_default()
    }

    fn value(&self, kv: Option<&KeyValue>) -> Value {
        kv.map_or(ABSENT, |kv| self.names.value(&kv.value))
    }

    /// All ways in which a request of unknown outcome can have gone. Only one more than may be used is of interest.
    fn ways(&mut self, request: &'a Request) -> Vec<Alternative> {
        let mut plain = Alternative::default();
        let Request::Txn {
            compares,
            then,
            otherwise,
        } = request
        else {
            self.write(request, &mut plain);
            return vec![plain];
        };
        let mut all = Vec::new();
        for (succeeded, taken) in [(true, then), (false, otherwise)] {
            let mut start = Alternative::default();
            self.condition(compares, succeeded, &mut start);
            let mut ways = vec![start];
            for request in taken {
                let nested = self.ways(request);
                ways = ways
                    .iter()
                    .flat_map(|way| nested.iter().map(|then| followed(way, then)))
                    .collect();
                ways.truncate(MAX_ALTERNATIVES + 1);
            }
            all.append(&mut ways);
        }
        all
    }
}

/// The conditions of both hold before either; what a nested txn expects is told as steps, which stay in front because
/// a txn's writes come after all that its compares said.
fn followed(first: &Alternative, then: &Alternative) -> Alternative {
    let mut both = first.clone();
    both.conditions.extend(then.conditions.iter().cloned());
    let writes = |step: &&Step| matches!(step, Step::Write { .. });
    let front = both.steps.iter().filter(|step| !writes(step)).count();
    let expected = then.steps.iter().filter(|step| !writes(step)).cloned();
    both.steps.splice(front..front, expected);
    both.steps.extend(then.steps.iter().filter(writes).cloned());
    both
}

/// Where the revisions would put an operation, in quarters of a revision.
struct Hints<'e> {
    timeline: Option<&'e Timeline<'e>>,
    made: BTreeMap<usize, Revision>,
}

impl<'e> Hints<'e> {
    fn new(evidence: &'e Evidence<'_>) -> Hints<'e> {
        let made = evidence
            .committed
            .as_ref()
            .map(|(_, owners)| owners.revisions_made());
        Hints {
            timeline: evidence.timeline(),
            made: made.unwrap_or_default(),
        }
    }

    fn of(&self, index: usize, operation: &Operation) -> u64 {
        match operation.response() {
            Some(response) => quarters(response.revision) + if response.answer.changed() { 0 } else { 2 },
            None => self
                .made
                .get(&index)
                .map_or(u64::MAX, |revision| quarters(*revision)),
        }
    }

    /// What the revision that it made consists of.
    fn events(&self, index: usize) -> &'e [WatchEvent] {
        let listed = self
            .made
            .get(&index)
            .and_then(|revision| self.timeline?.revision(*revision));
        listed.map_or(&[], |listed| &listed.events)
    }

    fn of_expiry(&self, index: usize, operation: &Operation, key: &str) -> u64 {
        let acknowledged = operation.response().map(|response| response.revision);
        let put = acknowledged.or(self.made.get(&index).copied());
        let next = put.and_then(|put| self.timeline?.next_change(key, put));
        match next {
            Some((revision, None)) => quarters(*revision) + 1,
            _ => u64::MAX,
        }
    }
}

fn quarters(revision: Revision) -> u64 {
    u64::try_from(revision).unwrap_or_default().saturating_mul(4)
}
