//! Many streams on threads of their own beside one publisher.

use std::{
    collections::BTreeMap,
    sync::Arc,
    task::{Context, Wake, Waker},
    thread::{self, Thread},
};

use super::{
    super::*,
    fake::{Cluster, Seen, expected, range, seen, spec},
};

const STREAMS: i64 = 50;
const REVISIONS: i64 = 3000;

struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

type Watched = BTreeMap<WatchId, (WatchSpec, Revision, Vec<Seen>)>;

/// Follows the hub until everything up to the last revision was given; now and then adds a watcher.
fn follow(cluster: &Cluster, stream: i64) -> Watched {
    let waker = Waker::from(Arc::new(Unpark(thread::current())));
    let mut subscriber = cluster.hub.subscribe();
    let mut watched = Watched::new();
    let mut rounds = 0;
    let mut out = vec![];
    loop {
        if rounds % 16 == 0 && watched.len() < 8 {
            let key = format!("k{}", (stream + rounds) % 10);
            let range = if stream % 3 == 0 {
                range("k", "l")
            } else {
                range(&key, "")
            };
            let start = [0, 1 + rounds, 2][(stream % 3) as usize];
            let spec = spec(rounds, range, start);
            let created = subscriber.add(spec.clone());
            watched.insert(rounds, (spec, created, vec![]));
        }
        rounds += 1;
        if subscriber
            .poll_ready(&mut Context::from_waker(&waker))
            .is_pending()
        {
            if subscriber.synced_revision() == Some(Revision(REVISIONS + 1)) {
                return watched;
            }
            thread::park();
            continue;
        }
        subscriber.drain(2000, &mut out).expect("drain");
        for delivery in out.drain(..) {
            let Delivery::Events {
                watch,
                changes,
                matched,
                ..
            } = delivery
            else {
                panic!("nothing was compacted: {delivery:?}")
            };
            watched
                .get_mut(&watch)
                .expect("a watcher that is there")
                .2
                .extend(seen(&changes, &matched));
        }
    }
}

#[test]
fn fifty_streams_beside_a_publisher() {
    let cluster = Cluster::new(20_000);
    let all_watched: Vec<Watched> = thread::scope(|scope| {
        let followers: Vec<_> = (0..STREAMS)
            .map(|stream| {
                let cluster = &cluster;
                scope.spawn(move || follow(cluster, stream))
            })
            .collect();
        for written in 1..=REVISIONS {
            // The last revision concerns everyone, so that everyone wakes up for the end.
            let keys: Vec<String> = match written {
                REVISIONS => (0..10).map(|key| format!("+k{key}")).collect(),
                _ => vec![
                    format!("+k{}", written * 7 % 10),
                    format!("-k{}", written * 3 % 10),
                ],
            };
            let keys: Vec<&str> = keys.iter().map(String::as_str).collect();
            if written % 500 == 0 {
                cluster.replace_state(&[&keys], 0);
            } else {
                cluster.write(&keys);
            }
        }
        followers
            .into_iter()
            .map(|follower| follower.join().expect("a follower"))
            .collect()
    });

    let all = cluster.history.all();
    for watched in &all_watched {
        for (spec, created, delivered) in watched.values() {
            assert_eq!(delivered, &expected(&all, spec, *created));
        }
    }
    assert!(!cluster.hub.has_interests());
}
