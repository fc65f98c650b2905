//! The search for an order agrees with trying every order.

use std::collections::BTreeMap;

use barque_checks::{
    History, Verdict,
    history::{
        Answer, Compare, KeySpan, KeyValue, Operation, Outcome, Relation, Request, Response, Shape, Target,
    },
    linearizability::by_values,
    minimal::minimal,
};
use proptest::prelude::*;

use super::dice::Dice;

const KEYS: [&str; 2] = ["a", "b"];

type State = BTreeMap<String, String>;

/// Few operations, half of them answered at random.
fn history(seed: u64) -> History {
    let mut dice = Dice::new(seed);
    let count = 2 + dice.below(5);
    let operations = (0..count)
        .map(|index| operation(index, count, &mut dice))
        .collect();
    History {
        operations,
        ..History::default()
    }
}

fn operation(index: u64, count: u64, dice: &mut Dice) -> Operation {
    let request = request(index, dice);
    let outcome = if request.may_write() && dice.in_hundred(30) {
        Outcome::Unknown(String::new())
    } else {
        let revision = dice.below(4) as i64;
        let answer = answer(&request, count, dice);
        Outcome::Done(Response { revision, answer })
    };
    let call = dice.below(12);
    let ret = match outcome {
        Outcome::Unknown(_) => None,
        _ => Some(call + 1 + dice.below(6)),
    };
    Operation {
        client: index as u32,
        member: 0,
        life: 0,
        call,
        ret,
        request,
        outcome,
    }
}

fn request(index: u64, dice: &mut Dice) -> Request {
    let key = KEYS[dice.below(2) as usize];
    match dice.below(6) {
        0 | 1 => Request::Put {
            key: key.to_owned(),
            value: format!("v{index}"),
            prev_kv: dice.in_hundred(30),
            lease: 0,
        },
        2 => Request::Delete {
            key: key.to_owned(),
            prev_kv: dice.in_hundred(50),
        },
        3 => Request::get(key),
        4 => Request::Range {
            from: "a".to_owned(),
            to: "c".to_owned(),
            serializable: false,
            revision: 0,
            limit: dice.below(2) as i64,
            shape: Shape::default(),
        },
        _ => txn(index, key, dice),
    }
}

fn txn(index: u64, key: &str, dice: &mut Dice) -> Request {
    let relation = if dice.in_hundred(60) {
        Relation::Equal
    } else {
        Relation::NotEqual
    };
    let target = match dice.below(2) {
        0 => Target::Value(format!("v{}", dice.below(4))),
        _ => Target::Version(0),
    };
    let other = KEYS[dice.below(2) as usize];
    Request::Txn {
        compares: vec![Compare {
            key: key.to_owned(),
            to: String::new(),
            target,
            relation,
        }],
        then: vec![Request::put(other, format!("v{index}"))],
        otherwise: if dice.in_hundred(50) {
            vec![Request::get(key)]
        } else {
            vec![Request::delete(other)]
        },
    }
}

fn answer(request: &Request, count: u64, dice: &mut Dice) -> Answer {
    match request {
        Request::Put { key, prev_kv, .. } => Answer::Put {
            prev_kv: some(key, count, dice).filter(|_| *prev_kv),
        },
        Request::Delete { key, prev_kv } => {
            let deleted = dice.below(2) as i64;
            let prev = some(key, count, dice).unwrap_or_else(|| version(key, "v0".to_owned()));
            let told = deleted > 0 && *prev_kv;
            Answer::Delete {
                deleted,
                prev_kvs: if told { vec![prev] } else { Vec::new() },
            }
        }
        Request::Get { key, .. } => {
            let kvs: Vec<KeyValue> = some(key, count, dice).into_iter().collect();
            Answer::Range {
                count: kvs.len() as i64,
                kvs,
                more: false,
            }
        }
        Request::Range { limit, .. } => {
            let mut kvs: Vec<KeyValue> = KEYS.iter().filter_map(|key| some(key, count, dice)).collect();
            let count = kvs.len() as i64;
            if *limit > 0 {
                kvs.truncate(*limit as usize);
            }
            let more = (kvs.len() as i64) < count;
            Answer::Range { kvs, count, more }
        }
        Request::Txn { then, otherwise, .. } => {
            let succeeded = dice.in_hundred(50);
            let taken = if succeeded { then } else { otherwise };
            let responses = taken.iter().map(|request| Response {
                revision: 0,
                answer: answer(request, count, dice),
            });
            let responses = responses.collect();
            Answer::Txn { succeeded, responses }
        }
        other => panic!("not drawn here: {other}"),
    }
}

fn some(key: &str, count: u64, dice: &mut Dice) -> Option<KeyValue> {
    dice.in_hundred(65)
        .then(|| version(key, format!("v{}", dice.below(count))))
}

fn version(key: &str, value: String) -> KeyValue {
    KeyValue {
        key: key.to_owned(),
        value,
        ..KeyValue::default()
    }
}

/// Whether some order of all answered operations and some of the unknown ones explains the answers.
fn has_order(left: &[&Operation], state: &State) -> bool {
    if left.iter().all(|operation| operation.is_unknown()) {
        return true;
    }
    let first_return = left
        .iter()
        .filter_map(|operation| operation.ret)
        .min()
        .unwrap_or(u64::MAX);
    (0..left.len()).any(|at| {
        let operation = left[at];
        if operation.call > first_return {
            return false;
        }
        let mut rest = left.to_vec();
        rest.remove(at);
        let mut next = state.clone();
        let answer = run(&operation.request, state, &mut next);
        let agrees = operation
            .response()
            .is_none_or(|response| same(&answer, &response.answer));
        agrees && has_order(&rest, &next)
    })
}

fn run(request: &Request, before: &State, state: &mut State) -> Answer {
    let told = |key: &String, state: &State| state.get(key).map(|value| version(key, value.clone()));
    match request {
        Request::Put {
            key, value, prev_kv, ..
        } => {
            let prev_kv = told(key, state).filter(|_| *prev_kv);
            state.insert(key.clone(), value.clone());
            Answer::Put { prev_kv }
        }
        Request::Delete { key, prev_kv } => {
            let old = told(key, state);
            state.remove(key);
            Answer::Delete {
                deleted: old.iter().count() as i64,
                prev_kvs: old.into_iter().filter(|_| *prev_kv).collect(),
            }
        }
        Request::Txn {
            compares,
            then,
            otherwise,
        } => {
            let succeeded = compares.iter().all(|compare| {
                let value = before.get(&compare.key);
                match &compare.target {
                    Target::Value(given) => value.is_some_and(|value| compare.relation.holds(value, given)),
                    _ => compare.relation.holds(&i64::from(value.is_some()), &0),
                }
            });
            let taken = if succeeded { then } else { otherwise };
            let responses = taken.iter().map(|request| Response {
                revision: 0,
                answer: run(request, before, state),
            });
            let responses = responses.collect();
            Answer::Txn { succeeded, responses }
        }
        read => {
            let span = read.span().unwrap_or_else(|| KeySpan::one(""));
            let limit = if let Request::Range { limit, .. } = read {
                *limit as usize
            } else {
                0
            };
            let mut kvs: Vec<KeyValue> = state
                .iter()
                .filter(|(key, _)| span.contains(key))
                .map(|(key, value)| version(key, value.clone()))
                .collect();
            let count = kvs.len();
            kvs.truncate(if limit > 0 { limit } else { count });
            Answer::Range {
                more: kvs.len() < count,
                kvs,
                count: count as i64,
            }
        }
    }
}

fn same(expected: &Answer, got: &Answer) -> bool {
    expected == got
}

/// The writes of the branch that was taken.
fn taken(request: &Request, answer: &Answer) -> Vec<Request> {
    match (request, answer) {
        (Request::Txn { then, otherwise, .. }, Answer::Txn { succeeded, .. }) => {
            let taken = if *succeeded { then } else { otherwise };
            taken
                .iter()
                .filter(|request| request.may_write())
                .cloned()
                .collect()
        }
        (request, _) => vec![request.clone()],
    }
}

/// Reads that are not kept say nothing, writes that are not kept may or may not have happened.
fn weakened(history: &History, kept: &[usize]) -> History {
    let mut operations = Vec::new();
    for (index, operation) in history.operations.iter().enumerate() {
        let mut operation = operation.clone();
        if !kept.contains(&index) {
            if !operation.request.may_write() {
                continue;
            }
            if let Some(response) = operation.response() {
                operation.request = Request::Txn {
                    compares: Vec::new(),
                    then: taken(&operation.request, &response.answer),
                    otherwise: Vec::new(),
                };
            }
            operation.ret = None;
            operation.outcome = Outcome::Unknown(String::new());
        }
        operations.push(operation);
    }
    History {
        operations,
        ..History::default()
    }
}

fn by_brute_force(history: &History) -> bool {
    has_order(&history.operations.iter().collect::<Vec<_>>(), &State::new())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 6000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_search_finds_an_order_whenever_there_is_one(seed: u64) {
        let history = history(seed);
        let verdict = by_values(&history).verdict;
        prop_assert_ne!(&verdict, &Verdict::Undecided { why: String::new() });
        prop_assert_eq!(verdict == Verdict::Passed, by_brute_force(&history), "{:#?}", history.operations);
        if let Some(found) = minimal(&history) {
            prop_assert!(!by_brute_force(&weakened(&history, &found.operations)), "{:?} {:#?}", found, history.operations);
        }
    }
}

/// The random histories are of both kinds, so that agreeing about them means something.
#[test]
fn both_verdicts_are_met() {
    let ordered = (0..1000).filter(|seed| by_brute_force(&history(*seed))).count();
    assert!((100..900).contains(&ordered), "{ordered} of 1000 have an order");
}
