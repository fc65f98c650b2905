//! What may have been compacted, and what certainly was: [`Compactions`].

use crate::history::{History, Request, Revision};

pub(crate) struct Compactions {
    /// (call, revision) of all that may have taken effect.
    attempted: Vec<(u64, Revision)>,
    /// (return, revision) of the acknowledged ones, by return, each with the highest so far.
    acknowledged: Vec<(u64, Revision)>,
    /// The highest that a member spoke of; the members may compact by themselves.
    told: Option<Revision>,
}

impl Compactions {
    pub fn new(history: &History) -> Compactions {
        let (mut attempted, mut acknowledged) = (Vec::new(), Vec::new());
        for operation in &history.operations {
            let Request::Compact { revision } = operation.request else {
                continue;
            };
            if !operation.is_not_applied() {
                attempted.push((operation.call, revision));
            }
            if let Some((_, ret)) = operation.answered() {
                acknowledged.push((ret, revision));
            }
        }
        acknowledged.sort_unstable();
        let mut highest = 0;
        for (_, revision) in &mut acknowledged {
            highest = highest.max(*revision);
            *revision = highest;
        }
        Compactions {
            attempted,
            acknowledged,
            told: history.states.iter().map(|state| state.compact_revision).max(),
        }
    }

    /// Whether a compaction at this revision or above may have happened by then. Without any word of the members the
    /// answer is that it may.
    pub fn may_have_reached(&self, revision: Revision, by: u64) -> bool {
        self.were_asked_for(revision, by) || self.told.is_none_or(|told| told >= revision)
    }

    /// Whether a client had asked by then for a compaction at this revision or above.
    pub fn were_asked_for(&self, revision: Revision, by: u64) -> bool {
        let mut attempted = self.attempted.iter();
        attempted.any(|(call, at)| *call <= by && *at >= revision)
    }

    /// The highest compacted revision that was acknowledged before this moment.
    pub fn acknowledged_before(&self, moment: u64) -> Revision {
        let earlier = self.acknowledged.partition_point(|(ret, _)| *ret < moment);
        earlier.checked_sub(1).map_or(0, |last| self.acknowledged[last].1)
    }
}
