//! What each follower has acknowledged to hold while this member leads: [`Acknowledged`].
//!
//! A follower that once held an entry of this leader's log durably holds it as long as this leadership lasts: nobody else
//! may make it remove one. If it then lacks the entry, its disk has lost what was acknowledged, perhaps counted for a
//! commit. openraft takes that for granted; here it is found.
//!
//! Only what was acknowledged **before** a request was sent proves anything about the answer to it, because two lanes carry
//! requests to one follower and their answers overtake each other. Worked example, the follower's log ending at 40:
//!
//! ```text
//! Control lane: heartbeat after 50 is sent        (acknowledged then: 40)
//! the follower answers it with "conflict at 50"
//! Entries lane: 41 to 60 are sent, and acknowledged
//! the answer to the heartbeat arrives             acknowledged now: 60, but 40 when it was sent: nothing is lost
//! Control lane: heartbeat after 50 is sent        (acknowledged then: 60)
//! the follower answers it with "conflict at 50"   50 <= 60: it has lost entry 50
//! ```

use std::{collections::HashMap, sync::Arc};

use parking_lot::Mutex;

/// The highest index that each member has acknowledged, and the term of the leadership in which it did.
#[derive(Debug, Clone, Default)]
pub struct Acknowledged(Arc<Mutex<HashMap<u64, (u64, u64)>>>);

impl Acknowledged {
    /// In the leadership of `term`; `None`: nothing yet.
    pub fn by(&self, member_id: u64, term: u64) -> Option<u64> {
        let acknowledged = self.0.lock();
        let (of, index) = acknowledged.get(&member_id)?;
        (*of == term).then_some(*index)
    }

    /// Answers of an earlier leadership say nothing about this one.
    pub fn note(&self, member_id: u64, term: u64, index: u64) {
        let mut acknowledged = self.0.lock();
        let entry = acknowledged.entry(member_id).or_insert((term, index));
        match entry.0.cmp(&term) {
            std::cmp::Ordering::Less => *entry = (term, index),
            std::cmp::Ordering::Equal => entry.1 = entry.1.max(index),
            std::cmp::Ordering::Greater => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_leadership_under_way_counts() {
        let acknowledged = Acknowledged::default();
        assert_eq!(acknowledged.by(1, 5), None);
        acknowledged.note(1, 5, 10);
        acknowledged.note(1, 5, 8);
        assert_eq!((acknowledged.by(1, 5), acknowledged.by(2, 5)), (Some(10), None));
        acknowledged.note(1, 6, 3);
        acknowledged.note(1, 5, 20);
        assert_eq!((acknowledged.by(1, 6), acknowledged.by(1, 5)), (Some(3), None));
    }
}
