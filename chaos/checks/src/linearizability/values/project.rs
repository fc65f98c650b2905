//! What an entry says about one key alone.
//!
//! If a history can be put in order, so can what it says about any one key. So a contradiction on one key is one of the
//! whole, and is found in a much smaller search.

use super::entry::{ABSENT, Alternative, Condition, Entry, Key, List, Step};

impl Entry {
    /// With the key as number 0; `None`: nothing is said about it.
    pub fn project(&self, key: Key) -> Option<Entry> {
        let mut alternatives: Vec<Alternative> =
            self.alternatives.iter().map(|way| way.project(key)).collect();
        if self.is_optional() {
            alternatives.retain(|way| way.writes().next().is_some());
        }
        let says = |way: &Alternative| !(way.steps.is_empty() && way.conditions.is_empty());
        let said = Entry::new(self.operation, self.call, self.ret, self.hint, alternatives);
        said.alternatives.iter().any(says).then_some(said)
    }
}

impl Alternative {
    fn project(&self, key: Key) -> Alternative {
        Alternative {
            conditions: self
                .conditions
                .iter()
                .filter_map(|condition| condition.project(key))
                .collect(),
            steps: self.steps.iter().filter_map(|step| step.project(key)).collect(),
        }
    }
}

impl Condition {
    /// That not all tests hold says nothing of one key when some are of others.
    fn project(&self, key: Key) -> Option<Condition> {
        let tests: Vec<_> = self
            .tests
            .iter()
            .filter(|(of, _)| *of == key)
            .map(|(_, test)| (0, *test))
            .collect();
        let says = match self.expected {
            true => !tests.is_empty(),
            false => tests.len() == self.tests.len(),
        };
        let expected = self.expected;
        says.then_some(Condition { tests, expected })
    }
}

impl Step {
    fn project(&self, key: Key) -> Option<Step> {
        match self {
            Step::Expect { key: of, value } if *of == key => Some(Step::Expect {
                key: 0,
                value: *value,
            }),
            Step::Present { key: of } if *of == key => Some(Step::Present { key: 0 }),
            Step::Write { key: of, value } if *of == key => Some(Step::Write {
                key: 0,
                value: *value,
            }),
            Step::List(list) => list.project(key),
            _ => None,
        }
    }
}

impl List {
    /// A list that was cut says nothing of what comes after its last key.
    fn project(&self, key: Key) -> Option<Step> {
        if !(self.from..self.to).contains(&key) {
            return None;
        }
        if self.to - self.from == 1 {
            let shown = self.shown.iter().map(|(_, value)| (0, *value)).collect();
            return Some(Step::List(List {
                from: 0,
                to: 1,
                shown,
                count: self.count,
            }));
        }
        let shown = self.shown.iter().find(|(of, _)| *of == key);
        let told = key < self.told_until();
        match shown {
            Some((_, value)) => Some(Step::Expect {
                key: 0,
                value: *value,
            }),
            None => told.then_some(Step::Expect {
                key: 0,
                value: ABSENT,
            }),
        }
    }
}
