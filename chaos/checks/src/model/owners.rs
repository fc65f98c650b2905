//! Who made each committed revision: [`Owners`].
//!
//! A write that was acknowledged names its revision. A write whose outcome is unknown is found by what it would have
//! done to the state before: by its value mostly, which nobody else writes; deletes look alike, so they are matched
//! such that as many revisions as possible have an author. What is left may be the end of a lease: all its keys
//! deleted, and nothing else. Anything further was made by nobody, which is a violation.

use std::collections::BTreeMap;

use super::{Known, Sightings, Timeline, evaluate, matching, same_changes};
use crate::{
    history::{CommittedRevision, EventKind, History, KeySpan, Operation, Outcome, Request, Revision},
    verdict::Violation,
};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Owner {
    Operation(usize),
    /// Revoked, or run out; lease 0: one that is not known, of keys from before the list begins. Certain: no operation of
    /// the history could have made it instead.
    Lease {
        lease: i64,
        certain: bool,
    },
    /// It changes no key of the scope.
    Foreign,
}

pub(crate) struct Owners {
    by_revision: BTreeMap<Revision, Owner>,
    /// Acknowledged writes that are missing, revisions made by nobody or twice.
    pub violations: Vec<Violation>,
}

impl Owners {
    pub fn new(history: &History, timeline: &Timeline<'_>, sightings: &Sightings) -> Owners {
        let mut search = Search::new(history, timeline, sightings);
        search.claim_acknowledged();
        let open = search.open_revisions();
        search.settle(open);
        search.owners
    }

    pub fn of(&self, revision: Revision) -> Option<Owner> {
        self.by_revision.get(&revision).copied()
    }

    pub fn iter(&self) -> impl Iterator<Item = (Revision, Owner)> + '_ {
        self.by_revision
            .iter()
            .map(|(revision, owner)| (*revision, *owner))
    }

    /// The revision that each operation made.
    pub fn revisions_made(&self) -> BTreeMap<usize, Revision> {
        let made = self.iter().filter_map(|(revision, owner)| match owner {
            Owner::Operation(index) => Some((index, revision)),
            _ => None,
        });
        made.collect()
    }
}

/// A revision that no acknowledged write claims.
struct Open {
    revision: Revision,
    /// Unknown operations that would have done just this.
    fitting: Vec<usize>,
    /// Those of them that were called in time.
    feasible: Vec<usize>,
    lease: Option<i64>,
}

struct Search<'s, 'a> {
    history: &'a History,
    timeline: &'s Timeline<'a>,
    sightings: &'s Sightings,
    /// All operations that put the value, whatever became of them.
    by_value: BTreeMap<&'a str, Vec<usize>>,
    /// Unknown operations that delete the key.
    by_deleted: BTreeMap<&'a str, Vec<usize>>,
    /// Unknown operations that delete all keys of a span.
    by_deleted_span: Vec<(KeySpan, usize)>,
    owners: Owners,
}

impl<'s, 'a> Search<'s, 'a> {
    fn new(history: &'a History, timeline: &'s Timeline<'a>, sightings: &'s Sightings) -> Search<'s, 'a> {
        let mut search = Search {
            history,
            timeline,
            sightings,
            by_value: BTreeMap::new(),
            by_deleted: BTreeMap::new(),
            by_deleted_span: Vec::new(),
            owners: Owners {
                by_revision: BTreeMap::new(),
                violations: Vec::new(),
            },
        };
        for (index, operation) in history.operations.iter().enumerate() {
            operation.request.visit(&mut |request| match request {
                Request::Put { value, .. } => add(&mut search.by_value, value, index),
                Request::Delete { key, .. } if operation.is_unknown() => {
                    add(&mut search.by_deleted, key, index);
                }
                Request::DeleteRange { from, to, .. } if operation.is_unknown() => {
                    search.by_deleted_span.push((KeySpan::new(from, to), index));
                }
                _ => {}
            });
        }
        search
    }

    fn claim_acknowledged(&mut self) {
        for (index, operation) in self.history.operations.iter().enumerate() {
            let Some(response) = operation.response().filter(|response| response.answer.changed()) else {
                continue;
            };
            let revision = response.revision;
            if revision <= self.timeline.after() {
                continue;
            }
            if self.timeline.revision(revision).is_none() {
                let text = format!("acknowledged and lost: {operation}");
                self.violate(Violation::new(text).of([index]).at(revision));
            } else if let Some(Owner::Operation(other)) = self.owners.of(revision) {
                let text = format!("two writes were acknowledged with revision {revision}");
                self.violate(Violation::new(text).of([other, index]).at(revision));
            } else {
                self.owners.by_revision.insert(revision, Owner::Operation(index));
            }
        }
    }

    fn open_revisions(&mut self) -> Vec<Open> {
        let mut open = Vec::new();
        for listed in self.timeline.revisions(self.timeline.after() + 1) {
            if self.owners.of(listed.revision).is_some() {
                continue;
            }
            if listed
                .events
                .iter()
                .any(|event| self.history.in_scope(&event.key))
            {
                open.push(self.open(listed));
            } else {
                self.owners.by_revision.insert(listed.revision, Owner::Foreign);
            }
        }
        open
    }

    fn open(&self, listed: &CommittedRevision) -> Open {
        let fitting = self.fitting(listed);
        let feasible = fitting.iter().copied();
        Open {
            revision: listed.revision,
            feasible: feasible
                .filter(|index| self.is_feasible(*index, listed.revision))
                .collect(),
            fitting,
            lease: self.lease_ended(listed),
        }
    }

    fn fitting(&self, listed: &CommittedRevision) -> Vec<usize> {
        let mut found = Vec::new();
        for event in &listed.events {
            let named = match event.kind {
                EventKind::Put => self.by_value.get(event.value.as_str()),
                EventKind::Delete => self.by_deleted.get(event.key.as_str()),
            };
            found.extend(named.into_iter().flatten().copied());
            if event.kind == EventKind::Delete {
                let spans = self.by_deleted_span.iter();
                let deleting = spans.filter(|(span, _)| span.contains(&event.key));
                found.extend(deleting.map(|(_, index)| *index));
            }
        }
        found.sort_unstable();
        found.dedup();
        found.retain(|index| self.history.operations[*index].is_unknown() && self.fits(*index, listed));
        found
    }

    /// Whether the operation would have made this revision; where the state before is not known, whether it could.
    fn fits(&self, index: usize, listed: &CommittedRevision) -> bool {
        let operation = &self.history.operations[index];
        match evaluate(&operation.request, self.timeline, listed.revision - 1) {
            Some((_, events)) => same_changes(&events, &listed.events),
            None => true,
        }
    }

    /// Not seen before it was called, and not below what had been seen by then.
    fn is_feasible(&self, index: usize, revision: Revision) -> bool {
        let call = self.history.operations[index].call;
        let seen = self.sightings.first(revision);
        seen.is_none_or(|seen| seen.time >= call) && self.sightings.floor(call) < revision
    }

    /// The lease of which this revision deletes every key and nothing else.
    fn lease_ended(&self, listed: &CommittedRevision) -> Option<i64> {
        let before = listed.revision - 1;
        let only_deletes = listed.events.iter().all(|event| event.kind == EventKind::Delete);
        let unknown = |key: &str| self.timeline.at(key, before) == Known::Unknown;
        if only_deletes && listed.events.iter().any(|event| unknown(&event.key)) {
            return Some(0);
        }
        let first = listed.events.first()?;
        let lease = self
            .timeline
            .lease_of(&first.key, before)
            .filter(|lease| *lease != 0)?;
        let its_own = |key: &str| self.timeline.lease_of(key, before) == Some(lease);
        let deletes_its_own = only_deletes && listed.events.iter().all(|event| its_own(&event.key));
        let attached = self.timeline.attached(lease, before).len();
        (deletes_its_own && attached == listed.events.len()).then_some(lease)
    }

    /// Revisions that only an operation can have made choose first.
    fn settle(&mut self, mut open: Vec<Open>) {
        open.sort_by_key(|open| (open.lease.is_some(), open.revision));
        let candidates: Vec<Vec<usize>> = open.iter().map(|open| open.feasible.clone()).collect();
        let matched = matching::largest(&candidates);
        for (at, open) in open.iter().enumerate() {
            let owner = match (matched.get(&at), open.lease) {
                (Some(index), _) => Some(Owner::Operation(*index)),
                (None, Some(lease)) => Some(Owner::Lease {
                    lease,
                    certain: open.fitting.is_empty(),
                }),
                (None, None) => None,
            };
            if let Some(owner) = owner {
                self.owners.by_revision.insert(open.revision, owner);
            }
        }
        open.sort_by_key(|open| open.revision);
        for open in open {
            if self.owners.of(open.revision).is_none() {
                let violation = self.unexplained(&open);
                self.violate(violation);
            }
        }
    }

    fn unexplained(&self, open: &Open) -> Violation {
        let revision = open.revision;
        let events = self
            .timeline
            .revision(revision)
            .map_or(&[][..], |listed| &listed.events);
        let writers = events.iter().filter(|event| event.kind == EventKind::Put);
        let writer = writers
            .filter_map(|event| self.by_value.get(event.value.as_str())?.first())
            .next();
        let shown: Vec<String> = events.iter().map(ToString::to_string).collect();
        let shown = shown.join(", ");
        let Some(&writer) = writer.or(open.fitting.first()) else {
            return Violation::new(format!(
                "nobody issued what this revision does: {shown}{}",
                self.of_lease(events)
            ))
            .at(revision);
        };
        let operation = &self.history.operations[writer];
        let why = self.why_not(writer, operation, open);
        Violation::new(format!("{why}: {shown}; {operation}"))
            .of([writer])
            .at(revision)
    }

    fn why_not(&self, index: usize, operation: &Operation, open: &Open) -> String {
        let made = self
            .owners
            .iter()
            .find(|(_, owner)| *owner == Owner::Operation(index));
        match (&operation.outcome, made) {
            (_, Some((other, _))) => format!("applied twice, at revision {other} and at {}", open.revision),
            (Outcome::NotApplied(_), _) => "took effect though it was said definitely not to".to_owned(),
            (Outcome::Done(response), _) => format!(
                "took effect at {} though it was acknowledged with {}",
                open.revision, response.revision
            ),
            (Outcome::Unknown(_), None) if open.fitting.contains(&index) => {
                "took effect before it was called, or below what had been seen by then".to_owned()
            }
            (Outcome::Unknown(_), None) => "is not what its operation would have done".to_owned(),
        }
    }

    fn of_lease(&self, events: &[crate::history::WatchEvent]) -> String {
        let leases =
            events
                .iter()
                .filter_map(|event| match self.timeline.at(&event.key, event.revision - 1) {
                    Known::Present(kv) if kv.lease != 0 => Some(kv.lease),
                    _ => None,
                });
        match leases.min() {
            Some(lease) => format!(" (not all keys of lease {lease}, or others besides)"),
            None => String::new(),
        }
    }

    fn violate(&mut self, violation: Violation) {
        self.owners.violations.push(violation);
    }
}

fn add<'a>(index: &mut BTreeMap<&'a str, Vec<usize>>, name: &'a str, operation: usize) {
    let operations = index.entry(name).or_default();
    if operations.last() != Some(&operation) {
        operations.push(operation);
    }
}
