//! Which revision was seen when: [`Sightings`].
//!
//! An answer with revision r proves that everything up to r was committed when it came, whoever answered.

use crate::history::{History, Revision};

/// Something that was seen, and the operation that saw it (`None`: a watch).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Sighting {
    pub time: u64,
    pub revision: Revision,
    pub operation: Option<usize>,
}

pub(crate) struct Sightings {
    /// By time, each with the newest revision so far.
    newest: Vec<Sighting>,
    /// By revision, each with the earliest time at which it or a later one was seen.
    earliest: Vec<Sighting>,
}

impl Sightings {
    pub fn new(history: &History) -> Sightings {
        let mut newest = collect(history);
        newest.sort_unstable();
        let mut earliest = newest.clone();
        earliest.sort_unstable_by_key(|sighting| (sighting.revision, sighting.time));
        for at in 1..newest.len() {
            let before = newest[at - 1];
            if before.revision >= newest[at].revision {
                newest[at].revision = before.revision;
                newest[at].operation = before.operation;
            }
        }
        for at in (1..earliest.len()).rev() {
            let (time, operation) = (earliest[at].time, earliest[at].operation);
            if time < earliest[at - 1].time {
                earliest[at - 1].time = time;
                earliest[at - 1].operation = operation;
            }
        }
        Sightings { newest, earliest }
    }

    /// The newest revision that anybody had seen before this moment, with whoever saw it.
    pub fn before(&self, moment: u64) -> Option<Sighting> {
        let earlier = self.newest.partition_point(|sighting| sighting.time < moment);
        earlier.checked_sub(1).map(|last| self.newest[last])
    }

    /// The newest revision that anybody had seen before this moment; 0 if none.
    pub fn floor(&self, moment: u64) -> Revision {
        self.before(moment).map_or(0, |sighting| sighting.revision)
    }

    /// When this revision had certainly been committed, at the earliest moment that anybody can say.
    pub fn first(&self, revision: Revision) -> Option<Sighting> {
        let older = self
            .earliest
            .partition_point(|sighting| sighting.revision < revision);
        self.earliest.get(older).copied()
    }
}

fn collect(history: &History) -> Vec<Sighting> {
    let mut all = Vec::new();
    for (index, operation) in history.operations.iter().enumerate() {
        if let Some((response, time)) = operation.answered() {
            all.push(Sighting {
                time,
                revision: response.revision,
                operation: Some(index),
            });
        }
    }
    for response in history.watches.iter().flat_map(|watch| &watch.responses) {
        all.push(Sighting {
            time: response.time,
            revision: response.newest(),
            operation: None,
        });
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::history::{Answer, Operation, Outcome, Request, Response};

    #[test]
    fn floors_and_first_sights() {
        let answered = |ret, revision| Operation {
            client: 0,
            member: 0,
            life: 0,
            call: 0,
            ret: Some(ret),
            request: Request::get("k"),
            outcome: Outcome::Done(Response {
                revision,
                answer: Answer::Compact,
            }),
        };
        let history = History {
            operations: vec![answered(10, 5), answered(20, 3), answered(30, 9), answered(25, 7)],
            ..History::default()
        };
        let sightings = Sightings::new(&history);
        assert_eq!(sightings.floor(10), 0);
        assert_eq!(sightings.floor(11), 5);
        assert_eq!(sightings.floor(21), 5);
        assert_eq!(sightings.floor(26), 7);
        assert_eq!(sightings.floor(99), 9);
        let first = |revision| sightings.first(revision).map(|sighting| sighting.time);
        assert_eq!(first(2), Some(10));
        assert_eq!(first(5), Some(10));
        assert_eq!(first(6), Some(25));
        assert_eq!(first(8), Some(30));
        assert_eq!(first(10), None);
    }
}
