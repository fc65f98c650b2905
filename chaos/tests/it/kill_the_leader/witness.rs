//! A watch by etcdctl that outlives its members: [`Witness`].

use barque_chaos::cluster::{Etcdctl, LineStream};
use base64::{Engine, engine::general_purpose::STANDARD};
use serde_json::Value;
use tokio::{
    sync::{mpsc, oneshot, watch},
    task::JoinHandle,
    time::timeout,
};

use super::{PATIENCE, load::PREFIX};

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    pub revision: i64,
    pub key: String,
    pub value: String,
}

/// The process is read by a task, so that it is never stalled by a full pipe.
pub struct Witness {
    member: usize,
    moves: mpsc::Sender<(Etcdctl, oneshot::Sender<()>)>,
    last: watch::Receiver<i64>,
    reader: JoinHandle<Vec<Seen>>,
}

impl Witness {
    pub fn of_etcd(member: usize, etcdctl: Etcdctl) -> Witness {
        let (moves, receiver) = mpsc::channel(1);
        let (publish, last) = watch::channel(0);
        let reader = tokio::spawn(read(etcdctl, receiver, publish));
        Witness {
            member,
            moves,
            last,
            reader,
        }
    }

    pub fn member(&self) -> usize {
        self.member
    }

    /// Ends the process and starts one at another member, from the revision after the last seen.
    pub async fn resume(&mut self, member: usize, etcdctl: Etcdctl) {
        let (done, resumed) = oneshot::channel();
        self.moves
            .send((etcdctl, done))
            .await
            .expect("the witness still reads");
        resumed.await.expect("it starts again");
        self.member = member;
    }

    /// Everything seen up to `revision`, which must come.
    pub async fn finish(mut self, revision: i64) -> Vec<Seen> {
        let reached = timeout(PATIENCE, self.last.wait_for(|&last| last >= revision)).await;
        reached
            .expect("the last event comes")
            .expect("the witness still reads");
        drop(self.moves);
        self.reader.await.expect("it read to the end")
    }
}

async fn read(
    mut etcdctl: Etcdctl,
    mut moves: mpsc::Receiver<(Etcdctl, oneshot::Sender<()>)>,
    publish: watch::Sender<i64>,
) -> Vec<Seen> {
    let mut seen: Vec<Seen> = Vec::new();
    let mut next = 1;
    let mut stream = start(&etcdctl, next);
    loop {
        tokio::select! {
            line = stream.next_line() => {
                let line = line.expect("readable").expect("etcdctl goes on watching");
                seen.extend(events(&line));
                next = seen.last().map_or(1, |event| event.revision + 1);
                publish.send_replace(next - 1);
            }
            moved = moves.recv() => {
                let Some((elsewhere, done)) = moved else { return seen };
                etcdctl = elsewhere;
                stream = start(&etcdctl, next);
                let _ = done.send(());
            }
        }
    }
}

fn start(etcdctl: &Etcdctl, revision: i64) -> LineStream {
    let revision = format!("--rev={revision}");
    etcdctl
        .stream(&["watch", PREFIX, "--prefix", &revision, "--write-out=json"])
        .expect("etcdctl starts")
}

fn events(line: &str) -> Vec<Seen> {
    let response: Value = serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
    assert_ne!(response["Canceled"], true, "{line}");
    let events = response["Events"]
        .as_array()
        .map(Vec::as_slice)
        .unwrap_or_default();
    let text = |value: &Value| {
        let bytes = STANDARD
            .decode(value.as_str().unwrap_or_default())
            .expect("etcdctl prints base64");
        String::from_utf8(bytes).expect("the load writes text")
    };
    let seen = events.iter().map(|event| Seen {
        revision: event["kv"]["mod_revision"].as_i64().expect("a revision"),
        key: text(&event["kv"]["key"]),
        value: text(&event["kv"]["value"]),
    });
    seen.collect()
}
