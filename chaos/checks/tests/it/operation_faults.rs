//! One wrong answer, one lost or repeated write: each is caught, by the check that is meant for it.

use barque_checks::{
    History,
    history::{
        Answer, CommittedRevision, KeyValue, Operation, Order, Outcome, Request, Response, Shape, WatchEvent,
    },
};

use super::{
    assert_caught, assert_right,
    handmade::{REVISIONS, VALUES},
    store::Store,
    traffic::Traffic,
};

/// A right history that the change can be made to, with the change made.
pub fn with(change: impl Fn(&mut History, &Store) -> Option<()>) -> History {
    for seed in 0..300 {
        let (mut history, store) = Traffic {
            seed,
            watches: 0,
            ..Traffic::default()
        }
        .history_and_store();
        let right = history.clone();
        if change(&mut history, &store).is_some() {
            assert_right(&right);
            return history;
        }
    }
    panic!("no history of 300 can be changed like this");
}

pub fn response(operation: &mut Operation) -> Option<&mut Response> {
    match &mut operation.outcome {
        Outcome::Done(response) => Some(response),
        _ => None,
    }
}

pub fn is_current_get(operation: &Operation) -> bool {
    let current = |request: &Request| {
        matches!(
            request,
            Request::Get {
                serializable: false,
                revision: 0,
                ..
            }
        )
    };
    current(&operation.request) && operation.response().is_some()
}

pub fn shown(kv: Option<&KeyValue>) -> Answer {
    Answer::Range {
        kvs: kv.into_iter().cloned().collect(),
        count: kv.iter().count() as i64,
        more: false,
    }
}

#[test]
fn a_lost_write() {
    let last = with(|history, _| {
        let committed = history.committed.as_mut()?;
        let last = committed.revisions.pop()?.revision;
        history
            .operations
            .iter()
            .any(|put| put.changed() && put.response().map(|r| r.revision) == Some(last))
            .then_some(())
    });
    assert_caught(&last, REVISIONS, "acknowledged and lost");
    let middle = with(|history, _| {
        let committed = history.committed.as_mut()?;
        committed.revisions.remove(committed.revisions.len() / 2);
        Some(())
    });
    assert_caught(&middle, REVISIONS, "are missing");
}

/// One more revision after all others.
fn append(history: &mut History, store: &Store, key: &str, value: &str) {
    let revision = store.revision + 1;
    let old = store.at(key, store.revision);
    let event = WatchEvent::put(&KeyValue {
        key: key.to_owned(),
        value: value.to_owned(),
        create_revision: old.map_or(revision, |old| old.create_revision),
        mod_revision: revision,
        version: old.map_or(0, |old| old.version) + 1,
        lease: 0,
    });
    let events = vec![event];
    let committed = history.committed.as_mut().expect("it is listed");
    committed.revisions.push(CommittedRevision { revision, events });
}

#[test]
fn a_write_that_is_applied_twice() {
    for of_unknown_outcome in [false, true] {
        let history = with(|history, store| {
            let applied = |value: &str| {
                let events = store.log.iter().flat_map(|listed| &listed.events);
                events.clone().any(|event| event.value == value)
            };
            let found = history
                .operations
                .iter()
                .find_map(|operation| match &operation.request {
                    Request::Put { key, value, .. }
                        if operation.is_unknown() == of_unknown_outcome && applied(value) =>
                    {
                        Some((key.clone(), value.clone()))
                    }
                    _ => None,
                });
            let (key, value) = found?;
            append(history, store, &key, &value);
            Some(())
        });
        assert_caught(&history, REVISIONS, "applied twice");
    }
}

#[test]
fn a_write_that_nobody_issued() {
    let history = with(|history, store| {
        append(history, store, "k0000", "nobody's");
        Some(())
    });
    assert_caught(&history, REVISIONS, "nobody issued");
}

#[test]
fn a_refused_write_that_is_there_all_the_same() {
    let history = with(|history, _| {
        let mut read = history
            .operations
            .iter()
            .filter(|get| is_current_get(get))
            .filter_map(|get| match &get.response()?.answer {
                Answer::Range { kvs, .. } => Some(kvs.first()?.value.clone()),
                _ => None,
            });
        let value = read.next()?;
        let put = history
            .operations
            .iter_mut()
            .find(|operation| match &operation.request {
                Request::Put { value: put, .. } => *put == value && operation.changed(),
                _ => false,
            })?;
        put.outcome = Outcome::NotApplied("etcdserver: no leader".to_owned());
        Some(())
    });
    assert_caught(&history, REVISIONS, "said definitely not to");
    assert_caught(&history, VALUES, "no order");
}

#[test]
fn a_write_acknowledged_with_anothers_revision() {
    let history = with(|history, _| {
        let mut writes = history
            .operations
            .iter_mut()
            .filter(|operation| operation.changed());
        let (one, other) = (writes.next()?, writes.next()?);
        response(one)?.revision = response(other)?.revision;
        Some(())
    });
    assert_caught(&history, REVISIONS, "two writes were acknowledged with revision");
}

#[test]
fn a_write_ordered_before_one_that_was_acknowledged_before_it() {
    let history = with(|history, store| {
        let mut puts = history
            .operations
            .iter_mut()
            .filter(|operation| operation.changed());
        let late = puts.find(|put| {
            put.response()
                .is_some_and(|made| made.revision + 20 < store.revision)
        })?;
        let later = 10_000_000;
        (late.call, late.ret) = (later, Some(later + 10));
        Some(())
    });
    assert_caught(&history, REVISIONS, "had been seen before this was called");
}

/// Changes the first answer that the function can change, and expects it to be found wrong.
fn wrong_answer(change: impl Fn(&Request, &mut Answer) -> Option<()>) {
    let history = with(|history, _| {
        history.operations.iter_mut().find_map(|operation| {
            let request = operation.request.clone();
            change(&request, &mut response(operation)?.answer)
        })
    });
    assert_caught(&history, REVISIONS, "instead of");
}

#[test]
fn wrong_versions_counts_and_branches() {
    wrong_answer(|_, answer| match answer {
        Answer::Put { prev_kv: Some(prev) } => {
            prev.version += 1;
            Some(())
        }
        _ => None,
    });
    wrong_answer(|request, answer| match (request, answer) {
        (Request::Put { prev_kv: true, .. }, Answer::Put { prev_kv }) => prev_kv.take().map(|_| ()),
        _ => None,
    });
    wrong_answer(|_, answer| match answer {
        Answer::Delete { prev_kvs, .. } => {
            prev_kvs.first_mut()?.lease = 7;
            Some(())
        }
        _ => None,
    });
    for field in [
        |kv: &mut KeyValue| kv.create_revision -= 1,
        |kv: &mut KeyValue| kv.mod_revision -= 1,
        |kv: &mut KeyValue| kv.version += 1,
        |kv: &mut KeyValue| kv.lease = 9,
    ] {
        wrong_answer(|request, answer| match answer {
            Answer::Range { kvs, .. } if !request.is_serializable() => {
                field(kvs.first_mut()?);
                Some(())
            }
            _ => None,
        });
    }
    wrong_answer(|request, answer| match (request, answer) {
        (
            Request::Range {
                serializable: false, ..
            },
            Answer::Range { count, .. },
        ) => {
            *count += 1;
            Some(())
        }
        _ => None,
    });
    wrong_answer(|request, answer| match (request, answer) {
        (
            Request::Range {
                serializable: false, ..
            },
            Answer::Range { kvs, count, more },
        ) if kvs.len() > 1 => {
            (*count, *more) = (*count - 1, false);
            kvs.remove(0);
            Some(())
        }
        _ => None,
    });
    wrong_answer(|request, answer| match (request, answer) {
        (Request::Txn { otherwise, .. }, Answer::Txn { succeeded, responses }) if responses.is_empty() => {
            *succeeded = true;
            otherwise.is_empty().then_some(())
        }
        _ => None,
    });
    wrong_answer(|_, answer| match answer {
        Answer::Txn { responses, .. } => {
            responses.first_mut()?.revision += 1;
            Some(())
        }
        _ => None,
    });
}

#[test]
fn a_delete_that_says_it_found_nothing() {
    let history = with(|history, _| {
        history
            .operations
            .iter_mut()
            .find_map(|operation| match &mut response(operation)?.answer {
                Answer::Delete { deleted, prev_kvs } if *deleted == 1 => {
                    *deleted = 0;
                    prev_kvs.clear();
                    Some(())
                }
                _ => None,
            })
    });
    // Nobody is left who made its revision, unless another of unknown outcome could have.
    assert!(super::check(&history, REVISIONS).failed() || super::check(&history, VALUES).failed());
}

/// A txn on a version that was replaced long before must fail.
#[test]
fn an_update_of_an_old_version_that_succeeds() {
    let history = with(|history, store| {
        for operation in &mut history.operations {
            let Request::Txn { compares, then, .. } = &operation.request else {
                continue;
            };
            let [compare] = compares.as_slice() else { continue };
            let (call, key) = (operation.call, compare.key.clone());
            let barque_checks::history::Target::ModRevision(revision) = compare.target else {
                continue;
            };
            let Some(Request::Put { .. }) = then.first() else {
                continue;
            };
            let next = (revision + 1..=store.revision)
                .find(|next| store.at(&key, *next) != store.at(&key, revision));
            let replaced = next.map(|next| store.times[next as usize - 2]);
            let read_before = revision > 0 && store.at(&key, revision).is_some();
            let Some(response) = response(operation) else {
                continue;
            };
            if let Answer::Txn { succeeded: false, .. } = response.answer
                && read_before
                && replaced.is_some_and(|replaced| replaced + 4000 < call)
            {
                response.answer = Answer::Txn {
                    succeeded: true,
                    responses: vec![Response {
                        revision: 0,
                        answer: Answer::Put { prev_kv: None },
                    }],
                };
                return Some(());
            }
        }
        None
    });
    assert_caught(&history, VALUES, "no order");
    assert_caught(&history, REVISIONS, "two writes were acknowledged with revision");
}

#[test]
fn a_write_that_did_something_else() {
    let history = with(|history, _| {
        let events = history
            .committed
            .as_mut()?
            .revisions
            .iter_mut()
            .flat_map(|listed| &mut listed.events);
        events.last().map(|event| event.lease = 3)
    });
    assert_caught(&history, REVISIONS, "did something else");
}

#[test]
fn a_list_of_revisions_that_cannot_be() {
    let history = with(|history, _| {
        let events = history
            .committed
            .as_mut()?
            .revisions
            .iter_mut()
            .flat_map(|listed| &mut listed.events);
        events
            .filter(|event| event.version > 1)
            .last()
            .map(|event| event.version += 1)
    });
    assert_caught(&history, REVISIONS, "should have create revision");
}

/// What was sorted, filtered and stripped is looked at as a whole, and so is what a delete of a range did.
#[test]
fn wrong_answers_to_wide_requests() {
    let shaped = |request: &Request, wanted: fn(&Shape) -> bool| matches!(request, Request::Range { serializable: false, shape, .. } if wanted(shape));
    wrong_answer(|request, answer| match answer {
        Answer::Range { kvs, .. }
            if shaped(request, |shape| shape.order != Order::ByKey) && kvs.len() > 1 =>
        {
            kvs.reverse();
            Some(())
        }
        _ => None,
    });
    wrong_answer(|request, answer| match answer {
        Answer::Range { kvs, .. } if shaped(request, |shape| shape.keys_only) => {
            kvs.first_mut()?.value = "1/1".to_owned();
            Some(())
        }
        _ => None,
    });
    wrong_answer(|request, answer| match answer {
        Answer::Range { count, .. } if shaped(request, |shape| shape.count_only) => {
            *count += 1;
            Some(())
        }
        _ => None,
    });
    wrong_answer(|request, answer| match answer {
        Answer::Range { kvs, .. } if shaped(request, |shape| shape.min_mod > 0) => kvs.pop().map(drop),
        _ => None,
    });
    wrong_answer(|request, answer| match (request, answer) {
        (Request::DeleteRange { prev_kv: true, .. }, Answer::Delete { deleted, prev_kvs })
            if *deleted > 1 =>
        {
            *deleted -= 1;
            prev_kvs.pop().map(drop)
        }
        _ => None,
    });
    wrong_answer(|request, answer| match (request, answer) {
        (Request::Txn { compares, .. }, Answer::Txn { succeeded, .. })
            if compares.iter().any(|compare| !compare.to.is_empty()) =>
        {
            *succeeded = !*succeeded;
            Some(())
        }
        _ => None,
    });
}
