//! What a watch must be told, in order, and how far it was: [`Expected`].

use crate::{
    history::{Revision, WatchEvent, WatchRecord},
    model::Timeline,
};

pub(super) struct Expected<'a> {
    events: Vec<&'a WatchEvent>,
    /// How many of them were told.
    told: usize,
    /// Nothing is known of what happened up to here.
    after: Revision,
}

/// How an event stands to what comes next.
pub(super) enum Place<'a> {
    Next,
    /// These were left out before it.
    Ahead(&'a [&'a WatchEvent]),
    /// It was told before, or its turn is over.
    Behind,
    /// No such change was committed.
    Nowhere,
    /// Too old to tell.
    Unknown,
}

impl<'a> Expected<'a> {
    pub fn new(watch: &WatchRecord, timeline: &Timeline<'a>, start: Revision) -> Expected<'a> {
        let from = start.max(timeline.after() + 1);
        let events = timeline.revisions(from).flat_map(|listed| &listed.events);
        Expected {
            events: events.filter(|event| watch.wants(event)).collect(),
            told: 0,
            after: timeline.after(),
        }
    }

    /// Takes the event as told.
    pub fn take(&mut self, event: &WatchEvent) -> Place<'_> {
        if event.revision <= self.after {
            return Place::Unknown;
        }
        let first = self
            .events
            .partition_point(|expected| expected.revision < event.revision);
        let same = self.events[first..]
            .iter()
            .take_while(|expected| expected.revision == event.revision);
        let fits = |at: &usize| self.events[*at].is_same_change(event);
        let candidates = first..first + same.count();
        // A key that changes twice in one revision may have two equal deletes: the one whose turn it is is meant.
        let Some(at) = candidates
            .clone()
            .filter(|at| *at >= self.told)
            .find(fits)
            .or(candidates.clone().find(fits))
        else {
            return Place::Nowhere;
        };
        if at < self.told {
            return Place::Behind;
        }
        let before = self.told;
        self.told = at + 1;
        match at == before {
            true => Place::Next,
            false => Place::Ahead(&self.events[before..at]),
        }
    }

    /// The first event up to this revision that was not told.
    pub fn missing(&self, up_to: Revision) -> Option<&'a WatchEvent> {
        self.events
            .get(self.told)
            .copied()
            .filter(|event| event.revision <= up_to)
    }
}
