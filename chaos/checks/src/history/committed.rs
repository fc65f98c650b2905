//! The list of revisions that answers are compared with: [`Committed`].

use serde::{Deserialize, Serialize};

use super::{KeyValue, Revision, WatchEvent};

/// Every revision after `after`, with what it changed. In a simulation and with real processes alike it is what one
/// watch was told that followed the run from revision 1 to the end, going from member to member: the word of the system
/// under test itself. A change that it kept from that watch is found where an answer, another watch or a gap in the
/// revisions says otherwise; so is one that it told of and never made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Committed {
    /// 1 when nothing was ever compacted.
    pub after: Revision,
    /// All keys (of the scope) as they were at `after`, which is still readable; `None`: not known.
    pub content: Option<Vec<KeyValue>>,
    /// Ascending. Without a scope none is left out; with one, those that change no key of it may be.
    pub revisions: Vec<CommittedRevision>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CommittedRevision {
    pub revision: Revision,
    /// In the order in which the revision made them.
    pub events: Vec<WatchEvent>,
}

impl Committed {
    /// The revisions of a store from its beginning.
    pub fn whole(revisions: Vec<CommittedRevision>) -> Committed {
        Committed {
            after: 1,
            content: Some(Vec::new()),
            revisions,
        }
    }

    /// From events in the order of a watch.
    pub fn from_events(
        after: Revision,
        content: Option<Vec<KeyValue>>,
        events: impl IntoIterator<Item = WatchEvent>,
    ) -> Committed {
        let mut revisions: Vec<CommittedRevision> = Vec::new();
        for event in events {
            match revisions.last_mut() {
                Some(last) if last.revision == event.revision => last.events.push(event),
                _ => revisions.push(CommittedRevision {
                    revision: event.revision,
                    events: vec![event],
                }),
            }
        }
        Committed {
            after,
            content,
            revisions,
        }
    }

    /// The newest revision.
    pub fn last(&self) -> Revision {
        self.revisions.last().map_or(self.after, |last| last.revision)
    }
}
