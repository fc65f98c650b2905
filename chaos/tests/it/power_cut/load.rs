//! Writers, and the ledger of what was acknowledged to them.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering},
    },
    time::Duration,
};

use etcd_client::GetOptions;
use tokio::task::JoinHandle;

const WRITERS: usize = 6;
/// Between the writes of one writer: what runs here is a test of cuts, not of speed.
const PAUSE: Duration = Duration::from_millis(4);

#[derive(Default)]
pub struct Ledger {
    /// Revisions, by key. Every key is written once.
    acknowledged: Mutex<BTreeMap<String, i64>>,
    pub count: AtomicU64,
    /// The highest revision of a write that was acknowledged.
    pub revision: AtomicI64,
}

impl Ledger {
    fn acknowledge(&self, key: String, revision: i64) {
        self.acknowledged.lock().unwrap().insert(key, revision);
        self.count.fetch_add(1, Ordering::SeqCst);
        self.revision.fetch_max(revision, Ordering::SeqCst);
    }

    pub fn copy(&self) -> BTreeMap<String, i64> {
        self.acknowledged.lock().unwrap().clone()
    }

    /// Everything that was acknowledged before the call is there, at the revision that was told.
    pub async fn check(&self, endpoint: &str) {
        let expected = self.copy();
        let found = read_all(endpoint).await;
        for (key, revision) in expected {
            assert_eq!(
                found.get(&key),
                Some(&revision),
                "{key} was acknowledged at {revision}"
            );
        }
    }
}

/// All keys of the writers with their revisions, by one linearizable read after the other.
async fn read_all(endpoint: &str) -> BTreeMap<String, i64> {
    let mut attempts = 0;
    loop {
        let read = async {
            let options = GetOptions::new().with_prefix().with_keys_only();
            super::client(endpoint).await?.get("p/", Some(options)).await
        };
        match read.await {
            Ok(read) => {
                let row = |kv: &etcd_client::KeyValue| (kv.key_str().unwrap().to_owned(), kv.mod_revision());
                return read.kvs().iter().map(row).collect();
            }
            // An election may be under way.
            Err(error) => {
                attempts += 1;
                assert!(attempts < 20, "{error}");
                tokio::time::sleep(Duration::from_millis(200)).await;
            }
        }
    }
}

pub struct Load {
    pub ledger: Arc<Ledger>,
    stop: Arc<AtomicBool>,
    writers: Vec<JoinHandle<()>>,
}

impl Load {
    pub fn start(endpoints: &[String]) -> Load {
        let (ledger, stop) = (Arc::new(Ledger::default()), Arc::new(AtomicBool::new(false)));
        let writers = (0..WRITERS)
            .map(|writer| {
                let endpoint = endpoints[writer % endpoints.len()].clone();
                tokio::spawn(write(writer, endpoint, ledger.clone(), stop.clone()))
            })
            .collect();
        Load {
            ledger,
            stop,
            writers,
        }
    }

    /// Until so many more writes are acknowledged.
    pub async fn wait_for_more(&self, count: u64) {
        let target = self.ledger.count.load(Ordering::SeqCst) + count;
        let reached = async {
            while self.ledger.count.load(Ordering::SeqCst) < target {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(60), reached)
            .await
            .expect("writes go on");
    }

    pub async fn check(&self, endpoint: &str) {
        self.ledger.check(endpoint).await;
    }

    pub async fn stop(self) -> Arc<Ledger> {
        self.stop.store(true, Ordering::SeqCst);
        for writer in self.writers {
            writer.await.unwrap();
        }
        self.ledger
    }
}

async fn write(writer: usize, endpoint: String, ledger: Arc<Ledger>, stop: Arc<AtomicBool>) {
    let mut number = 0u64;
    while !stop.load(Ordering::SeqCst) {
        let Ok(mut client) = super::client(&endpoint).await else {
            tokio::time::sleep(Duration::from_millis(50)).await;
            continue;
        };
        while !stop.load(Ordering::SeqCst) {
            number += 1;
            let key = format!("p/{writer}/{number:08}");
            match client.put(key.clone(), format!("{number:01200}"), None).await {
                Ok(put) => ledger.acknowledge(key, put.header().expect("a put has a header").revision()),
                // Perhaps written, perhaps not; nobody is told that it was.
                Err(_) => {
                    tokio::time::sleep(Duration::from_millis(50)).await;
                    break;
                }
            }
            tokio::time::sleep(PAUSE).await;
        }
    }
}
