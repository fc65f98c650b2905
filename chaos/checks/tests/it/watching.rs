//! Watches of a [`Store`] that are told everything as they ought to be.

use barque_checks::history::{KeySpan, WatchEvent, WatchKind, WatchRecord, WatchResponse};

use super::{
    dice::Dice,
    store::Store,
    traffic::{MEMBERS, Traffic, lag},
};

pub fn watches(store: &Store, traffic: &Traffic, end: u64, dice: &mut Dice) -> Vec<WatchRecord> {
    let mut records: Vec<WatchRecord> = Vec::new();
    for client in 0..traffic.watches as u32 {
        let from = dice.below(end / 2);
        let mut watch = blank(client, dice);
        if dice.in_hundred(50) {
            watch.start_revision = 1 + dice.below(store.revision_at(from) as u64 + 1) as i64;
        }
        let middle = from + dice.below(end - from);
        let last = tell(&mut watch, store, from, middle, dice);
        let mut resumed = WatchRecord {
            start_revision: last + 1,
            resumed_from: Some(last),
            member: dice.below(u64::from(MEMBERS)) as u32,
            responses: Vec::new(),
            ..watch.clone()
        };
        records.push(watch);
        tell(&mut resumed, store, middle + 10, end, dice);
        records.push(resumed);
    }
    for (id, record) in records.iter_mut().enumerate() {
        record.id = id as u64;
    }
    records
}

fn blank(client: u32, dice: &mut Dice) -> WatchRecord {
    let some = |chances, dice: &mut Dice| dice.in_hundred(chances);
    let span = match dice.below(3) {
        0 => KeySpan::new("k", "l"),
        1 => KeySpan::new(format!("k{:04}", dice.below(3)), "\0"),
        _ => KeySpan::one(format!("k{:04}", dice.below(3))),
    };
    WatchRecord {
        client,
        member: dice.below(u64::from(MEMBERS)) as u32,
        from: span.from,
        to: span.to,
        no_put: some(10, dice),
        no_delete: some(20, dice),
        prev_kv: some(60, dice),
        fragment: some(30, dice),
        ..WatchRecord::default()
    }
}

/// Tells what there is from one moment to the other; the last revision that was told in full is returned.
fn tell(watch: &mut WatchRecord, store: &Store, from: u64, until: u64, dice: &mut Dice) -> i64 {
    let behind = lag(watch.member);
    let mut now = from;
    let mut header = store.revision_at(now.saturating_sub(behind));
    let start = if watch.start_revision > 0 {
        watch.start_revision
    } else {
        header + 1
    };
    say(watch, now, header, WatchKind::Created);
    let mut told = start - 1;
    while now < until {
        now += 1 + dice.below((until - from) / 12 + 1);
        header = store.revision_at(now.saturating_sub(behind)).max(header);
        let up_to = header.min(told + 1 + dice.below(30) as i64);
        let events = events(watch, store, told + 1, up_to);
        told = told.max(up_to);
        if !events.is_empty() {
            deliver(watch, now, header, events, dice);
        } else if told >= header && header >= start - 1 && dice.in_hundred(70) {
            say(watch, now, header, WatchKind::Progress);
        }
    }
    told
}

fn events(watch: &WatchRecord, store: &Store, from: i64, up_to: i64) -> Vec<WatchEvent> {
    let listed = store
        .log
        .iter()
        .filter(|listed| (from..=up_to).contains(&listed.revision));
    let mut events: Vec<WatchEvent> = listed.flat_map(|listed| &listed.events).cloned().collect();
    events.retain(|event| watch.wants(event));
    if watch.prev_kv {
        for event in &mut events {
            event.prev_kv = store.at(&event.key, event.revision - 1).cloned();
        }
    }
    events
}

fn deliver(watch: &mut WatchRecord, now: u64, header: i64, mut events: Vec<WatchEvent>, dice: &mut Dice) {
    while watch.fragment && events.len() > 1 && dice.in_hundred(50) {
        let rest = events.split_off(1);
        let fragment = true;
        say(watch, now, header, WatchKind::Events { events, fragment });
        events = rest;
    }
    let fragment = false;
    say(watch, now, header, WatchKind::Events { events, fragment });
}

fn say(watch: &mut WatchRecord, time: u64, header_revision: i64, kind: WatchKind) {
    watch.responses.push(WatchResponse {
        time,
        header_revision,
        kind,
    });
}
