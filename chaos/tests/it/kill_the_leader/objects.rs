//! The same for the Kubernetes API: kubectl changes one object and watches it: [`Objects`].

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use barque_chaos::cluster::{Cluster, Kubectl, LineStream};
use serde_json::Value;
use tokio::{
    sync::{mpsc, oneshot, watch},
    task::JoinHandle,
    time::timeout,
};

use super::PATIENCE;

const PATH: &str = "/api/v1/namespaces/default/configmaps";
const PAUSE: Duration = Duration::from_millis(20);

/// One change: its number, and the resourceVersion it was answered or seen with.
type Change = (u64, i64);

pub struct Objects {
    member: usize,
    over: Arc<AtomicBool>,
    writer: JoinHandle<Vec<Change>>,
    moves: mpsc::Sender<(Kubectl, oneshot::Sender<()>)>,
    last: watch::Receiver<i64>,
    reader: JoinHandle<Vec<Change>>,
}

impl Objects {
    pub async fn start(cluster: &Cluster, member: usize) -> Objects {
        let members: Vec<Kubectl> = (0..3).map(|index| cluster.kubectl_of(index).unwrap()).collect();
        let created = members[member]
            .run(&[
                "create",
                "configmap",
                "watched",
                "-o",
                "jsonpath={.metadata.resourceVersion}",
            ])
            .await
            .unwrap()
            .success()
            .unwrap();
        let start: i64 = created.parse().expect("a resourceVersion");
        let over = Arc::new(AtomicBool::new(false));
        let writer = tokio::spawn(write(members.clone(), over.clone()));
        let (moves, receiver) = mpsc::channel(1);
        let (publish, last) = watch::channel(start);
        let reader = tokio::spawn(read(members[member].clone(), start, receiver, publish));
        Objects {
            member,
            over,
            writer,
            moves,
            last,
            reader,
        }
    }

    /// Watches elsewhere, from the resourceVersion last seen, when `victim` serves the watch.
    pub async fn clear(&mut self, cluster: &Cluster, victim: usize) {
        if self.member == victim {
            self.member = (victim + 2) % 3;
            let (done, resumed) = oneshot::channel();
            let kubectl = cluster.kubectl_of(self.member).unwrap();
            self.moves
                .send((kubectl, done))
                .await
                .expect("the witness still reads");
            resumed.await.expect("it starts again");
        }
    }

    /// Every acknowledged change was seen, once and in order, with the resourceVersion it was answered with.
    pub async fn judge(mut self) {
        self.over.store(true, Ordering::Relaxed);
        let acknowledged = self.writer.await.expect("the writer");
        let last = acknowledged.last().expect("changes were acknowledged").1;
        let reached = timeout(PATIENCE, self.last.wait_for(|&seen| seen >= last)).await;
        reached
            .expect("the last change is seen")
            .expect("the witness still reads");
        drop(self.moves);
        let seen = self.reader.await.expect("it read to the end");
        assert!(
            seen.is_sorted_by(|a, b| a.1 < b.1),
            "resourceVersions went back or came again"
        );
        assert!(acknowledged.is_sorted_by(|a, b| a.1 < b.1), "an answer went back");
        for change in &acknowledged {
            assert!(seen.contains(change), "{change:?} was acknowledged and not seen");
        }
        let mut numbers: Vec<u64> = seen.iter().map(|change| change.0).collect();
        numbers.sort_unstable();
        assert!(numbers.is_sorted_by(|a, b| a < b), "a change was applied twice");
        println!(
            "kubectl: {} changes acknowledged, {} seen once, in order",
            acknowledged.len(),
            seen.len()
        );
    }
}

/// Changes the object through one member after another; what is not answered has an unknown outcome.
async fn write(members: Vec<Kubectl>, over: Arc<AtomicBool>) -> Vec<Change> {
    let (mut acknowledged, mut at) = (Vec::new(), 0);
    for number in 1.. {
        if over.load(Ordering::Relaxed) {
            break;
        }
        tokio::time::sleep(PAUSE).await;
        let patch = format!("{{\"data\":{{\"number\":\"{number}\"}}}}");
        let arguments = ["patch", "configmap", "watched", "--type=merge", "-p", &patch];
        let shown = [
            "-o",
            "jsonpath={.metadata.resourceVersion}",
            "--request-timeout=3s",
        ];
        let output = members[at % 3]
            .run(&[&arguments[..], &shown[..]].concat())
            .await
            .expect("kubectl runs");
        match output.success() {
            Ok(version) => acknowledged.push((number, version.parse().expect("a resourceVersion"))),
            Err(_) => at += 1,
        }
    }
    acknowledged
}

async fn read(
    kubectl: Kubectl,
    start: i64,
    mut moves: mpsc::Receiver<(Kubectl, oneshot::Sender<()>)>,
    publish: watch::Sender<i64>,
) -> Vec<Change> {
    let mut seen: Vec<Change> = Vec::new();
    let mut last = start;
    let mut stream = watch(&kubectl, last);
    loop {
        tokio::select! {
            line = stream.next_line() => {
                let line = line.expect("readable").expect("kubectl goes on watching");
                let change = change(&line);
                last = change.1;
                seen.push(change);
                publish.send_replace(last);
            }
            moved = moves.recv() => {
                let Some((elsewhere, done)) = moved else { return seen };
                stream = watch(&elsewhere, last);
                let _ = done.send(());
            }
        }
    }
}

fn watch(kubectl: &Kubectl, version: i64) -> LineStream {
    let path = format!("{PATH}?watch=true&resourceVersion={version}&fieldSelector=metadata.name%3Dwatched");
    kubectl.stream(&["get", "--raw", &path]).expect("kubectl starts")
}

fn change(line: &str) -> Change {
    let event: Value = serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
    assert_eq!(event["type"], "MODIFIED", "{line}");
    let object = &event["object"];
    let number = object["data"]["number"]
        .as_str()
        .and_then(|number| number.parse().ok());
    let version = object["metadata"]["resourceVersion"]
        .as_str()
        .and_then(|version| version.parse().ok());
    (number.expect("its number"), version.expect("a resourceVersion"))
}
