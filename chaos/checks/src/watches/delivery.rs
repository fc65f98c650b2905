//! The responses of one watch, looked at one after the other: [`Delivery`].

use super::expected::{Expected, Place};
use crate::{
    history::{EventKind, Revision, WatchEvent, WatchKind, WatchRecord, WatchResponse},
    model::{Evidence, Known},
    verdict::{Findings, Violation},
};

pub(super) struct Delivery<'e, 'a> {
    watch: &'e WatchRecord,
    evidence: &'e Evidence<'a>,
    /// From the creation on.
    start: Option<Revision>,
    /// `None` too: what was committed is not known.
    expected: Option<Expected<'e>>,
    header: Revision,
    /// The newest event, and whether its response was to go on.
    last_event: Revision,
    goes_on: bool,
    progress: Revision,
    cancelled: bool,
}

impl<'e, 'a> Delivery<'e, 'a> {
    pub fn new(watch: &'e WatchRecord, evidence: &'e Evidence<'a>) -> Delivery<'e, 'a> {
        Delivery {
            watch,
            evidence,
            start: None,
            expected: None,
            header: 0,
            last_event: 0,
            goes_on: false,
            progress: 0,
            cancelled: false,
        }
    }

    pub fn check(mut self, findings: &mut Findings) {
        for response in &self.watch.responses {
            findings.count(1);
            for (text, revision) in self.respond(response) {
                findings.add(Violation::new(text).watched(self.watch.id).at(revision));
            }
        }
    }

    fn respond(&mut self, response: &'e WatchResponse) -> Vec<(String, Revision)> {
        let mut wrong = Vec::new();
        self.check_sequence(response, &mut wrong);
        match &response.kind {
            WatchKind::Created => self.create(response.header_revision),
            WatchKind::Events { events, fragment } => self.deliver(response, events, *fragment, &mut wrong),
            WatchKind::Progress => self.promise(response.header_revision, &mut wrong),
            WatchKind::Cancelled { compact_revision, .. } => {
                self.cancelled = true;
                if *compact_revision > 0 {
                    self.cut(*compact_revision, response.time, &mut wrong);
                }
            }
        }
        self.header = self.header.max(response.header_revision);
        wrong
    }

    fn check_sequence(&self, response: &WatchResponse, wrong: &mut Vec<(String, Revision)>) {
        let header = response.header_revision;
        let created = self.start.is_some();
        let text = match &response.kind {
            _ if self.cancelled => "a response after the cancellation",
            WatchKind::Created if created => "created twice",
            WatchKind::Events { .. } | WatchKind::Progress if !created => "a response before the creation",
            WatchKind::Created | WatchKind::Progress if self.goes_on => "a response between two fragments",
            _ => "",
        };
        if !text.is_empty() {
            wrong.push((text.to_owned(), header));
        }
        let told = header > 0 || !matches!(response.kind, WatchKind::Cancelled { .. });
        if told && header < self.header {
            wrong.push((
                format!("the header's revision went back from {}", self.header),
                header,
            ));
        }
    }

    fn create(&mut self, header: Revision) {
        let start = match self.watch.start_revision {
            0 => header + 1,
            start => start,
        };
        if self.start.is_none() {
            self.start = Some(start);
            self.expected = self
                .evidence
                .timeline()
                .map(|timeline| Expected::new(self.watch, timeline, start));
        }
    }

    fn deliver(
        &mut self,
        response: &WatchResponse,
        events: &'e [WatchEvent],
        fragment: bool,
        wrong: &mut Vec<(String, Revision)>,
    ) {
        if fragment && !self.watch.fragment {
            wrong.push((
                "fragments that were not asked for".to_owned(),
                response.header_revision,
            ));
        }
        let before = if self.goes_on { 0 } else { self.last_event };
        if let Some(first) = events.first().filter(|first| first.revision == before) {
            wrong.push(("one revision in two responses".to_owned(), first.revision));
        }
        for event in events {
            self.check_event(event, response, wrong);
            self.take(event, wrong);
            self.last_event = self.last_event.max(event.revision);
        }
        self.goes_on = fragment;
        let missing = self
            .expected
            .as_ref()
            .and_then(|expected| expected.missing(self.last_event));
        if let Some(missing) = missing.filter(|_| !fragment) {
            wrong.push((
                format!("not all of a revision: without {missing}"),
                missing.revision,
            ));
        }
    }

    /// What can be said of an event whatever was committed.
    fn check_event(&self, event: &WatchEvent, response: &WatchResponse, wrong: &mut Vec<(String, Revision)>) {
        let revision = event.revision;
        let mut say = |text: String| wrong.push((text, revision));
        if !self.watch.wants(event) {
            say(format!("not asked for: {event}"));
        }
        if self.start.is_some_and(|start| revision < start) {
            say(format!("before the start revision: {event}"));
        }
        if revision < self.last_event {
            say(format!(
                "out of order, after revision {}: {event}",
                self.last_event
            ));
        }
        if revision <= self.progress {
            say(format!("after a progress of revision {}: {event}", self.progress));
        }
        if revision > response.header_revision {
            say(format!(
                "newer than the header's revision {}: {event}",
                response.header_revision
            ));
        }
        let bare = WatchEvent {
            prev_kv: event.prev_kv.clone(),
            ..WatchEvent::delete(&event.key, revision)
        };
        if event.kind == EventKind::Delete && *event != bare {
            say(format!("a delete carries more than key and revision: {event}"));
        }
        if let Some(text) = self.wrong_previous(event, response.time) {
            say(text);
        }
    }

    /// The key one revision before; it may be missing when that is compacted.
    fn wrong_previous(&self, event: &WatchEvent, time: u64) -> Option<String> {
        if !self.watch.prev_kv {
            return event
                .prev_kv
                .as_ref()
                .map(|_| format!("prev_kv was not asked for: {event}"));
        }
        let previous = match self.evidence.timeline()?.at(&event.key, event.revision - 1) {
            Known::Unknown => return None,
            Known::Absent => None,
            Known::Present(kv) => Some(kv),
        };
        match (&event.prev_kv, previous) {
            (Some(got), Some(expected)) if got == expected => None,
            (None, None) => None,
            (None, Some(_)) if self.evidence.compactions.may_have_reached(event.revision, time) => None,
            (got, expected) => {
                let shown =
                    |kv: Option<&crate::history::KeyValue>| kv.map_or("none".to_owned(), ToString::to_string);
                Some(format!(
                    "prev_kv {} instead of {}: {event}",
                    shown(got.as_ref()),
                    shown(expected)
                ))
            }
        }
    }

    fn take(&mut self, event: &WatchEvent, wrong: &mut Vec<(String, Revision)>) {
        let Some(expected) = &mut self.expected else {
            return;
        };
        let text = match expected.take(event) {
            Place::Next | Place::Unknown => return,
            Place::Ahead(skipped) => {
                let first = skipped.first().map(ToString::to_string).unwrap_or_default();
                format!("{} missing before {event}, first {first}", skipped.len())
            }
            Place::Behind => format!("told again, or too late: {event}"),
            // What is outside the filters or before the start was said to be so already.
            Place::Nowhere if !self.watch.wants(event) => return,
            Place::Nowhere if self.start.is_some_and(|start| event.revision < start) => return,
            Place::Nowhere => format!("never committed: {event}"),
        };
        wrong.push((text, event.revision));
    }

    /// A member that has not come as far as the start of the watch says how far it is: nothing is promised by that.
    fn promise(&mut self, revision: Revision, wrong: &mut Vec<(String, Revision)>) {
        let missing = self
            .expected
            .as_ref()
            .and_then(|expected| expected.missing(revision));
        if let Some(missing) = missing {
            wrong.push((
                format!("progress of revision {revision} without {missing}"),
                missing.revision,
            ));
        }
        self.progress = self.progress.max(revision);
    }

    /// Cancelled because something was compacted that the watch had still to be told.
    fn cut(&self, compacted: Revision, time: u64, wrong: &mut Vec<(String, Revision)>) {
        let needed = self
            .start
            .unwrap_or(self.watch.start_revision)
            .max(self.last_event.max(self.progress) + 1);
        if needed >= compacted && (self.start.is_some() || self.watch.start_revision > 0) {
            let text =
                format!("cancelled by a compaction at {compacted}, with {needed} as the next revision");
            wrong.push((text, compacted));
        }
        if !self.evidence.compactions.may_have_reached(compacted, time) {
            wrong.push((
                format!("cancelled by a compaction at {compacted} that never was"),
                compacted,
            ));
        }
    }
}
