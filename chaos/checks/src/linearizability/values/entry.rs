//! An operation as the search sees it: [`Entry`].

use std::rc::Rc;

use crate::history::Relation;

/// An index into the sorted keys of the history.
pub(crate) type Key = usize;

/// An index into the sorted values of the history, from 1 on, so that the order of numbers is that of the texts.
pub(crate) type Value = u32;

/// The key is not there.
pub(crate) const ABSENT: Value = 0;

/// Something that took effect at one moment, or may have.
#[derive(Debug, Clone)]
pub(crate) struct Entry {
    /// Its index in the history.
    pub operation: usize,
    pub call: u64,
    /// `None`: it may take effect at any moment after the call, or never.
    pub ret: Option<u64>,
    /// What to try first; decides nothing.
    pub hint: u64,
    /// What it may have done. More than one only if the outcome is unknown.
    pub alternatives: Vec<Alternative>,
    /// It can happen only while the key has this value, which it changes.
    pub trigger: Option<(Key, Value)>,
    /// Of an optional entry among those of the same search that do the same.
    pub alike: Option<Alike>,
}

/// A place among entries that do the same.
#[derive(Debug, Clone)]
pub(crate) struct Alike {
    /// The one that is to be used before it.
    pub only_after: Option<usize>,
    /// The hints of all, in order, and which of them is the first that is left for this one.
    pub hints: Rc<[u64]>,
    pub turn: usize,
}

/// One way in which an operation can have gone.
#[derive(Debug, Clone, Default)]
pub(crate) struct Alternative {
    /// Of the state before; must not be contradicted.
    pub conditions: Vec<Condition>,
    pub steps: Vec<Step>,
}

/// That all tests hold, or that not all do.
#[derive(Debug, Clone)]
pub(crate) struct Condition {
    pub tests: Vec<(Key, Test)>,
    pub expected: bool,
}

#[derive(Debug, Clone, Copy)]
pub(crate) enum Test {
    /// Of the value.
    Text { relation: Relation, given: Value },
    /// Of a revision or a version, which is 0 for a missing key and otherwise at least 1. `names`: the value of the
    /// version that the given number belongs to, if that is known.
    Number {
        relation: Relation,
        given: i64,
        names: Option<Value>,
    },
}

#[derive(Debug, Clone)]
pub(crate) enum Step {
    Expect {
        key: Key,
        value: Value,
    },
    /// Some value, not told which.
    Present {
        key: Key,
    },
    Write {
        key: Key,
        value: Value,
    },
    List(List),
}

/// What a range read returned: of the keys `from..to` the first ones, and how many there are.
#[derive(Debug, Clone)]
pub(crate) struct List {
    pub from: Key,
    pub to: Key,
    pub shown: Vec<(Key, Value)>,
    pub count: usize,
}

impl Entry {
    pub fn new(
        operation: usize,
        call: u64,
        ret: Option<u64>,
        hint: u64,
        alternatives: Vec<Alternative>,
    ) -> Entry {
        Entry {
            operation,
            call,
            ret,
            hint,
            alternatives,
            trigger: None,
            alike: None,
        }
    }

    /// Whether it tells of more than its writes.
    pub fn says_something(&self) -> bool {
        let says = |way: &Alternative| {
            let only_writes = way.steps.iter().all(|step| matches!(step, Step::Write { .. }));
            !(only_writes && way.conditions.is_empty())
        };
        self.alternatives.iter().any(says)
    }

    /// Where it is to be tried once required entries up to a hint have been placed. An optional entry that was of no use
    /// where it was meant to be comes in where the next like it was, or is one of the last things to try.
    pub fn hint_from(&self, position: u64) -> u64 {
        match &self.alike {
            Some(alike) => {
                let left = &alike.hints[alike.turn..];
                let next = left.partition_point(|hint| *hint < position);
                left.get(next).copied().unwrap_or(u64::MAX)
            }
            None if self.is_optional() && self.hint < position => u64::MAX,
            None => self.hint,
        }
    }

    /// Whether it may as well never have happened.
    pub fn is_optional(&self) -> bool {
        self.ret.is_none()
    }

    /// One that has done the writes, or may have, and says nothing else; `None`: there are no writes.
    pub fn only_writes(&self, ret: Option<u64>) -> Option<Entry> {
        let only_writes = |way: &Alternative| Alternative {
            conditions: Vec::new(),
            steps: way
                .writes()
                .map(|(key, value)| Step::Write { key, value })
                .collect(),
        };
        let ways = self.alternatives.iter().map(only_writes);
        let ways: Vec<Alternative> = ways.filter(|way| !way.steps.is_empty()).collect();
        (!ways.is_empty()).then(|| Entry::new(self.operation, self.call, ret, self.hint, ways))
    }

    /// Calls `see` with every range of keys that it looks at or changes.
    pub fn visit_keys(&self, see: &mut impl FnMut(Key, Key)) {
        for alternative in &self.alternatives {
            for (key, _) in alternative
                .conditions
                .iter()
                .flat_map(|condition| &condition.tests)
            {
                see(*key, *key + 1);
            }
            for step in &alternative.steps {
                match step {
                    Step::Expect { key, .. } | Step::Present { key } | Step::Write { key, .. } => {
                        see(*key, *key + 1);
                    }
                    Step::List(list) => see(list.from, list.to),
                }
            }
        }
    }
}

impl Alternative {
    pub fn writes(&self) -> impl Iterator<Item = (Key, Value)> + '_ {
        self.steps.iter().filter_map(|step| match step {
            Step::Write { key, value } => Some((*key, *value)),
            _ => None,
        })
    }

    /// A key that it changes from one value, and that value.
    pub fn replaces(&self) -> Option<(Key, Value)> {
        let changes = |key: Key, value: Value| {
            self.writes()
                .filter(|(of, _)| *of == key)
                .last()
                .is_some_and(|(_, to)| to != value)
        };
        let before = self
            .steps
            .iter()
            .take_while(|step| !matches!(step, Step::Write { .. }));
        let mut expected = before.filter_map(|step| match step {
            Step::Expect { key, value } if *value != ABSENT => Some((*key, *value)),
            _ => None,
        });
        expected.find(|(key, value)| changes(*key, *value))
    }

    /// Does it to the state and logs what was there before; leaves all as it was and says no if it cannot be.
    pub fn apply(&self, state: &mut [Value], log: &mut Vec<(Key, Value)>) -> bool {
        if !self.conditions.iter().all(|condition| condition.may_hold(state)) {
            return false;
        }
        let mark = log.len();
        for step in &self.steps {
            if !step.apply(state, log) {
                undo(state, log, mark);
                return false;
            }
        }
        true
    }
}

/// Takes back what was logged since.
pub(crate) fn undo(state: &mut [Value], log: &mut Vec<(Key, Value)>, mark: usize) {
    for (key, value) in log.drain(mark..).rev() {
        state[key] = value;
    }
}

impl Step {
    fn apply(&self, state: &mut [Value], log: &mut Vec<(Key, Value)>) -> bool {
        match self {
            Step::Expect { key, value } => state[*key] == *value,
            Step::Present { key } => state[*key] != ABSENT,
            Step::Write { key, value } => {
                if state[*key] != *value {
                    log.push((*key, state[*key]));
                    state[*key] = *value;
                }
                true
            }
            Step::List(list) => list.agrees(state),
        }
    }
}

impl List {
    /// Whether keys were left out by a limit.
    pub fn is_cut(&self) -> bool {
        self.shown.len() < self.count
    }

    /// What each key before this one is, the list says exactly; of the others no more than how many there are.
    pub fn told_until(&self) -> Key {
        match self.shown.last() {
            _ if !self.is_cut() => self.to,
            Some((last, _)) => last + 1,
            None => self.from,
        }
    }

    fn agrees(&self, state: &[Value]) -> bool {
        let mut shown = self.shown.iter();
        let mut count = 0;
        for (key, value) in (self.from..self.to).map(|key| (key, state[key])) {
            if value == ABSENT {
                continue;
            }
            count += 1;
            if count <= self.shown.len() && shown.next() != Some(&(key, value)) {
                return false;
            }
        }
        count == self.count
    }
}

impl Condition {
    fn may_hold(&self, state: &[Value]) -> bool {
        let mut all = Some(true);
        for (key, test) in &self.tests {
            match test.holds(state[*key]) {
                Some(true) => {}
                Some(false) => return !self.expected,
                None => all = None,
            }
        }
        all.is_none_or(|all| all == self.expected)
    }
}

impl Test {
    /// `None`: values alone cannot tell.
    fn holds(self, value: Value) -> Option<bool> {
        match self {
            Test::Text { relation, given } => Some(value != ABSENT && relation.holds(&value, &given)),
            Test::Number { relation, given, .. } if value == ABSENT => Some(relation.holds(&0, &given)),
            Test::Number { relation, given, .. } if given <= 0 => Some(relation.holds(&1, &given)),
            Test::Number {
                relation,
                names: Some(named),
                ..
            } => match relation {
                Relation::Equal => Some(value == named),
                Relation::NotEqual => Some(value != named),
                Relation::Less | Relation::Greater => (value == named).then_some(false),
            },
            Test::Number { names: None, .. } => None,
        }
    }

    /// The step that says the same as this test when it must hold, if there is one.
    pub fn as_step(self, key: Key) -> Option<Step> {
        let absent = Step::Expect { key, value: ABSENT };
        match self {
            Test::Text {
                relation: Relation::Equal,
                given,
            } => Some(Step::Expect { key, value: given }),
            Test::Number {
                relation,
                given,
                names,
            } => match (relation, given, names) {
                (Relation::Equal, 0, _) | (Relation::Less, 1, _) => Some(absent),
                (Relation::NotEqual | Relation::Greater, 0, _) => Some(Step::Present { key }),
                (Relation::Equal, _, Some(value)) => Some(Step::Expect { key, value }),
                _ => None,
            },
            Test::Text { .. } => None,
        }
    }
}
