//! The hub against a history kept in a vector: cases, a model, and threads.

mod fake;
mod model;
mod threads;

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    task::{Context, Poll, Wake, Waker},
};

use fake::{Cluster, range, spec};

use super::*;

#[derive(Default)]
struct CountingWaker(AtomicUsize);

impl Wake for CountingWaker {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, SeqCst);
    }
}

/// What a subscriber has now, as `watch@revision:events` and `watch compacted revision`, by watcher.
fn drained(subscriber: &mut Subscriber) -> Vec<String> {
    let mut out = vec![];
    while subscriber.drain(1 << 20, &mut out).expect("drain") {}
    out.sort_by_key(|delivery| match delivery {
        Delivery::Events { watch, .. } | Delivery::Compacted { watch, .. } => *watch,
    });
    out.iter()
        .map(|delivery| match delivery {
            Delivery::Events {
                watch,
                changes,
                matched,
                ..
            } => {
                let keys: Vec<String> = matched
                    .events(changes)
                    .map(|event| {
                        let sign = if event.kind == EventKind::Put { '+' } else { '-' };
                        format!("{sign}{}", String::from_utf8_lossy(&event.kv.key))
                    })
                    .collect();
                format!("{watch}@{}:{}", changes.revision.0, keys.join(","))
            }
            Delivery::Compacted {
                watch,
                compact_revision,
            } => {
                format!("{watch} compacted {}", compact_revision.0)
            }
        })
        .collect()
}

#[test]
fn a_watcher_without_a_start_sees_what_comes_next() {
    let cluster = Cluster::new(1 << 20);
    cluster.write(&["+a"]);
    let mut stream = cluster.hub.subscribe();
    assert_eq!(stream.add(spec(1, range("a", ""), 0)), Revision(2));
    cluster.write(&["+a", "+b"]);
    cluster.write(&["+b"]);
    cluster.write(&["-a"]);
    assert_eq!(drained(&mut stream), ["1@3:+a", "1@5:-a"]);
    assert_eq!(drained(&mut stream), [""; 0]);
    assert_eq!(stream.synced_revision(), Some(Revision(5)));
}

#[test]
fn filters_and_several_watchers_of_one_stream() {
    let cluster = Cluster::new(1 << 20);
    let mut stream = cluster.hub.subscribe();
    stream.add(spec(1, range("a", "\0"), 0));
    stream.add(WatchSpec {
        no_put: true,
        ..spec(2, range("a", "c"), 0)
    });
    stream.add(WatchSpec {
        no_delete: true,
        ..spec(3, range("b", ""), 0)
    });
    cluster.write(&["+a", "+b"]);
    cluster.write(&["-b", "-a", "+z"]);
    assert_eq!(
        drained(&mut stream),
        ["1@2:+a,+b", "1@3:-b,-a,+z", "2@3:-b,-a", "3@2:+b"]
    );
    assert!(stream.remove(1));
    assert!(!stream.remove(1));
    cluster.write(&["+b"]);
    assert_eq!(drained(&mut stream), ["3@4:+b"]);
}

#[test]
fn the_past_comes_from_ring_or_disk_and_joins_without_a_seam() {
    for ring_bytes in [0, 700, 1 << 20] {
        let cluster = Cluster::new(ring_bytes);
        (0..5).for_each(|_| cluster.write(&["+a"]));
        let mut stream = cluster.hub.subscribe();
        stream.add(spec(1, range("a", ""), 3));
        stream.add(spec(2, range("a", "b"), 5));
        assert_eq!(stream.synced_revision(), None);
        cluster.write(&["+a"]);
        assert_eq!(
            drained(&mut stream),
            [
                "1@3:+a", "1@4:+a", "1@5:+a", "1@6:+a", "1@7:+a", "2@5:+a", "2@6:+a", "2@7:+a"
            ],
            "ring of {ring_bytes} bytes"
        );
        assert_eq!(stream.synced_revision(), Some(Revision(7)));
        assert_eq!(cluster.hub.metrics().slow_watchers, 0);
    }
}

#[test]
fn watchers_that_overlap_share_their_scans() {
    let cluster = Cluster::new(0);
    (0..8).for_each(|_| cluster.write(&["+a", "+b", "+z"]));
    let mut stream = cluster.hub.subscribe();
    for id in 0..100 {
        stream.add(spec(id, range("a", "c"), 2 + id % 3));
    }
    stream.add(spec(100, range("z", ""), 2));
    cluster.history.scans.store(0, SeqCst);
    let seen = drained(&mut stream);
    assert_eq!(seen.len(), 34 * 8 + 33 * 7 + 33 * 6 + 8);
    assert_eq!(
        cluster.history.scans.load(SeqCst),
        2 * 8usize.div_ceil(fake::REVISIONS_PER_SCAN)
    );
}

#[test]
fn a_start_in_the_future_waits_for_it() {
    let cluster = Cluster::new(1 << 20);
    let mut stream = cluster.hub.subscribe();
    stream.add(spec(1, range("a", ""), 4));
    cluster.write(&["+a"]);
    assert_eq!(drained(&mut stream), [""; 0]);
    assert_eq!(stream.synced_revision(), None);
    cluster.replace_state(&[&["+b"]], 1);
    assert_eq!(drained(&mut stream), [""; 0]);
    assert_eq!(stream.watcher_synced_revision(1), None);
    cluster.write(&["+a"]);
    assert_eq!(drained(&mut stream), ["1@4:+a"]);
    assert_eq!(stream.synced_revision(), Some(Revision(4)));
}

#[test]
fn compacted_starts() {
    let cluster = Cluster::new(1 << 20);
    (0..5).for_each(|_| cluster.write(&["+a"]));
    cluster.compact(4);
    let mut stream = cluster.hub.subscribe();
    assert_eq!(stream.add(spec(1, range("a", ""), 3)), Revision(6));
    assert_eq!(stream.add(spec(2, range("a", ""), 4)), Revision(6));
    assert_eq!(stream.synced_revision(), None);
    assert_eq!(
        drained(&mut stream),
        ["1 compacted 4", "2@4:+a", "2@5:+a", "2@6:+a"]
    );
    assert!(!stream.contains(1));
}

#[test]
fn a_slow_watcher_is_overtaken_by_compaction() {
    let cluster = Cluster::new(0);
    let mut stream = cluster.hub.subscribe();
    stream.add(spec(1, range("a", ""), 0));
    stream.add(spec(2, range("b", ""), 9));
    (0..5).for_each(|_| cluster.write(&["+a"]));
    cluster.compact(5);
    assert_eq!(drained(&mut stream), ["1 compacted 5"]);
    assert!(stream.contains(2));
}

#[test]
fn a_snapshot_goes_on_from_the_new_history_or_says_that_it_is_compacted() {
    for (compact, expected) in [
        (3, vec!["1@3:+a", "1@4:+a", "1@5:-a"]),
        (4, vec!["1 compacted 4"]),
    ] {
        let cluster = Cluster::new(1 << 20);
        let mut stream = cluster.hub.subscribe();
        stream.add(spec(1, range("a", ""), 0));
        let mut idle = cluster.hub.subscribe();
        idle.add(spec(1, range("q", ""), 0));
        cluster.write(&["+b"]);
        cluster.replace_state(&[&["+a"], &["+a"], &["-a"]], compact);
        assert_eq!(drained(&mut stream), expected);
        assert_eq!(cluster.hub.metrics().ring_revisions, 0);
        cluster.write(&["+q"]);
        let expected = if compact == 3 { "1@6:+q" } else { "1 compacted 4" };
        assert_eq!(drained(&mut idle), [expected]);
    }
}

#[test]
fn only_streams_that_match_are_woken_and_the_others_stay_up_to_date() {
    let cluster = Cluster::new(600);
    let (wakes, idle_wakes) = (
        Arc::new(CountingWaker::default()),
        Arc::new(CountingWaker::default()),
    );
    let (waker, idle_waker) = (
        Waker::from(Arc::clone(&wakes)),
        Waker::from(Arc::clone(&idle_wakes)),
    );
    let mut stream = cluster.hub.subscribe();
    let mut idle = cluster.hub.subscribe();
    stream.add(spec(1, range("a", ""), 0));
    idle.add(spec(1, range("b", "c"), 0));
    assert!(stream.poll_ready(&mut Context::from_waker(&waker)).is_pending());
    assert!(
        idle.poll_ready(&mut Context::from_waker(&idle_waker))
            .is_pending()
    );

    (0..50).for_each(|_| cluster.write(&["+a"]));
    assert_eq!(
        (wakes.0.load(SeqCst), idle_wakes.0.load(SeqCst)),
        (1, 0),
        "one wake until the stream comes"
    );
    assert_eq!(idle.synced_revision(), Some(Revision(51)));
    cluster.history.scans.store(0, SeqCst);
    cluster.write(&["+b"]);
    assert_eq!(idle_wakes.0.load(SeqCst), 1);
    assert_eq!(
        idle.poll_ready(&mut Context::from_waker(&idle_waker)),
        Poll::Ready(())
    );
    assert_eq!(drained(&mut idle), ["1@52:+b"]);
    assert_eq!(
        cluster.history.scans.load(SeqCst),
        0,
        "an idle stream never falls off the ring"
    );
    assert_eq!(drained(&mut stream).len(), 50);
}

/// The revisions of the versions before, as far as they are at hand.
fn previous(deliveries: &[Delivery]) -> Vec<Option<i64>> {
    let mut found = vec![];
    for delivery in deliveries {
        if let Delivery::Events { changes, matched, .. } = delivery {
            found.extend(
                matched
                    .events(changes)
                    .map(|event| Some(event.prev.get()?.mod_revision.0)),
            );
        }
    }
    found
}

#[test]
fn a_large_version_before_is_read_once_and_for_those_who_asked() {
    for ring_bytes in [1 << 30, 0] {
        let cluster = Cluster::new(ring_bytes);
        let reads = || cluster.history.previous_reads.load(SeqCst);
        let mut without = cluster.hub.subscribe();
        let mut with: Vec<Subscriber> = (0..3).map(|_| cluster.hub.subscribe()).collect();
        without.add(spec(1, range("a", ""), 0));
        for stream in &mut with {
            (0..100).for_each(|id| {
                stream.add(WatchSpec {
                    prev_kv: true,
                    ..spec(id, range("a", ""), 0)
                });
            });
        }
        cluster.write(&["~a"]);

        let mut out = vec![];
        while without.drain(1 << 20, &mut out).unwrap() {}
        assert_eq!((previous(&out), reads()), (vec![None], 0), "nobody asked");
        let Delivery::Events { changes, .. } = &out[0] else {
            panic!("{out:?}")
        };
        assert!(changes.events[0].prev.exists());

        for stream in &mut with {
            let mut out = vec![];
            while stream.drain(1 << 20, &mut out).unwrap() {}
            assert_eq!(previous(&out), vec![Some(1); 100]);
        }
        // What the ring holds is shared; what it does not hold is read by each stream.
        assert_eq!(reads(), if ring_bytes > 0 { 1 } else { with.len() });
    }
}

#[test]
fn only_a_drain_that_was_announced_reads_from_disk() {
    let cluster = Cluster::new(1 << 30);
    let mut stream = cluster.hub.subscribe();
    stream.add(WatchSpec {
        prev_kv: true,
        ..spec(1, range("a", ""), 0)
    });
    stream.add(spec(2, range("a", ""), 0));
    cluster.write(&["~a"]);
    cluster.write(&["+a"]);
    assert!(!stream.is_catching_up());
    let mut out = vec![];
    assert!(stream.drain(1 << 30, &mut out).unwrap());
    assert_eq!(
        (out.len(), cluster.history.previous_reads.load(SeqCst)),
        (2, 0),
        "watch 2 alone"
    );
    assert!(stream.is_catching_up());
    assert!(!stream.drain(1 << 30, &mut out).unwrap());
    // The event is shared.
    assert_eq!(previous(&out), [Some(1), None, Some(1), None]);
}

#[test]
fn a_dropped_stream_leaves_nothing() {
    let cluster = Cluster::new(0);
    cluster.write(&["+a"]);
    let mut stream = cluster.hub.subscribe();
    stream.add(spec(1, range("a", ""), 0));
    stream.add(spec(2, range("a", "c"), 2));
    stream.add(spec(3, range("a", "c"), 0));
    stream.remove(3);
    let metrics = cluster.hub.metrics();
    assert_eq!(
        (metrics.subscribers, metrics.watchers, metrics.slow_watchers),
        (1, 2, 1)
    );
    drop(stream);
    assert!(!cluster.hub.has_interests());
    assert_eq!(cluster.hub.metrics(), HubMetrics::default());
}

#[test]
fn a_drain_is_bounded_and_never_splits_a_revision() {
    let cluster = Cluster::new(1 << 20);
    let mut stream = cluster.hub.subscribe();
    stream.add(spec(1, range("a", "\0"), 0));
    (0..10).for_each(|_| cluster.write(&["+a", "+b", "+c"]));
    for revision in 2..=11 {
        let mut out = vec![];
        assert_eq!(stream.drain(1, &mut out).expect("drain"), revision < 11);
        let [
            Delivery::Events {
                changes,
                matched: Matched::All,
                ..
            },
        ] = &out[..]
        else {
            panic!("{out:?}")
        };
        assert_eq!((changes.revision, changes.events.len()), (Revision(revision), 3));
        assert_eq!(
            stream.synced_revision(),
            Some(Revision(revision)),
            "what was drained, no more"
        );
    }
}

/// The watches of deliveries, in order, with a `~` where more of the revision follows.
fn told(deliveries: &[Delivery]) -> Vec<String> {
    let tell = |delivery: &Delivery| match delivery {
        Delivery::Events {
            watch,
            changes,
            matched,
            is_part,
        } => {
            let keys: Vec<_> = matched
                .events(changes)
                .map(|event| String::from_utf8_lossy(&event.kv.key).into_owned())
                .collect();
            let more = if *is_part { "~" } else { "" };
            format!("{watch}@{}:{}{more}", changes.revision.0, keys.join(","))
        }
        Delivery::Compacted { watch, .. } => format!("{watch} compacted"),
    };
    deliveries.iter().map(tell).collect()
}

/// 100,000 watchers of one key, or fewer: each has a delivery and a response of its own.
#[test]
fn one_revision_for_many_watchers_takes_many_drains() {
    const WATCHERS: i64 = 1000;
    const ROOM: usize = 10_000;
    for ring_bytes in [1 << 30, 0] {
        let cluster = Cluster::new(ring_bytes);
        let mut stream = cluster.hub.subscribe();
        for id in 0..WATCHERS {
            stream.add(spec(id, range("a", ""), 0));
        }
        cluster.write(&["+a"]);
        cluster.write(&["+b"]);
        cluster.write(&["+a"]);

        let mut seen = vec![vec![]; WATCHERS as usize + 1];
        let mut drains = 0;
        let mut more = true;
        while more {
            let mut out = vec![];
            more = stream.drain(ROOM, &mut out).unwrap();
            drains += 1;
            // Each costs more than 256 bytes.
            assert!(out.len() <= ROOM / 256 + 1, "{} at once", out.len());
            for delivery in &out {
                let Delivery::Events { watch, changes, .. } = delivery else {
                    panic!("{delivery:?}")
                };
                seen[*watch as usize].push(changes.revision.0);
            }
            if seen.iter().any(|seen| seen.len() < 2) && more {
                assert_eq!(stream.synced_revision(), None, "progress ahead of events");
                assert_eq!(stream.watcher_synced_revision(0), None);
            }
            if drains == 5 {
                // Its slot goes to a watcher that begins later.
                assert!(stream.remove(WATCHERS - 1));
                stream.add(spec(WATCHERS, range("a", ""), 0));
            }
        }
        assert!(drains > 2 * WATCHERS as usize * 256 / ROOM);
        let late = seen.pop().unwrap();
        let removed = seen.pop().unwrap();
        assert_eq!((late, removed), (vec![], vec![]));
        assert!(seen.iter().all(|seen| seen == &[2, 4]), "once each, in order");
        assert_eq!(stream.synced_revision(), Some(Revision(4)));
    }
}

#[test]
fn a_window_ends_where_the_drain_is_full() {
    for ring_bytes in [1 << 30, 0] {
        let cluster = Cluster::new(ring_bytes);
        let mut stream = cluster.hub.subscribe();
        for id in 0..10 {
            stream.add(spec(id, range("a", ""), 0));
        }
        (0..50).for_each(|_| cluster.write(&["+a"]));
        let mut out = vec![];
        let mut before = 0;
        while stream.drain(2000, &mut out).unwrap() {
            assert!(out.len() - before <= 2000 / 256 + 1);
            before = out.len();
        }
        let expected: Vec<_> = (2..52).flat_map(|revision| vec![revision; 10]).collect();
        let revisions: Vec<_> = out
            .iter()
            .map(|delivery| match delivery {
                Delivery::Events { changes, .. } => changes.revision.0,
                other => panic!("{other:?}"),
            })
            .collect();
        assert_eq!(revisions, expected, "ring of {ring_bytes} bytes");
    }
}

#[test]
fn a_large_revision_comes_in_parts_to_one_range_at_a_time() {
    let cluster = Cluster::new(0);
    cluster.write(&["+b"]);
    cluster.write(&["+a0", "+a1", "+b", "+a2", "+a3", "+a4", "+b", "+b", "+b", "+b"]);
    cluster.write(&["+a0"]);
    let mut stream = cluster.hub.subscribe();
    stream.add(spec(1, range("a", "b"), 3));
    stream.add(spec(2, range("a", "c"), 2));
    stream.add(spec(3, range("a3", ""), 2));
    let mut out = vec![];
    while stream.drain(1 << 20, &mut out).unwrap() {}
    assert_eq!(
        told(&out),
        [
            "2@2:b",
            "1@3:a0,a1,a2~",
            "1@3:a3,a4~",
            "1@3:",
            "1@4:a0",
            "2@3:a0,a1,b,a2~",
            "2@3:a3,a4,b,b~",
            "2@3:b,b",
            "2@4:a0",
            "3@3:a3~",
            "3@3:",
        ]
    );
}

#[test]
fn single_keys_go_inside_a_large_revision_together() {
    let cluster = Cluster::new(0);
    cluster.write(&["+a0", "+a1", "+b", "+b", "+b", "+a1", "+b"]);
    let mut stream = cluster.hub.subscribe();
    stream.add(spec(1, range("a1", ""), 2));
    stream.add(spec(2, range("a", "c"), 2));
    stream.add(spec(3, range("a0", ""), 2));
    let mut out = vec![];
    while stream.drain(1 << 20, &mut out).unwrap() {}
    assert_eq!(
        told(&out),
        [
            "3@2:a0~",
            "1@2:a1~",
            "1@2:a1",
            "3@2:",
            "2@2:a0,a1,b,b~",
            "2@2:b,a1,b",
        ]
    );
}

#[test]
fn compaction_and_removal_overtake_who_is_inside_a_revision() {
    let cluster = Cluster::new(0);
    cluster.write(&["+a0", "+a1", "+a2", "+a3", "+a4", "+a5", "+a6", "+a7", "+a8"]);
    cluster.write(&["+a0"]);
    let mut stream = cluster.hub.subscribe();
    let mut out = vec![];
    stream.add(spec(1, range("a", "b"), 2));
    stream.drain(1, &mut out).unwrap();
    assert_eq!(told(&out), ["1@2:a0,a1,a2,a3~"]);
    stream.remove(1);
    stream.add(spec(2, range("a", "b"), 2));
    out.clear();
    stream.drain(1, &mut out).unwrap();
    assert_eq!(told(&out), ["2@2:a0,a1,a2,a3~"], "from its beginning");
    cluster.compact(3);
    out.clear();
    while stream.drain(1, &mut out).unwrap() {}
    assert_eq!(told(&out), ["2 compacted"]);
}
