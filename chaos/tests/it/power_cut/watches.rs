//! One watch on every member, resumed where it broke: every event once, in order, and the same on all.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use etcd_client::WatchOptions;
use tokio::task::JoinHandle;

use super::load::Ledger;

type Events = Arc<Mutex<BTreeMap<i64, String>>>;

pub struct Watches {
    stop: Arc<AtomicBool>,
    watches: Vec<(String, Events, JoinHandle<()>)>,
}

impl Watches {
    pub fn start(endpoints: &[String]) -> Watches {
        let stop = Arc::new(AtomicBool::new(false));
        let watches = endpoints
            .iter()
            .map(|endpoint| {
                let events = Events::default();
                let task = tokio::spawn(watch(endpoint.clone(), events.clone(), stop.clone()));
                (endpoint.clone(), events, task)
            })
            .collect();
        Watches { stop, watches }
    }

    /// Waits until every watch has reached the last write, then compares them.
    pub async fn finish(self, ledger: &Ledger, revision: i64) {
        let reached = async {
            while !self
                .watches
                .iter()
                .all(|watch| last(&watch.1) >= revision || watch.2.is_finished())
            {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        let in_time = tokio::time::timeout(Duration::from_secs(30), reached).await;
        let reached: Vec<i64> = self.watches.iter().map(|watch| last(&watch.1)).collect();
        assert!(in_time.is_ok(), "watches reached {reached:?} of {revision}");
        self.stop.store(true, Ordering::SeqCst);
        let mut all = Vec::new();
        for (endpoint, events, task) in self.watches {
            task.await.expect("no watch goes back");
            all.push((endpoint, std::mem::take(&mut *events.lock().unwrap())));
        }
        for (endpoint, events) in &all {
            for (key, revision) in ledger.copy() {
                assert_eq!(
                    events.get(&revision),
                    Some(&key),
                    "{endpoint} did not send {revision}"
                );
            }
            assert!(
                *events == all[0].1,
                "{endpoint} and {} sent different events",
                all[0].0
            );
        }
    }
}

fn last(events: &Events) -> i64 {
    events
        .lock()
        .unwrap()
        .last_key_value()
        .map_or(0, |(revision, _)| *revision)
}

async fn watch(endpoint: String, events: Events, stop: Arc<AtomicBool>) {
    while !stop.load(Ordering::SeqCst) {
        // A broken stream is resumed behind the last event.
        if follow(&endpoint, &events, &stop).await.is_err() {
            tokio::time::sleep(Duration::from_millis(30)).await;
        }
    }
}

async fn follow(endpoint: &str, events: &Events, stop: &AtomicBool) -> Result<(), etcd_client::Error> {
    let options = WatchOptions::new()
        .with_prefix()
        .with_start_revision(last(events) + 1);
    // Without the time limit that single requests have.
    let connect = etcd_client::ConnectOptions::new().with_connect_timeout(Duration::from_secs(2));
    let mut client = etcd_client::Client::connect([endpoint], Some(connect)).await?;
    let mut stream = client.watch("p/", Some(options)).await?;
    while !stop.load(Ordering::SeqCst) {
        let message = match tokio::time::timeout(Duration::from_millis(200), stream.message()).await {
            Ok(message) => message?,
            Err(_) => continue,
        };
        let Some(message) = message else { return Ok(()) };
        assert!(
            !message.canceled(),
            "{endpoint} canceled a watch: {}",
            message.cancel_reason()
        );
        for event in message.events() {
            let kv = event.kv().expect("an event has a key");
            let (key, revision) = (kv.key_str().unwrap().to_owned(), kv.mod_revision());
            let before = last(events);
            assert!(revision > before, "{endpoint} sent {revision} after {before}");
            events.lock().unwrap().insert(revision, key);
        }
    }
    Ok(())
}
