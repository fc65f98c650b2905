//! Random histories, watchers, drains, compactions and snapshots: every watcher is given exactly what matches
//! from its start on, in order, once, with no early progress, until it is compacted.

use std::{collections::BTreeMap, sync::Arc};

use proptest::prelude::*;

use super::{
    super::*,
    fake::{Cluster, Seen, expected, seen},
};

const STREAMS: usize = 3;

#[derive(Debug, Clone)]
enum Step {
    /// Visible in the history; published by the next [`Step::Publish`].
    Write(Vec<(bool, u8)>),
    Publish,
    Add {
        stream: usize,
        start: StartAt,
        first: u8,
        end: Option<u8>,
        no_put: bool,
        no_delete: bool,
    },
    Remove {
        stream: usize,
        which: usize,
    },
    Drain {
        stream: usize,
        max_bytes: usize,
    },
    DrainAll {
        stream: usize,
    },
    Compact {
        back: i64,
    },
    Snapshot {
        compact_back: Option<i64>,
    },
    Replace {
        stream: usize,
    },
}

#[derive(Debug, Clone)]
enum StartAt {
    Now,
    Back(i64),
    Ahead(i64),
}

fn step() -> impl Strategy<Value = Step> {
    let stream = 0..STREAMS;
    let start = prop_oneof![
        Just(StartAt::Now),
        (0i64..12).prop_map(StartAt::Back),
        (1i64..6).prop_map(StartAt::Ahead)
    ];
    let filters = (prop::bool::weighted(0.15), prop::bool::weighted(0.15));
    let add = (stream.clone(), start, 0u8..5, prop::option::of(0u8..7), filters).prop_map(
        |(stream, start, first, end, (no_put, no_delete))| Step::Add {
            stream,
            start,
            first,
            end,
            no_put,
            no_delete,
        },
    );
    prop_oneof![
        6 => prop::collection::vec((any::<bool>(), 0u8..5), 1..8).prop_map(Step::Write),
        6 => Just(Step::Publish),
        4 => add,
        1 => (stream.clone(), any::<usize>()).prop_map(|(stream, which)| Step::Remove { stream, which }),
        3 => (stream.clone(), 0usize..600).prop_map(|(stream, max_bytes)| Step::Drain { stream, max_bytes }),
        2 => stream.clone().prop_map(|stream| Step::DrainAll { stream }),
        1 => (0i64..8).prop_map(|back| Step::Compact { back }),
        1 => prop::option::of(0i64..8).prop_map(|compact_back| Step::Snapshot { compact_back }),
        1 => stream.prop_map(|stream| Step::Replace { stream }),
    ]
}

struct Model {
    cluster: Cluster,
    streams: Vec<Stream>,
    unpublished: Vec<Arc<Changes>>,
    next_id: WatchId,
}

struct Stream {
    subscriber: Subscriber,
    watches: BTreeMap<WatchId, Watch>,
}

struct Watch {
    spec: WatchSpec,
    /// The head when it was added.
    created: Revision,
    delivered: Vec<Seen>,
    /// Nothing before this can be compacted away from the watcher any more.
    safe: Revision,
}

impl Watch {
    fn start(&self) -> Revision {
        if self.spec.start == Revision(0) {
            self.created.next()
        } else {
            self.spec.start
        }
    }
}

impl Model {
    fn new(ring_bytes: usize) -> Self {
        let cluster = Cluster::new(ring_bytes);
        let streams = (0..STREAMS).map(|_| Stream::new(&cluster)).collect();
        Self {
            cluster,
            streams,
            unpublished: vec![],
            next_id: 1,
        }
    }

    fn head(&self) -> Revision {
        self.cluster.hub.head().revision
    }

    fn run(&mut self, step: Step) {
        match step {
            Step::Write(events) => {
                let events: Vec<String> = events
                    .iter()
                    .map(|&(put, key)| format!("{}{}", if put { '+' } else { '-' }, char::from(b'a' + key)))
                    .collect();
                let events: Vec<&str> = events.iter().map(String::as_str).collect();
                self.unpublished.push(self.cluster.history.append(&events));
            }
            Step::Publish => self.publish(),
            Step::Add {
                stream,
                start,
                first,
                end,
                no_put,
                no_delete,
            } => {
                let key = |byte: u8| Bytes::from(vec![b'a' + byte]);
                let range = match end {
                    None => KeyRange::single(key(first)),
                    Some(6) => KeyRange {
                        start: key(first),
                        end: None,
                    },
                    Some(end) => KeyRange {
                        start: key(first),
                        end: Some(key(end)),
                    },
                };
                let start = match start {
                    StartAt::Now => Revision(0),
                    StartAt::Back(by) => Revision((self.head().0 - by).max(1)),
                    StartAt::Ahead(by) => Revision(self.head().0 + by),
                };
                self.next_id += 1;
                let spec = WatchSpec {
                    id: self.next_id,
                    range,
                    start,
                    no_put,
                    no_delete,
                    prev_kv: false,
                };
                self.streams[stream].add(spec, self.cluster.hub.head().revision);
            }
            Step::Remove { stream, which } => self.streams[stream].remove(which),
            Step::Drain { stream, max_bytes } => {
                self.streams[stream].drain(&self.cluster, max_bytes);
            }
            Step::DrainAll { stream } => self.streams[stream].drain_all(&self.cluster),
            Step::Compact { back } => {
                // Compaction is itself an apply: what came before it is published with it.
                self.cluster
                    .history
                    .compact(self.cluster.history.head().revision.0 - back);
                self.publish();
            }
            Step::Snapshot { compact_back } => {
                let revision = self.cluster.history.head().revision.0;
                self.unpublished.clear();
                self.cluster
                    .replace_state(&[], compact_back.map_or(0, |back| revision - back));
            }
            Step::Replace { stream } => self.streams[stream] = Stream::new(&self.cluster),
        }
        for stream in &mut self.streams {
            stream.check_progress(&self.cluster);
        }
    }

    fn publish(&mut self) {
        self.cluster.hub.publish(
            self.cluster.history.head(),
            std::mem::take(&mut self.unpublished),
            || {},
        );
    }

    fn finish(mut self) {
        self.publish();
        for stream in &mut self.streams {
            stream.drain_all(&self.cluster);
        }
        self.streams.clear();
        assert!(!self.cluster.hub.has_interests());
        let metrics = self.cluster.hub.metrics();
        assert_eq!(
            (metrics.subscribers, metrics.watchers, metrics.slow_watchers),
            (0, 0, 0)
        );
    }
}

impl Stream {
    fn new(cluster: &Cluster) -> Self {
        Self {
            subscriber: cluster.hub.subscribe(),
            watches: BTreeMap::new(),
        }
    }

    fn add(&mut self, spec: WatchSpec, head: Revision) {
        let created = self.subscriber.add(spec.clone());
        assert_eq!(created, head);
        let watch = Watch {
            safe: Revision(0),
            spec,
            created,
            delivered: vec![],
        };
        self.watches.insert(
            watch.spec.id,
            Watch {
                safe: watch.start(),
                ..watch
            },
        );
    }

    fn remove(&mut self, which: usize) {
        let Some(&id) = self.watches.keys().nth(which % self.watches.len().max(1)) else {
            return;
        };
        self.watches.remove(&id);
        assert!(self.subscriber.remove(id));
        assert!(!self.subscriber.contains(id));
    }

    fn drain(&mut self, cluster: &Cluster, max_bytes: usize) -> bool {
        let mut out = vec![];
        let more = self.subscriber.drain(max_bytes, &mut out).expect("drain");
        let all = cluster.history.all();
        for delivery in out {
            match delivery {
                Delivery::Events {
                    watch,
                    changes,
                    matched,
                    is_part,
                } => {
                    let watch = self.watches.get_mut(&watch).expect("a watcher that is there");
                    assert!(
                        changes.revision <= cluster.hub.head().revision,
                        "not published yet"
                    );
                    watch.delivered.extend(seen(&changes, &matched));
                    let truth = expected(&all, &watch.spec, watch.created);
                    assert!(
                        truth.starts_with(&watch.delivered),
                        "{truth:?} but {:?}",
                        watch.delivered
                    );
                    if is_part {
                        continue;
                    }
                    let whole = truth
                        .iter()
                        .take_while(|(revision, ..)| *revision <= changes.revision)
                        .count();
                    assert_eq!(watch.delivered.len(), whole, "a revision was split");
                    watch.safe = watch.safe.max(changes.revision.next());
                }
                Delivery::Compacted {
                    watch,
                    compact_revision,
                } => {
                    let watch = self.watches.remove(&watch).expect("a watcher that is there");
                    // It may have grown since it was found to be in the way.
                    assert!(compact_revision <= cluster.history.head().compact_revision);
                    assert!(
                        watch.safe < compact_revision,
                        "compacted, but needed {:?}",
                        watch.safe
                    );
                }
            }
        }
        more
    }

    fn drain_all(&mut self, cluster: &Cluster) {
        while self.drain(cluster, 300) {}
        let head = cluster.hub.head().revision;
        let all = cluster.history.all();
        for watch in self.watches.values_mut() {
            let due = expected(&all, &watch.spec, watch.created)
                .into_iter()
                .filter(|(revision, ..)| *revision <= head)
                .count();
            assert_eq!(watch.delivered.len(), due, "all was drained");
            watch.safe = watch.safe.max(head.next());
        }
        let ahead = self.watches.values().any(|watch| watch.spec.start > head);
        assert_eq!(self.subscriber.synced_revision(), (!ahead).then_some(head));
    }

    fn check_progress(&mut self, cluster: &Cluster) {
        let stream_synced = self.subscriber.synced_revision();
        let all = cluster.history.all();
        for (&id, watch) in &mut self.watches {
            let own = self.subscriber.watcher_synced_revision(id);
            if stream_synced.is_some() {
                assert_eq!(own, stream_synced);
            }
            let Some(synced) = own else { continue };
            assert!(synced <= cluster.hub.head().revision);
            assert!(
                synced >= watch.spec.start && synced.next() >= watch.start(),
                "earlier than its start"
            );
            let due = expected(&all, &watch.spec, watch.created)
                .into_iter()
                .filter(|(revision, ..)| *revision <= synced)
                .count();
            assert!(watch.delivered.len() >= due, "progress ahead of events");
            watch.safe = watch.safe.max(synced.next());
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn every_watcher_gets_exactly_what_matches(
        ring_bytes in prop_oneof![Just(0usize), 200usize..3000, Just(1 << 20)],
        steps in prop::collection::vec(step(), 1..100),
    ) {
        let mut model = Model::new(ring_bytes);
        for step in steps {
            model.run(step);
        }
        model.finish();
    }
}
