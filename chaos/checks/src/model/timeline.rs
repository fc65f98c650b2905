//! The content of the keyspace at every revision: [`Timeline`].

use std::collections::{BTreeMap, BTreeSet};

use crate::history::{Committed, CommittedRevision, KeySpan, KeyValue, Revision};

/// What is known of a key at a revision. Unknown: outside the scope, or before what the history can tell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Known<'t> {
    Unknown,
    Absent,
    Present(&'t KeyValue),
}

pub(crate) struct Timeline<'a> {
    /// What came after it is listed.
    after: Revision,
    last: Revision,
    /// Whether keys that are not listed are known to be absent.
    complete: bool,
    scope: Option<&'a KeySpan>,
    revisions: BTreeMap<Revision, &'a CommittedRevision>,
    /// The list as it was given, for [`super::consistency`].
    pub(super) listed: &'a [CommittedRevision],
    /// What each key became, and at which revision; the last change of a revision counts.
    keys: BTreeMap<&'a str, Vec<(Revision, Option<KeyValue>)>>,
    /// Keys that were ever attached to a lease.
    attached: BTreeMap<i64, BTreeSet<&'a str>>,
}

impl<'a> Timeline<'a> {
    pub fn new(committed: &'a Committed, scope: Option<&'a KeySpan>) -> Timeline<'a> {
        let mut timeline = Timeline {
            after: committed.after,
            last: committed.last(),
            complete: committed.content.is_some(),
            scope,
            revisions: BTreeMap::new(),
            listed: &committed.revisions,
            keys: BTreeMap::new(),
            attached: BTreeMap::new(),
        };
        for kv in committed.content.iter().flatten() {
            timeline.change(&kv.key, committed.after, Some(kv.clone()));
        }
        for listed in &committed.revisions {
            timeline.revisions.insert(listed.revision, listed);
            for event in &listed.events {
                timeline.change(&event.key, listed.revision, event.key_value());
            }
        }
        timeline
    }

    fn change(&mut self, key: &'a str, revision: Revision, kv: Option<KeyValue>) {
        if let Some(kv) = kv.as_ref().filter(|kv| kv.lease != 0) {
            self.attached.entry(kv.lease).or_default().insert(key);
        }
        let versions = self.keys.entry(key).or_default();
        match versions.last_mut() {
            Some(last) if last.0 == revision => last.1 = kv,
            _ => versions.push((revision, kv)),
        }
    }

    pub fn after(&self) -> Revision {
        self.after
    }

    pub fn last(&self) -> Revision {
        self.last
    }

    /// Whether every revision there was is listed.
    pub fn lists_all(&self) -> bool {
        self.scope.is_none()
    }

    pub fn revision(&self, revision: Revision) -> Option<&'a CommittedRevision> {
        self.revisions.get(&revision).copied()
    }

    /// From this revision on, ascending.
    pub fn revisions(&self, from: Revision) -> impl Iterator<Item = &'a CommittedRevision> + '_ {
        self.revisions.range(from..).map(|(_, listed)| *listed)
    }

    /// The key once everything up to the revision had happened.
    pub fn at(&self, key: &str, revision: Revision) -> Known<'_> {
        if revision < self.after || self.scope.is_some_and(|scope| !scope.contains(key)) {
            return Known::Unknown;
        }
        let versions = self.keys.get(key).map(Vec::as_slice).unwrap_or_default();
        let until = versions.partition_point(|(at, _)| *at <= revision);
        match until.checked_sub(1).map(|last| &versions[last].1) {
            Some(Some(kv)) => Known::Present(kv),
            Some(None) => Known::Absent,
            None if self.complete => Known::Absent,
            None => Known::Unknown,
        }
    }

    /// The next change of the key after this revision, and what it became.
    pub fn next_change(&self, key: &str, revision: Revision) -> Option<&(Revision, Option<KeyValue>)> {
        let versions = self.keys.get(key)?;
        versions.get(versions.partition_point(|(at, _)| *at <= revision))
    }

    /// All keys of the span at the revision, in order; `None`: not known.
    pub fn range(&self, span: &KeySpan, revision: Revision) -> Option<Vec<&KeyValue>> {
        if span.to.is_empty() {
            return match self.at(&span.from, revision) {
                Known::Unknown => None,
                Known::Absent => Some(Vec::new()),
                Known::Present(kv) => Some(vec![kv]),
            };
        }
        let outside = self.scope.is_some_and(|scope| !span.is_within(scope));
        if !self.complete || outside || revision < self.after {
            return None;
        }
        let within = self.keys.range(span.from.as_str()..).map(|(key, _)| *key);
        let mut found = Vec::new();
        for key in within.take_while(|key| span.contains(key)) {
            match self.at(key, revision) {
                Known::Unknown => return None,
                Known::Absent => {}
                Known::Present(kv) => found.push(kv),
            }
        }
        Some(found)
    }

    /// The keys that hang on the lease at the revision, as far as known.
    pub fn attached(&self, lease: i64, revision: Revision) -> Vec<&str> {
        let ever = self.attached.get(&lease).into_iter().flatten();
        ever.filter(|key| self.lease_of(key, revision) == Some(lease))
            .copied()
            .collect()
    }

    /// The lease that the key hangs on at the revision, if it is there.
    pub fn lease_of(&self, key: &str, revision: Revision) -> Option<i64> {
        match self.at(key, revision) {
            Known::Present(kv) => Some(kv.lease),
            _ => None,
        }
    }
}
