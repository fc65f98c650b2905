//! Watches on a real store: nothing missed, repeated or out of order, whatever the ring holds, across
//! compaction and across a snapshot.

use std::{collections::BTreeMap, sync::Arc};

use barque_proto::command::{command::Op, operation};
use barque_store::{
    Applier, Entry, KeyRange, KeyValue, Revision, Store,
    kv::memory::MemoryEngine,
    watch::{Delivery, EventKind, Place, Subscriber, WatchSpec},
};
use bytes::Bytes;
use proptest::{collection::vec, prelude::*};

use crate::{
    generate::{self, Pause},
    model::Model,
    support::{a_delete, a_put, compact, entry, on_each_engine, previous, text, txn},
};

type Told = (i64, Bytes, Option<KeyValue>);

struct Watcher {
    range: KeyRange,
    start: i64,
    told: Vec<Told>,
    compacted: Option<i64>,
}

/// One stream and what its watchers were told.
struct Stream {
    subscriber: Subscriber,
    watchers: BTreeMap<i64, Watcher>,
}

impl Stream {
    fn new(store: &Store) -> Self {
        Self {
            subscriber: store.hub().subscribe(),
            watchers: BTreeMap::new(),
        }
    }

    fn add(&mut self, range: KeyRange, start: i64) {
        let id = self.watchers.len() as i64;
        let spec = WatchSpec {
            id,
            range: range.clone(),
            start: Revision(start),
            no_put: false,
            no_delete: false,
            prev_kv: false,
        };
        let head = self.subscriber.add(spec).0;
        let start = if start == 0 { head + 1 } else { start };
        self.watchers.insert(
            id,
            Watcher {
                range,
                start,
                told: Vec::new(),
                compacted: None,
            },
        );
    }

    fn drain(&mut self, max_bytes: usize) {
        let mut deliveries = Vec::new();
        while self.subscriber.drain(max_bytes, &mut deliveries).unwrap() {}
        for delivery in deliveries {
            match delivery {
                Delivery::Events {
                    watch,
                    changes,
                    matched,
                    ..
                } => {
                    let told = &mut self.watchers.get_mut(&watch).unwrap().told;
                    told.extend(matched.events(&changes).map(|event| {
                        let put = (event.kind == EventKind::Put).then(|| event.kv.clone());
                        (changes.revision.0, event.kv.key.clone(), put)
                    }));
                }
                Delivery::Compacted {
                    watch,
                    compact_revision,
                } => {
                    self.watchers.get_mut(&watch).unwrap().compacted = Some(compact_revision.0);
                }
            }
        }
    }

    /// Everything from each start on was told once and in order, or up to where it was compacted.
    fn check(&self, model: &Model) {
        for watcher in self.watchers.values() {
            let expected: Vec<Told> = model
                .changes_from(watcher.start)
                .filter(|(_, key, _)| watcher.range.contains(key))
                .collect();
            let until = watcher.told.len();
            assert_eq!(watcher.told, expected[..until.min(expected.len())]);
            match watcher.compacted {
                None => assert_eq!(until, expected.len(), "from {}", watcher.start),
                Some(revision) => {
                    let missed = expected
                        .get(until)
                        .map_or(watcher.start, |(revision, ..)| *revision);
                    assert!(missed < revision || watcher.start < revision);
                }
            }
        }
    }
}

fn open(ring_bytes: usize) -> (Store, Applier) {
    let (store, mut applier) = Store::open_with(Arc::new(MemoryEngine::new()), ring_bytes).unwrap();
    applier.move_at_once(0);
    (store, applier)
}

fn watch_range() -> impl Strategy<Value = KeyRange> {
    prop::sample::select(vec![("", "\0"), ("a", ""), ("a", "b"), ("b", "\0")])
        .prop_map(|(key, end)| KeyRange::from_etcd(key.into(), end.into()))
}

/// Applies entry by entry; where a batch is cut the stream is drained, in small pieces where a step follows.
fn run(applier: &mut Applier, stream: &mut Stream, entries: &[(Entry, Pause)]) {
    for (entry, pause) in entries {
        applier.apply(std::slice::from_ref(entry)).unwrap();
        if pause.compact_step {
            applier.compact_step().unwrap();
        }
        if pause.moved_rows > 0 {
            applier.move_some(pause.moved_rows).unwrap();
        }
        if pause.cut {
            stream.drain(if pause.flush { 1 } else { 1 << 20 });
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn watchers_are_told_everything_once_and_in_order(
        log in generate::log(30),
        watchers in vec((watch_range(), 0..30i64, 0usize..30), 1..6),
        ring_bytes in prop::sample::select(vec![0, 600, 1 << 20]),
        (behind, copied_at) in (0usize..30, 0usize..30),
    ) {
        let mut model = Model::new();
        log.iter().flat_map(|(ops, _)| ops).for_each(|op| drop(model.apply(op)));
        let entries: Vec<_> =
            log.iter().enumerate().map(|(at, (ops, pause))| (entry(1, at as u64 + 1, ops.clone()), *pause)).collect();
        let copied_at = copied_at.clamp(1, entries.len());
        let behind = behind.min(copied_at);
        let (store, mut applier) = open(ring_bytes);
        let mut stream = Stream::new(&store);
        let mut joining: Vec<_> = watchers.into_iter().collect();
        let mut at = 0;
        for stop in [behind, entries.len()] {
            while at < stop {
                for (range, start, when) in std::mem::take(&mut joining) {
                    if when <= at { stream.add(range, start) } else { joining.push((range, start, when)) }
                }
                run(&mut applier, &mut stream, &entries[at..at + 1]);
                at += 1;
            }
            if stop == behind {
                // The rest up to the copy is never applied here.
                let (_, mut other) = open(0);
                run(&mut other, &mut Stream::new(&store), &entries[..copied_at]);
                let dir = tempfile::tempdir().unwrap();
                other.checkpoint(&dir.path().join("copy")).unwrap();
                applier.install(&dir.path().join("copy")).unwrap();
                at = copied_at;
            }
        }
        stream.drain(1 << 20);
        stream.check(&model);
    }
}

/// Of a value that is deleted, or overwritten, only what is small goes along with the event.
#[test]
fn events_do_not_hold_large_values_that_nobody_asked_for() {
    on_each_engine(|fixture| {
        let mut told = fixture.store.hub().subscribe();
        told.add(WatchSpec {
            id: 1,
            range: KeyRange::from_etcd("\0".into(), "\0".into()),
            start: Revision(0),
            no_put: false,
            no_delete: false,
            prev_kv: false,
        });
        let large = "v".repeat(100_000);
        fixture.put("large", &large);
        fixture.put("small", "v");
        fixture.delete("large");
        fixture.delete("small");
        let mut deliveries = Vec::new();
        while told.drain(1 << 20, &mut deliveries).unwrap() {}
        let before: Vec<_> = deliveries
            .iter()
            .map(|delivery| match delivery {
                Delivery::Events { changes, .. } => &changes.events[0],
                other => panic!("{other:?}"),
            })
            .collect();
        let held = |at: usize| before[at].prev.get().map(|kv| kv.value.len());
        assert_eq!([held(0), held(1), held(2), held(3)], [None, None, None, Some(1)]);
        let exists = |at: usize| before[at].prev.exists();
        assert_eq!([exists(0), exists(1), exists(2)], [false, false, true]);
        assert_eq!(told.previous(before[2]).unwrap().unwrap().value, large);
        assert_eq!(held(2), Some(large.len()), "read once");

        fixture.apply(compact(4)).unwrap();
        let reader = fixture.store.reader();
        let (history, _) = reader
            .history(&KeyRange::single("large".into()), Revision(4), usize::MAX)
            .unwrap();
        let event = &history[0].events[0];
        assert_eq!(told.previous(event).unwrap(), None, "it is compacted");
    });
}

fn everything_from(start: i64, prev_kv: bool) -> WatchSpec {
    WatchSpec {
        id: 1,
        range: KeyRange::EVERYTHING,
        start: Revision(start),
        no_put: false,
        no_delete: false,
        prev_kv,
    }
}

/// Of each delivery: its revision, how many events, how many bytes are at hand with them, and whether it is a part.
fn handed_out(stream: &mut Subscriber) -> Vec<(i64, usize, usize, bool)> {
    let mut all = Vec::new();
    let mut more = true;
    while more {
        let mut out = Vec::new();
        more = stream.drain(256 << 10, &mut out).unwrap();
        all.extend(out.iter().map(|delivery| match delivery {
            Delivery::Events {
                changes,
                matched,
                is_part,
                ..
            } => {
                let size = |kv: &KeyValue| kv.key.len() + kv.value.len();
                let events = matched.events(changes);
                let sizes = events.map(|event| size(&event.kv) + event.prev.get().map_or(0, size));
                let sizes: Vec<usize> = sizes.collect();
                (changes.revision.0, sizes.len(), sizes.iter().sum(), *is_part)
            }
            other => panic!("{other:?}"),
        }));
    }
    all
}

#[test]
fn a_revision_of_many_bytes_is_read_in_parts_and_without_what_nobody_asked_for() {
    const KEYS: usize = 50;
    const VALUE: usize = 100_000;
    on_each_engine(|fixture| {
        let value = "v".repeat(VALUE);
        for key in 0..KEYS {
            fixture.put(&format!("k{key:02}"), &value);
        }
        fixture.apply(Op::DeleteRange(a_delete("k", "l"))).unwrap();
        let deleted = fixture.store.head().revision.0;

        let mut without = fixture.store.hub().subscribe();
        without.add(everything_from(deleted, false));
        let keys = KEYS * "k00".len();
        assert_eq!(handed_out(&mut without), [(deleted, KEYS, keys, false)]);

        let mut with = fixture.store.hub().subscribe();
        with.add(everything_from(deleted, true));
        let parts = handed_out(&mut with);
        let (last, others) = parts.split_last().unwrap();
        assert!(!others.is_empty(), "several parts");
        assert!(!last.3 && others.iter().all(|part| part.3), "{parts:?}");
        // What one part may cost, and what is read before that shows.
        assert!(
            parts.iter().all(|part| part.2 <= (1 << 20) + 16 * VALUE),
            "{parts:?}"
        );
        assert_eq!(parts.iter().map(|part| part.1).sum::<usize>(), KEYS);
        let bytes: usize = parts.iter().map(|part| part.2).sum();
        assert_eq!(bytes, 2 * keys + KEYS * VALUE);
    });
}

/// Contract line 25 where a revision is divided between a key's two changes in it.
#[test]
fn the_version_before_is_that_of_the_revision_before_in_every_part() {
    on_each_engine(|fixture| {
        let names: Vec<String> = (0..12).map(|key| format!("k{key:02}")).collect();
        for name in &names {
            fixture.put(name, "before");
        }
        let large = "v".repeat(300_000);
        let mut ops: Vec<_> = names
            .iter()
            .map(|name| operation::Op::Put(a_put(name, &large)))
            .collect();
        ops.push(operation::Op::Put(a_put("new", "1")));
        ops.push(operation::Op::DeleteRange(a_delete("k", "o")));
        ops.push(operation::Op::Put(a_put("k00", "again")));
        fixture.apply(Op::Txn(txn(vec![], ops, vec![]))).unwrap();
        let revision = fixture.store.head().revision;

        let reader = fixture.store.reader();
        let (mut told, mut parts) = (Vec::new(), 0);
        let mut next = Place::start_of(revision);
        while next <= Place::start_of(revision) || next.sub > 0 {
            let (history, after) = reader.history(&KeyRange::EVERYTHING, next, 1).unwrap();
            parts += 1;
            for event in history.iter().flat_map(|changes| &changes.events) {
                let before = previous(&reader, event).map(|kv| text(&kv.value));
                told.push((text(&event.kv.key), event.kind, before));
            }
            next = after;
        }
        assert!(parts > 2, "{parts} parts");
        let before = |name: &String, kind| (name.clone(), kind, Some("before".to_owned()));
        let new = |kind| ("new".to_owned(), kind, None);
        let mut expected: Vec<_> = names.iter().map(|name| before(name, EventKind::Put)).collect();
        expected.push(new(EventKind::Put));
        expected.extend(names.iter().map(|name| before(name, EventKind::Delete)));
        expected.push(new(EventKind::Delete));
        expected.push(before(&names[0], EventKind::Put));
        assert_eq!(told, expected);
    });
}
