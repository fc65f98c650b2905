//! Writers and readers that go on whatever happens to the members: [`Load`].
//!
//! A writer numbers its writes. An answer makes a write acknowledged; any error leaves its outcome unknown, and the
//! writer goes on with the next number at the next member.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use barque_chaos::cluster::Access;
use etcd_client::Client;
use tokio::{sync::watch, task::JoinSet, time::timeout};

use super::PATIENCE;

pub const PREFIX: &str = "load/";
const WRITERS: usize = 8;
const READERS: usize = 2;
/// Between two writes of a writer: a load that leaves the members room to be restarted on a small machine.
const PAUSE: Duration = Duration::from_millis(10);
const TIME_LIMIT: Duration = Duration::from_secs(3);

#[derive(Debug, Clone)]
pub struct Acknowledged {
    pub key: String,
    pub number: u64,
    pub revision: i64,
}

/// What the load knows when it is over.
pub struct Outcome {
    pub acknowledged: Vec<Acknowledged>,
    pub unknown: u64,
    pub reads: u64,
    /// Of the last write of all, made when all others were over.
    pub last_revision: i64,
}

pub struct Load {
    shared: Arc<Shared>,
    members: Vec<Access>,
    writers: JoinSet<Vec<(Acknowledged, Instant)>>,
    readers: JoinSet<()>,
    moments: watch::Receiver<Vec<Instant>>,
}

struct Shared {
    over: AtomicBool,
    unknown: AtomicU64,
    reads: AtomicU64,
    /// Nothing read or acknowledged from now on may be older.
    floor: AtomicI64,
    moments: watch::Sender<Vec<Instant>>,
}

impl Load {
    pub fn start(members: Vec<Access>) -> Load {
        let (sender, moments) = watch::channel(Vec::new());
        let shared = Arc::new(Shared {
            over: AtomicBool::new(false),
            unknown: AtomicU64::new(0),
            reads: AtomicU64::new(0),
            floor: AtomicI64::new(0),
            moments: sender,
        });
        let (mut writers, mut readers) = (JoinSet::new(), JoinSet::new());
        for number in 0..WRITERS {
            writers.spawn(write(number, members.clone(), shared.clone()));
        }
        for number in 0..READERS {
            readers.spawn(read(number, members.clone(), shared.clone()));
        }
        Load {
            shared,
            members,
            writers,
            readers,
            moments,
        }
    }

    /// Waits for `count` writes that were acknowledged after `since`.
    pub async fn acknowledged_after(&self, since: Instant, count: usize) {
        let mut moments = self.moments.clone();
        let enough =
            moments.wait_for(|all| all.iter().rev().take_while(|&&moment| moment > since).count() >= count);
        timeout(PATIENCE, enough)
            .await
            .expect("writes are acknowledged again")
            .expect("the load goes on");
    }

    /// The longest time without an acknowledged write that ended after `since`.
    pub fn longest_gap_since(&self, since: Instant) -> Duration {
        let moments = self.moments.borrow();
        let ended_after = moments.windows(2).rev().take_while(|pair| pair[1] > since);
        ended_after
            .map(|pair| pair[1] - pair[0])
            .max()
            .expect("something was acknowledged since")
    }

    /// Stops writers and readers, and makes one last write.
    pub async fn finish(&mut self) -> Outcome {
        self.shared.over.store(true, Ordering::Relaxed);
        let mut acknowledged = Vec::new();
        while let Some(writer) = self.writers.join_next().await {
            acknowledged.extend(writer.expect("a writer").into_iter().map(|(write, _)| write));
        }
        while let Some(reader) = self.readers.join_next().await {
            reader.expect("no reader saw the past");
        }
        let mut client = self.members[0]
            .connect(PATIENCE)
            .await
            .expect("all members are back");
        let put = client
            .put(format!("{PREFIX}last"), "0", None)
            .await
            .expect("a last write");
        Outcome {
            acknowledged,
            unknown: self.shared.unknown.load(Ordering::Relaxed),
            reads: self.shared.reads.load(Ordering::Relaxed),
            last_revision: put.header().expect("a header").revision(),
        }
    }
}

/// A connection to one member after another.
struct Rotation {
    members: Vec<Access>,
    at: usize,
    /// Half of them go round the other way, so that they do not all end up at one member, and wait there together.
    step: usize,
    client: Option<Client>,
}

impl Rotation {
    async fn client(&mut self) -> anyhow::Result<Client> {
        if self.client.is_none() {
            let access = &self.members[self.at % self.members.len()];
            self.client = Some(timeout(TIME_LIMIT, access.connect(TIME_LIMIT)).await??);
        }
        Ok(self.client.clone().expect("just connected"))
    }

    fn next(&mut self) {
        self.at += self.step;
        self.client = None;
    }
}

/// The client's own limit begins once there is a connection, and a TLS handshake with a member that was stopped never
/// ends.
async fn answered<T>(call: impl Future<Output = Result<T, etcd_client::Error>>) -> Option<T> {
    timeout(TIME_LIMIT, call).await.ok()?.ok()
}

async fn write(writer: usize, members: Vec<Access>, shared: Arc<Shared>) -> Vec<(Acknowledged, Instant)> {
    let mut rotation = Rotation {
        members,
        at: writer,
        step: 1 + writer / 2 % 2,
        client: None,
    };
    let mut written = Vec::new();
    let mut number = 0;
    while !shared.over.load(Ordering::Relaxed) {
        tokio::time::sleep(PAUSE).await;
        // A member that cannot be reached was sent nothing.
        let Ok(mut client) = rotation.client().await else {
            rotation.next();
            continue;
        };
        number += 1;
        let key = format!("{PREFIX}{writer}/{}", number % 16);
        let floor = shared.floor.load(Ordering::SeqCst);
        match answered(client.put(key.clone(), number.to_string(), None)).await {
            Some(answer) => {
                let revision = answer.header().expect("a header").revision();
                assert!(
                    revision > floor,
                    "acknowledged at {revision} after {floor} was seen"
                );
                shared.floor.fetch_max(revision, Ordering::SeqCst);
                let now = Instant::now();
                shared.moments.send_modify(|all| all.push(now));
                written.push((
                    Acknowledged {
                        key,
                        number,
                        revision,
                    },
                    now,
                ));
            }
            None => {
                shared.unknown.fetch_add(1, Ordering::Relaxed);
                rotation.next();
            }
        }
    }
    written
}

/// A linearizable read is never older than anything acknowledged or read before it was sent.
async fn read(reader: usize, members: Vec<Access>, shared: Arc<Shared>) {
    let mut rotation = Rotation {
        members,
        at: reader,
        step: 1,
        client: None,
    };
    while !shared.over.load(Ordering::Relaxed) {
        tokio::time::sleep(PAUSE).await;
        let Ok(mut client) = rotation.client().await else {
            rotation.next();
            continue;
        };
        let floor = shared.floor.load(Ordering::SeqCst);
        match answered(client.get(format!("{PREFIX}0/1"), None)).await {
            Some(answer) => {
                let revision = answer.header().expect("a header").revision();
                assert!(revision >= floor, "a read at {revision} after {floor} was seen");
                shared.floor.fetch_max(revision, Ordering::SeqCst);
                shared.reads.fetch_add(1, Ordering::Relaxed);
                // The next one asks somebody else: agreement between members is what is read for.
                rotation.next();
            }
            None => rotation.next(),
        }
    }
}
