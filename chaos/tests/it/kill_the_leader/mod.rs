//! The leader is killed, twenty times, and stopped, under load: nothing acknowledged is lost, no watcher misses,
//! repeats or reorders an event, no linearizable read goes back, and those that were killed come back equal.
//!
//! The gaps between acknowledged writes are printed and not judged: they are the machine's as much as ours.

mod history;
mod load;
mod objects;
mod witness;

use std::time::{Duration, Instant};

use barque_chaos::cluster::{Cluster, Options};

use history::{History, assert_equal_members};
use load::Load;
use objects::Objects;
use witness::Witness;

const KILLS: usize = 20;
const STOPS: usize = 5;
const PATIENCE: Duration = Duration::from_secs(60);

/// A cluster under load, and everybody who watches it.
struct Scene {
    cluster: Cluster,
    load: Load,
    witness: Witness,
    objects: Option<Objects>,
}

impl Scene {
    async fn open(api: bool) -> Scene {
        let options = Options {
            api,
            ..Options::default()
        };
        let cluster = Cluster::barque(3, options).await.unwrap();
        let leader = cluster.leader().await.unwrap();
        let load = Load::start((0..3).map(|index| cluster.access(index)).collect());
        let witness = Witness::of_etcd((leader + 1) % 3, cluster.etcdctl_of((leader + 1) % 3));
        let objects = if api {
            Some(Objects::start(&cluster, (leader + 2) % 3).await)
        } else {
            None
        };
        Scene {
            cluster,
            load,
            witness,
            objects,
        }
    }

    /// Nobody watches through the member that is about to be lost.
    async fn clear(&mut self, victim: usize) {
        if self.witness.member() == victim {
            let next = (victim + 1) % 3;
            self.witness.resume(next, self.cluster.etcdctl_of(next)).await;
        }
        if let Some(objects) = &mut self.objects {
            objects.clear(&self.cluster, victim).await;
        }
    }

    /// Takes the leader away by `lose`, waits until writes are acknowledged again, brings it back by `recover`, and
    /// says how long nothing was acknowledged.
    async fn round(
        &mut self,
        lose: impl FnOnce(&mut Cluster, usize) -> anyhow::Result<()>,
        recover: impl FnOnce(&mut Cluster, usize) -> anyhow::Result<()>,
    ) -> Duration {
        let leader = self.cluster.leader().await.unwrap();
        self.clear(leader).await;
        self.load.acknowledged_after(Instant::now(), 50).await;
        let lost = Instant::now();
        lose(&mut self.cluster, leader).unwrap();
        self.load.acknowledged_after(lost, 200).await;
        let gap = self.load.longest_gap_since(lost);
        recover(&mut self.cluster, leader).unwrap();
        self.cluster.wait_healthy().await.unwrap();
        gap
    }

    /// Ends the load and holds everything that anybody saw against the history.
    async fn judge(mut self) {
        let outcome = self.load.finish().await;
        println!(
            "{} writes acknowledged, {} of unknown outcome, {} linearizable reads",
            outcome.acknowledged.len(),
            outcome.unknown,
            outcome.reads
        );
        let history = History::read(&self.cluster, 0, outcome.last_revision).await;
        history.assert_holds(&outcome);
        let seen = self.witness.finish(outcome.last_revision).await;
        history.assert_seen(&seen);
        assert_equal_members(&self.cluster, outcome.last_revision).await;
        if let Some(objects) = self.objects.take() {
            objects.judge().await;
        }
    }
}

fn print_gaps(what: &str, mut gaps: Vec<Duration>) {
    gaps.sort();
    let (median, worst) = (gaps[gaps.len() / 2], gaps[gaps.len() - 1]);
    println!(
        "{what} {} times: gap between acknowledged writes: median {median:?}, worst {worst:?}",
        gaps.len()
    );
}

async fn kill_and_stop(api: bool) {
    let mut scene = Scene::open(api).await;
    let mut gaps = Vec::new();
    for _ in 0..KILLS {
        gaps.push(scene.round(Cluster::kill9, Cluster::restart).await);
    }
    print_gaps("kill -9 of the leader", gaps);
    let mut gaps = Vec::new();
    for _ in 0..STOPS {
        gaps.push(scene.round(Cluster::stop, Cluster::cont).await);
    }
    print_gaps("SIGSTOP of the leader", gaps);
    scene.judge().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_datastore_loses_its_leader() {
    kill_and_stop(false).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_with_its_kubernetes_api_loses_its_leader() {
    kill_and_stop(true).await;
}
