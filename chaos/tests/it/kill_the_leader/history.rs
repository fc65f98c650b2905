//! What happened, as the keyspace itself tells it: [`History`].

use std::collections::{BTreeMap, HashSet};

use barque_chaos::cluster::Cluster;
use etcd_client::WatchOptions;
use tokio::time::timeout;

use super::{
    PATIENCE,
    load::{Outcome, PREFIX},
    witness::Seen,
};

/// Every write of the load by its revision: key and value. Each was a revision of its own.
pub struct History {
    writes: BTreeMap<i64, (String, String)>,
}

impl History {
    /// Read by a watch of everything since the beginning, on one member.
    pub async fn read(cluster: &Cluster, member: usize, last_revision: i64) -> History {
        let mut client = cluster.client(member).await.unwrap();
        let options = WatchOptions::new().with_prefix().with_start_revision(1);
        let mut stream = client.watch(PREFIX, Some(options)).await.unwrap();
        let mut writes = BTreeMap::new();
        while writes
            .last_key_value()
            .is_none_or(|(&revision, _)| revision < last_revision)
        {
            let response = timeout(PATIENCE, stream.message())
                .await
                .unwrap()
                .unwrap()
                .expect("the watch goes on");
            for event in response.events() {
                let kv = event.kv().expect("an event has a kv");
                let write = (
                    kv.key_str().unwrap().to_owned(),
                    kv.value_str().unwrap().to_owned(),
                );
                let known = writes.insert(kv.mod_revision(), write);
                assert_eq!(known, None, "two events at {}", kv.mod_revision());
            }
        }
        History { writes }
    }

    /// What was acknowledged is there, where it was said to be; nothing is there twice.
    pub fn assert_holds(&self, outcome: &Outcome) {
        for write in &outcome.acknowledged {
            let found = self.writes.get(&write.revision);
            let expected = (write.key.clone(), write.number.to_string());
            assert_eq!(
                found,
                Some(&expected),
                "acknowledged at revision {}",
                write.revision
            );
        }
        let mut once = HashSet::new();
        for write in self.writes.values() {
            assert!(once.insert(write), "{write:?} was applied twice");
        }
        let surplus = (self.writes.len() - 1 - outcome.acknowledged.len()) as u64;
        assert!(
            surplus <= outcome.unknown,
            "{surplus} more than acknowledged, {} unknown",
            outcome.unknown
        );
    }

    /// A watcher saw exactly this, in this order.
    pub fn assert_seen(&self, seen: &[Seen]) {
        let mut expected = self.writes.iter();
        for event in seen {
            let (revision, (key, value)) = expected.next().expect("no more events than there were");
            assert_eq!(
                (event.revision, &event.key, &event.value),
                (*revision, key, value)
            );
        }
        assert_eq!(expected.next(), None, "an event was missed");
        println!("{} events seen once, in order", seen.len());
    }
}

/// All members hold the same at `revision`, by etcd's own hash.
pub async fn assert_equal_members(cluster: &Cluster, revision: i64) {
    let mut hashes = Vec::new();
    for index in 0..cluster.len() {
        let mut client = cluster.client(index).await.unwrap();
        // A linearizable read waits until the member has applied everything.
        client.get("any", None).await.unwrap();
        let answer = client.hash_kv(revision).await.unwrap();
        hashes.push((answer.hash(), answer.compact_version()));
    }
    assert!(hashes.iter().all(|hash| hash == &hashes[0]), "{hashes:?}");
}
