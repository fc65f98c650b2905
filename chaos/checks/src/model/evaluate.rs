//! What a request does to a state, and what it must be answered: [`evaluate`].

use std::collections::BTreeMap;

use super::{Known, Timeline};
use crate::history::{
    Answer, Compare, KeySpan, KeyValue, Relation, Request, Response, Revision, Shape, Target, WatchEvent,
};

/// Runs the request on the content at `base`; what it changes gets the next revision. `None`: it touches what is not
/// known, or it is none of put, delete, read and txn.
pub(crate) fn evaluate(
    request: &Request,
    timeline: &Timeline<'_>,
    base: Revision,
) -> Option<(Response, Vec<WatchEvent>)> {
    let mut run = Run {
        timeline,
        base,
        changed: BTreeMap::new(),
        events: Vec::new(),
    };
    let answer = run.answer(request)?;
    let revision = run.revision();
    Some((Response { revision, answer }, run.events))
}

/// Whether both lists hold the same changes in the same order.
pub(crate) fn same_changes(one: &[WatchEvent], other: &[WatchEvent]) -> bool {
    one.len() == other.len()
        && one
            .iter()
            .zip(other)
            .all(|(one, other)| one.is_same_change(other))
}

struct Run<'t> {
    timeline: &'t Timeline<'t>,
    base: Revision,
    /// By this request so far.
    changed: BTreeMap<String, Option<KeyValue>>,
    events: Vec<WatchEvent>,
}

impl Run<'_> {
    fn revision(&self) -> Revision {
        self.base + Revision::from(!self.events.is_empty())
    }

    fn answer(&mut self, request: &Request) -> Option<Answer> {
        match request {
            Request::Put {
                key,
                value,
                prev_kv,
                lease,
            } => self.put(key, value, *prev_kv, *lease),
            Request::Delete { prev_kv, .. } | Request::DeleteRange { prev_kv, .. } => {
                self.delete(&request.span()?, *prev_kv)
            }
            Request::Get { revision, .. } => self.read(&request.span()?, *revision, 0, Shape::default()),
            Request::Range {
                revision,
                limit,
                shape,
                ..
            } => self.read(&request.span()?, *revision, *limit, *shape),
            Request::Txn {
                compares,
                then,
                otherwise,
            } => self.txn(compares, then, otherwise),
            _ => None,
        }
    }

    fn put(&mut self, key: &str, value: &str, prev_kv: bool, lease: i64) -> Option<Answer> {
        let old = self.current(key)?;
        let revision = self.base + 1;
        let kv = KeyValue {
            key: key.to_owned(),
            value: value.to_owned(),
            create_revision: old.as_ref().map_or(revision, |old| old.create_revision),
            mod_revision: revision,
            version: old.as_ref().map_or(0, |old| old.version) + 1,
            lease,
        };
        self.events.push(WatchEvent::put(&kv));
        self.changed.insert(key.to_owned(), Some(kv));
        Some(Answer::Put {
            prev_kv: old.filter(|_| prev_kv),
        })
    }

    /// In the order of keys.
    fn delete(&mut self, span: &KeySpan, prev_kv: bool) -> Option<Answer> {
        let old = self.now(span)?;
        for kv in &old {
            self.events.push(WatchEvent::delete(&kv.key, self.base + 1));
            self.changed.insert(kv.key.clone(), None);
        }
        Some(Answer::Delete {
            deleted: i64::try_from(old.len()).ok()?,
            prev_kvs: old.into_iter().filter(|_| prev_kv).collect(),
        })
    }

    fn read(&self, span: &KeySpan, revision: Revision, limit: i64, shape: Shape) -> Option<Answer> {
        let kvs = match revision {
            0 => self.now(span)?,
            past => self.timeline.range(span, past)?.into_iter().cloned().collect(),
        };
        let count = i64::try_from(kvs.len()).ok()?;
        let (kvs, more) = shape.apply(kvs, usize::try_from(limit).unwrap_or_default());
        Some(Answer::Range { kvs, count, more })
    }

    fn now(&self, span: &KeySpan) -> Option<Vec<KeyValue>> {
        let base = self.timeline.range(span, self.base)?;
        if self.changed.is_empty() {
            return Some(base.into_iter().cloned().collect());
        }
        let mut content: BTreeMap<&str, &KeyValue> =
            base.into_iter().map(|kv| (kv.key.as_str(), kv)).collect();
        for (key, kv) in self.changed.iter().filter(|(key, _)| span.contains(key)) {
            match kv {
                Some(kv) => content.insert(key, kv),
                None => content.remove(key.as_str()),
            };
        }
        Some(content.into_values().cloned().collect())
    }

    fn txn(&mut self, compares: &[Compare], then: &[Request], otherwise: &[Request]) -> Option<Answer> {
        let succeeded = self.all_hold(compares)?;
        let mut responses = Vec::new();
        for request in if succeeded { then } else { otherwise } {
            let answer = self.answer(request)?;
            let revision = self.revision();
            responses.push(Response { revision, answer });
        }
        Some(Answer::Txn { succeeded, responses })
    }

    /// Compares look at the state before the whole request, those of nested txns too.
    fn all_hold(&self, compares: &[Compare]) -> Option<bool> {
        for compare in compares {
            let span = KeySpan::new(&compare.key, &compare.to);
            let found = self.timeline.range(&span, self.base)?;
            // Of a range that holds no key, as of a key that is missing.
            let all_hold = match found.is_empty() {
                true => holds(compare, None),
                false => found.into_iter().all(|kv| holds(compare, Some(kv))),
            };
            if !all_hold {
                return Some(false);
            }
        }
        Some(true)
    }

    fn current(&self, key: &str) -> Option<Option<KeyValue>> {
        if let Some(changed) = self.changed.get(key) {
            return Some(changed.clone());
        }
        match self.timeline.at(key, self.base) {
            Known::Unknown => None,
            Known::Absent => Some(None),
            Known::Present(kv) => Some(Some(kv.clone())),
        }
    }
}

/// On a missing key no compare of the value holds, "not equal" included; numbers are 0.
fn holds(compare: &Compare, kv: Option<&KeyValue>) -> bool {
    let number = |of: fn(&KeyValue) -> i64, given: i64| {
        let relation: Relation = compare.relation;
        relation.holds(&kv.map_or(0, of), &given)
    };
    match &compare.target {
        Target::Value(given) => kv.is_some_and(|kv| compare.relation.holds(&kv.value, given)),
        Target::ModRevision(given) => number(|kv| kv.mod_revision, *given),
        Target::CreateRevision(given) => number(|kv| kv.create_revision, *given),
        Target::Version(given) => number(|kv| kv.version, *given),
    }
}
