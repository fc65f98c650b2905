//! Readers of every member: what a member serves never goes back, over all its lives, and a linearizable read
//! covers everything acknowledged before it.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicI64, Ordering},
    },
    time::Duration,
};

use etcd_client::GetOptions;
use tokio::task::JoinHandle;

use super::load::Ledger;

pub struct Reads {
    stop: Arc<AtomicBool>,
    readers: Vec<JoinHandle<u64>>,
}

impl Reads {
    pub fn start(endpoints: &[String], ledger: Arc<Ledger>) -> Reads {
        let stop = Arc::new(AtomicBool::new(false));
        // The highest revision of any linearizable read that has ended.
        let seen = Arc::new(AtomicI64::new(0));
        let readers = endpoints
            .iter()
            .map(|endpoint| tokio::spawn(read(endpoint.clone(), ledger.clone(), seen.clone(), stop.clone())))
            .collect();
        Reads { stop, readers }
    }

    /// How many reads were served.
    pub async fn stop(self) -> u64 {
        self.stop.store(true, Ordering::SeqCst);
        let mut served = 0;
        for reader in self.readers {
            served += reader.await.expect("no read goes back");
        }
        served
    }
}

async fn read(endpoint: String, ledger: Arc<Ledger>, seen: Arc<AtomicI64>, stop: Arc<AtomicBool>) -> u64 {
    let (mut served, mut last) = (0u64, 0);
    while !stop.load(Ordering::SeqCst) {
        let Ok(mut client) = super::client(&endpoint).await else {
            tokio::time::sleep(Duration::from_millis(20)).await;
            continue;
        };
        loop {
            let serializable = served % 4 != 0;
            let floor = match serializable {
                true => last,
                false => last
                    .max(ledger.revision.load(Ordering::SeqCst))
                    .max(seen.load(Ordering::SeqCst)),
            };
            let options = GetOptions::new().with_prefix().with_limit(1);
            let options = if serializable {
                options.with_serializable()
            } else {
                options
            };
            let Ok(read) = client.get("p/", Some(options)).await else {
                break;
            };
            let revision = read.header().expect("a read has a header").revision();
            assert!(
                revision >= floor,
                "{endpoint} served revision {revision} after {floor} (serializable: {serializable})"
            );
            if !serializable {
                seen.fetch_max(revision, Ordering::SeqCst);
            }
            (last, served) = (revision, served + 1);
            if stop.load(Ordering::SeqCst) {
                break;
            }
            tokio::time::sleep(Duration::from_millis(3)).await;
        }
    }
    served
}
