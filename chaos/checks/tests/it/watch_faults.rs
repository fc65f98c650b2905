//! Watches that are told something wrong: each is caught, for the right reason.

use barque_checks::{
    History,
    history::{EventKind, Request, WatchEvent, WatchKind, WatchRecord, WatchResponse},
};

use super::{assert_caught, assert_right, handmade::Handmade, store::Store, traffic::Traffic};

const WATCHES: &str = "watches";

/// A right history in which one watch can be changed like this, with the change made, is caught and the check says so.
fn caught(says: &str, change: impl Fn(&mut WatchRecord, &Store) -> Option<()>) {
    for seed in 0..500 {
        let traffic = Traffic {
            seed,
            watches: 6,
            ..Traffic::default()
        };
        let (mut history, store) = traffic.history_and_store();
        let right = history.clone();
        if history
            .watches
            .iter_mut()
            .find_map(|watch| change(watch, &store))
            .is_some()
        {
            assert_right(&right);
            return assert_caught(&history, WATCHES, says);
        }
    }
    panic!("no history of 500 can be changed like this: {says}");
}

fn events(response: &mut WatchResponse) -> Option<&mut Vec<WatchEvent>> {
    match &mut response.kind {
        WatchKind::Events { events, .. } => Some(events),
        _ => None,
    }
}

/// Where responses without fragments are, of which another follows.
fn followed(watch: &WatchRecord) -> Option<usize> {
    let whole = |kind: &WatchKind| matches!(kind, WatchKind::Events { fragment: false, .. });
    let at = (1..watch.responses.len()).filter(|at| whole(&watch.responses[*at].kind));
    at.rev().nth(1)
}

#[test]
fn an_event_that_is_missing() {
    caught("missing before", |watch, _| {
        let at = followed(watch).filter(|_| !watch.fragment)?;
        watch.responses.remove(at);
        Some(())
    });
}

#[test]
fn an_event_that_is_missing_before_a_progress() {
    caught("progress of revision", |watch, _| {
        let last = watch.responses.len().checked_sub(2)?;
        let progress = |at: usize| watch.responses[at].kind == WatchKind::Progress;
        if !progress(last + 1) || progress(last) || watch.fragment || last == 0 {
            return None;
        }
        watch.responses.remove(last);
        Some(())
    });
}

#[test]
fn an_event_that_is_told_twice() {
    caught("told again", |watch, _| {
        let at = followed(watch)?;
        let again = watch.responses[at].clone();
        watch.responses.insert(at + 1, again);
        Some(())
    });
}

#[test]
fn events_in_the_wrong_order() {
    caught("out of order", |watch, _| {
        let lists = watch.responses.iter_mut().filter_map(events);
        let list = lists
            .into_iter()
            .find(|list| list.windows(2).any(|two| two[0].revision < two[1].revision))?;
        list.reverse();
        Some(())
    });
}

#[test]
fn a_revision_that_is_split() {
    caught("one revision in two responses", |watch, _| {
        let fits =
            |list: &Vec<WatchEvent>| list.windows(2).position(|two| two[0].revision == two[1].revision);
        for at in 0..watch.responses.len() {
            let list = events(&mut watch.responses[at]);
            let Some((list, cut)) = list.and_then(|list| fits(list).map(|cut| (list, cut))) else {
                continue;
            };
            let rest = list.split_off(cut + 1);
            let mut second = watch.responses[at].clone();
            *events(&mut second)? = rest;
            watch.responses.insert(at + 1, second);
            return Some(());
        }
        None
    });
}

#[test]
fn a_revision_that_is_told_in_part() {
    caught("not all of a revision", |watch, _| {
        if watch.fragment {
            return None;
        }
        watch.responses.iter_mut().filter_map(events).find_map(|list| {
            let [.., one, other] = list.as_slice() else {
                return None;
            };
            (one.revision == other.revision).then(|| list.truncate(list.len() - 1))
        })
    });
}

#[test]
fn a_wrong_previous_version() {
    caught("prev_kv", |watch, _| {
        let all = watch.responses.iter_mut().filter_map(events).flatten();
        all.filter_map(|event| event.prev_kv.as_mut())
            .next()
            .map(|prev| prev.version += 1)
    });
    caught("prev_kv none instead of", |watch, store| {
        let mut all = watch.responses.iter_mut().filter_map(events).flatten();
        let event = all.find(|event| event.prev_kv.is_some() && event.revision > store.compacted + 30)?;
        event.prev_kv = None;
        Some(())
    });
    caught("prev_kv was not asked for", |watch, _| {
        let told = watch
            .responses
            .iter_mut()
            .filter_map(events)
            .flatten()
            .any(|event| event.prev_kv.is_some());
        watch.prev_kv = false;
        told.then_some(())
    });
}

#[test]
fn a_progress_ahead_of_events() {
    caught("progress of revision", |watch, _| {
        let at = followed(watch)?;
        let mut early = watch.responses[at].clone();
        early.kind = WatchKind::Progress;
        watch.responses.insert(at, early);
        Some(())
    });
    caught("after a progress of revision", |watch, _| {
        let at = followed(watch)?;
        let mut early = watch.responses[at].clone();
        early.kind = WatchKind::Progress;
        watch.responses.insert(at, early);
        Some(())
    });
}

/// As etcd's do, of a watch that was resumed at a member that is behind.
#[test]
fn a_member_may_say_that_it_is_not_yet_at_the_start() {
    let (mut history, _) = Traffic {
        watches: 6,
        ..Traffic::default()
    }
    .history_and_store();
    let watch = &mut history.watches[0];
    let created = watch.responses[0].clone();
    let kind = WatchKind::Progress;
    watch.start_revision = created.header_revision + 5;
    watch.resumed_from = None;
    watch.responses = vec![created.clone(), WatchResponse { kind, ..created }];
    assert_right(&history);
}

#[test]
fn events_that_were_not_asked_for() {
    caught("not asked for", |watch, _| {
        let all = watch.responses.iter_mut().filter_map(events).flatten();
        let puts = all.filter(|event| event.kind == EventKind::Put).count();
        watch.no_put = true;
        (puts > 0).then_some(())
    });
    caught("not asked for", |watch, _| {
        let mut all = watch.responses.iter_mut().filter_map(events).flatten();
        let other = all.next()?.key.clone() + "0";
        (watch.from, watch.to) = (other, String::new());
        Some(())
    });
    caught("before the start revision", |watch, _| {
        let all = watch.responses.iter_mut().filter_map(events).flatten();
        watch.start_revision = all.map(|event| event.revision).min()? + 1;
        watch.resumed_from = None;
        Some(())
    });
}

#[test]
fn a_header_that_goes_back() {
    caught("the header's revision went back", |watch, _| {
        let last = watch.responses.last_mut()?;
        let progress = last.kind == WatchKind::Progress && last.header_revision > 3;
        last.header_revision = 2;
        progress.then_some(())
    });
    caught("newer than the header's revision", |watch, _| {
        let last = watch.responses.last_mut()?;
        let newest = last.newest();
        last.header_revision = newest - 1;
        let told = events(last)?.last()?.revision;
        (told == newest).then_some(())
    });
}

#[test]
fn an_event_that_never_was() {
    caught("never committed", |watch, _| {
        let mut all = watch.responses.iter_mut().filter_map(events).flatten();
        all.find(|event| event.kind == EventKind::Put)
            .map(|event| event.value.push('x'))
    });
    caught("a delete carries more", |watch, _| {
        let mut all = watch.responses.iter_mut().filter_map(events).flatten();
        all.find(|event| event.kind == EventKind::Delete)
            .map(|event| event.value.push('x'))
    });
}

#[test]
fn a_watch_that_resumes_elsewhere() {
    caught("resumed after revision", |watch, _| {
        *watch.resumed_from.as_mut()? += 1;
        Some(())
    });
}

#[test]
fn responses_that_do_not_belong_there() {
    caught("created twice", |watch, _| {
        let mut again = watch.responses.last()?.clone();
        again.kind = WatchKind::Created;
        watch.responses.push(again);
        Some(())
    });
    caught("a response before the creation", |watch, _| {
        watch.responses.remove(0);
        (!watch.responses.is_empty()).then_some(())
    });
    caught("a response after the cancellation", |watch, _| {
        let mut cancelled = watch.responses.first()?.clone();
        cancelled.kind = WatchKind::Cancelled {
            compact_revision: 0,
            reason: String::new(),
        };
        watch.responses.insert(1, cancelled);
        (watch.responses.len() > 2).then_some(())
    });
    caught("fragments that were not asked for", |watch, _| {
        let fragments = |kind: &WatchKind| matches!(kind, WatchKind::Events { fragment: true, .. });
        let told = watch.responses.iter().any(|response| fragments(&response.kind));
        watch.fragment = false;
        told.then_some(())
    });
    caught("a response between two fragments", |watch, _| {
        let fragments =
            |response: &WatchResponse| matches!(response.kind, WatchKind::Events { fragment: true, .. });
        let at = watch.responses.iter().position(fragments)?;
        let mut between = watch.responses[at].clone();
        between.kind = WatchKind::Progress;
        watch.responses.insert(at + 1, between);
        Some(())
    });
}

/// Puts, then a compaction at 5 that the members know of, and a watch that is cut for it.
fn cut(start_revision: i64, compact_revision: i64) -> History {
    let mut made = Handmade::new();
    for at in 0..8 {
        made.run(1, at * 10, Request::put("k", format!("1/{at}")));
    }
    made.run(1, 100, Request::Compact { revision: 5 });
    let mut history = made.history();
    history.states.push(barque_checks::history::MemberState {
        compact_revision: 5,
        ..Default::default()
    });
    let response = |time, kind| WatchResponse {
        time,
        header_revision: 9,
        kind,
    };
    let reason = "mvcc: required revision has been compacted".to_owned();
    history.watches.push(WatchRecord {
        from: "k".to_owned(),
        start_revision,
        responses: vec![
            response(110, WatchKind::Created),
            response(
                111,
                WatchKind::Cancelled {
                    compact_revision,
                    reason,
                },
            ),
        ],
        ..WatchRecord::default()
    });
    history
}

#[test]
fn cut_by_a_compaction_only_if_it_needed_what_is_gone() {
    assert!(super::check(&cut(4, 5), WATCHES).passed());
    assert_caught(&cut(5, 5), WATCHES, "with 5 as the next revision");
    assert_caught(&cut(4, 6), WATCHES, "that never was");
}
