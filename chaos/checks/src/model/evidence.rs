//! What every check needs to know of a history, derived once: [`Evidence`].

use super::{Compactions, Owners, Sightings, Timeline};
use crate::history::History;

pub(crate) struct Evidence<'a> {
    pub history: &'a History,
    pub sightings: Sightings,
    pub compactions: Compactions,
    /// `None`: the history does not tell what was committed.
    pub committed: Option<(Timeline<'a>, Owners)>,
}

impl<'a> Evidence<'a> {
    pub fn new(history: &'a History) -> Evidence<'a> {
        let sightings = Sightings::new(history);
        let committed = history.committed.as_ref().map(|committed| {
            let timeline = Timeline::new(committed, history.scope.as_ref());
            let owners = Owners::new(history, &timeline, &sightings);
            (timeline, owners)
        });
        Evidence {
            history,
            sightings,
            compactions: Compactions::new(history),
            committed,
        }
    }

    pub fn timeline(&self) -> Option<&Timeline<'a>> {
        self.committed.as_ref().map(|(timeline, _)| timeline)
    }
}
