//! Reads that are answered from the wrong moment: each is caught, by the check that is meant for it.

use barque_checks::{
    History,
    history::{Answer, KeySpan, Operation, Outcome, Request, Response},
    linearizability::by_values,
    minimal::minimal,
};

use super::{
    assert_caught,
    handmade::{REVISIONS, VALUES},
    operation_faults::{is_current_get, response, shown, with},
    store::Store,
};

const SERIALIZABLE: &str = "serializable reads";

fn key_of(operation: &Operation) -> Option<String> {
    Some(operation.request.span()?.from)
}

/// A get that could have been answered with what the key was before somebody's acknowledged put.
fn stale(history: &History, store: &Store) -> Option<(usize, i64)> {
    for (index, get) in history
        .operations
        .iter()
        .enumerate()
        .filter(|(_, get)| is_current_get(get))
    {
        let key = key_of(get)?;
        for put in history.operations.iter().filter(|put| put.changed()) {
            let (made, ret) = put.answered()?;
            let before = store.at(&key, made.revision - 1);
            let replaced = before.is_some() && before != store.at(&key, made.revision);
            if ret < get.call && replaced {
                return Some((index, made.revision - 1));
            }
        }
    }
    None
}

fn stale_content(history: &mut History, store: &Store) -> Option<()> {
    let (index, revision) = stale(history, store)?;
    let key = key_of(&history.operations[index])?;
    response(&mut history.operations[index])?.answer = shown(store.at(&key, revision));
    Some(())
}

#[test]
fn a_stale_read() {
    let history = with(stale_content);
    assert_caught(&history, VALUES, "no order");
    assert_caught(&history, REVISIONS, "instead of");
}

#[test]
fn a_stale_read_that_tells_its_age() {
    let history = with(|history, store| {
        let (index, revision) = stale(history, store)?;
        stale_content(history, store)?;
        response(&mut history.operations[index])?.revision = revision;
        Some(())
    });
    assert_caught(&history, VALUES, "no order");
    assert_caught(&history, REVISIONS, "had been seen before this was called");
}

#[test]
fn a_contradiction_is_made_small() {
    let history = with(stale_content);
    let found = minimal(&history).expect("a contradiction");
    assert!(found.operations.len() <= 4, "{found:?}");
    let kept = |index: &usize| history.operations[*index].clone();
    let small = History {
        operations: found.all().iter().map(kept).collect(),
        ..History::default()
    };
    assert!(by_values(&small).failed());
}

#[test]
fn a_read_from_the_future() {
    let history = with(|history, _| {
        let writes: Vec<(String, u64)> = history
            .operations
            .iter()
            .filter(|put| put.changed())
            .filter_map(|put| match &put.request {
                Request::Put { value, .. } => Some((value.clone(), put.call)),
                _ => None,
            })
            .collect();
        let get = history
            .operations
            .iter_mut()
            .filter(|get| is_current_get(get))
            .find_map(|get| {
                let Answer::Range { kvs, .. } = &get.response()?.answer else {
                    return None;
                };
                let (_, call) = writes
                    .iter()
                    .find(|(value, _)| *value == kvs.first().map_or("", |kv| kv.value.as_str()))?;
                (*call > 10).then_some((call - 10, get))
            })?;
        let (time, get) = get;
        (get.call, get.ret) = (time, Some(time + 5));
        Some(())
    });
    assert_caught(&history, REVISIONS, "was seen before the operation was called");
    assert_caught(&history, VALUES, "no order");
}

#[test]
fn a_range_that_shows_two_moments_at_once() {
    let history = with(|history, store| {
        let span = KeySpan::new("k", "l");
        for index in 0..history.operations.len() {
            let Request::Range {
                serializable: false,
                limit: 0,
                shape,
                ..
            } = history.operations[index].request
            else {
                continue;
            };
            if !shape.is_plain() {
                continue;
            }
            let own = history.operations[index].request.span()?;
            let call = history.operations[index].call;
            let Answer::Range { kvs, .. } = &mut response(&mut history.operations[index])?.answer else {
                continue;
            };
            for kv in kvs {
                let before = store.content(&span, kv.mod_revision - 1);
                let old = before
                    .into_iter()
                    .find(|old| old.key == kv.key && own.contains(&old.key));
                if let Some(old) = old.filter(|_| store.times[kv.mod_revision as usize - 2] + 5000 < call) {
                    *kv = old;
                    return Some(());
                }
            }
        }
        None
    });
    assert_caught(&history, REVISIONS, "instead of");
    assert_caught(&history, VALUES, "no order");
}

#[test]
fn compaction() {
    let answered = with(|history, store| {
        let compact = history
            .operations
            .iter()
            .find_map(|operation| match operation.request {
                Request::Compact { revision } if operation.response().is_some() => {
                    Some((operation.ret?, revision))
                }
                _ => None,
            });
        let (compacted, at) = compact?;
        for operation in &mut history.operations {
            let late = operation.call > compacted;
            let Request::Get { key, revision, .. } = &operation.request else {
                continue;
            };
            let (key, revision) = (key.clone(), *revision);
            if late && revision > 0 && revision < at && operation.is_not_applied() {
                operation.outcome = Outcome::Done(Response {
                    revision: store.revision_at(operation.ret?),
                    answer: shown(store.at(&key, revision)),
                });
                return Some(());
            }
        }
        None
    });
    assert_caught(&answered, REVISIONS, "below the compacted revision");

    let refused = with(|history, store| {
        let past = history
            .operations
            .iter_mut()
            .find(|operation| match operation.request {
                Request::Get { revision, .. } => revision > store.compacted && operation.response().is_some(),
                _ => false,
            })?;
        past.outcome = Outcome::NotApplied(super::store::COMPACTED.to_owned());
        Some(())
    });
    assert_caught(&refused, REVISIONS, "refused as compacted, which it was not");
}

#[test]
fn a_member_that_goes_back() {
    let history = with(|history, store| {
        let mut newest = [(0, 0); 3];
        for operation in &mut history.operations {
            let (call, member, key) = (operation.call, operation.member as usize, key_of(operation));
            let single = matches!(
                operation.request,
                Request::Get {
                    serializable: true,
                    ..
                }
            );
            let Some((answer, ret)) = operation.answered() else {
                continue;
            };
            let (seen_at, seen) = newest[member];
            if single && seen_at > 0 && seen_at < call && seen > 2 {
                let answer = shown(store.at(&key?, seen - 1));
                operation.outcome = Outcome::Done(Response {
                    revision: seen - 1,
                    answer,
                });
                return Some(());
            }
            if answer.revision > seen {
                newest[member] = (ret, answer.revision);
            }
        }
        None
    });
    assert_caught(&history, SERIALIZABLE, "the member had answered with revision");
}

#[test]
fn a_member_that_makes_things_up() {
    let history = with(|history, _| {
        history.operations.iter_mut().find_map(|operation| {
            let single = operation.request.is_serializable();
            match &mut response(operation)?.answer {
                Answer::Range { kvs, .. } if single => {
                    kvs.first_mut()?.value.push('x');
                    Some(())
                }
                _ => None,
            }
        })
    });
    assert_caught(&history, SERIALIZABLE, "instead of");
}
