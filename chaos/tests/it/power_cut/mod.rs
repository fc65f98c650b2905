//! Power cuts of whole masters under load: every data directory, RocksDB's files included, lies on a file system
//! that forgets what was not synced. Nothing acknowledged is lost, members stay equal, and nothing served goes back.

mod load;
mod reads;
mod watches;

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use barque_chaos::{
    cluster::{Cluster, Kind, Options},
    cutfs::{CutFs, Step},
};
use etcd_client::{Client, ConnectOptions};
use rand::{Rng, SeedableRng, rngs::StdRng, seq::SliceRandom};

use crate::seed;
use load::Load;

const MEMBERS: usize = 3;

/// A step of a master's life at which its power goes: what it is called, the operation, and the path it is on.
type Named = (&'static str, Step, &'static str);

/// Steps that come again and again under load.
const STEPS: [Named; 12] = [
    ("log append", Step::Write, "/wal/"),
    ("log fsync", Step::Fsync, "/wal/"),
    ("log segment made", Step::Create, "/wal/"),
    ("log segment named", Step::Rename, ".wal"),
    ("log directory fsync", Step::Fsync, "/wal"),
    ("purged log segment put by", Step::Rename, ".spare"),
    ("table written", Step::Write, ".sst"),
    ("table fsync", Step::Fsync, ".sst"),
    ("manifest written", Step::Write, "/MANIFEST"),
    ("manifest fsync", Step::Fsync, "/MANIFEST"),
    ("any fsync", Step::Fsync, ""),
    ("any change", Step::Change, ""),
];

/// Steps of a member that was left behind and takes a snapshot.
const INSTALL_STEPS: [Named; 5] = [
    ("snapshot file written", Step::Write, "/snap/"),
    ("snapshot file fsync", Step::Fsync, "/snap/"),
    ("snapshot moved", Step::Rename, "/state"),
    ("snapshot made current", Step::Fsync, "/state"),
    ("old state removed", Step::Remove, "/state"),
];

/// Steps of the very first start.
const FIRST_STEPS: [Named; 5] = [
    ("identity written", Step::Write, "/member/"),
    ("identity made current", Step::Rename, "/member/"),
    ("state made", Step::Create, "/state"),
    ("manifest made current", Step::Rename, "/CURRENT"),
    ("first log segment made", Step::Create, "/wal/"),
];

/// A step may be passed by another master, or be under way when the order comes: so often it is tried to be met.
const TRIES: usize = 4;

struct Site {
    cluster: Cluster,
    disks: Vec<CutFs>,
    _root: tempfile::TempDir,
    dice: StdRng,
    reached: Vec<&'static str>,
}

impl Site {
    async fn start(seed: u64) -> Site {
        let mut site = Site::prepare(seed);
        (0..MEMBERS).for_each(|member| site.cluster.restart(member).unwrap());
        site.cluster.wait_healthy().await.unwrap();
        site
    }

    /// Everything but the masters.
    fn prepare(seed: u64) -> Site {
        let root = tempfile::tempdir().unwrap();
        let mount = |number: usize| {
            let dir = root.path().join(format!("m{number}"));
            std::fs::create_dir(&dir).unwrap();
            CutFs::mount(&dir, seed.wrapping_add(number as u64)).unwrap()
        };
        let disks: Vec<CutFs> = (1..=MEMBERS).map(mount).collect();
        let options = Options {
            // Flushes, purges, rotations and snapshots within a test's time.
            extra_flags: vec![
                "--snapshot-count=100".into(),
                "--wal-segment-bytes=65536".into(),
                "--max-request-bytes=32768".into(),
            ],
            data_root: Some(root.path().to_owned()),
            ..Options::default()
        };
        let cluster = Cluster::prepare(Kind::Barque, MEMBERS, options).unwrap();
        let dice = StdRng::seed_from_u64(seed);
        Site {
            cluster,
            disks,
            _root: root,
            dice,
            reached: Vec::new(),
        }
    }

    fn endpoints(&self) -> Vec<String> {
        self.cluster.endpoints()
    }

    /// Cuts a member and kills it: first the disk, so that nothing is made durable by dying.
    fn cut(&mut self, member: usize) {
        self.disks[member].cut();
        self.cluster.kill9(member).unwrap();
    }

    fn power_on(&mut self, member: usize) {
        self.disks[member].restore();
        self.cluster.restart(member).unwrap();
    }

    /// Waits until one of the ordered cuts has come; those that did not are taken back.
    async fn wait_for_a_cut(&self, patience: Duration) -> bool {
        let deadline = tokio::time::Instant::now() + patience;
        while !self.disks.iter().any(CutFs::is_cut) && tokio::time::Instant::now() < deadline {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        for disk in &self.disks {
            disk.cancel_cut();
        }
        self.disks.iter().any(CutFs::is_cut)
    }

    /// The power of the whole site goes when the first master reaches the step.
    async fn cut_all(&mut self, (name, step, path): Named) {
        for disk in &self.disks {
            disk.cut_at(step, path, self.dice.random_range(1..6));
        }
        if self.wait_for_a_cut(Duration::from_secs(4)).await {
            self.reached.push(name);
        }
        self.disks.iter().for_each(CutFs::cut);
        (0..MEMBERS).for_each(|member| self.cut(member));
        (0..MEMBERS).for_each(|member| self.power_on(member));
        if self.dice.random_ratio(1, 3) {
            self.cut_while_starting().await;
        }
        self.cluster.wait_healthy().await.unwrap();
    }

    /// The power goes again before the masters are back.
    async fn cut_while_starting(&mut self) {
        for disk in &self.disks {
            disk.cut_at(Step::Change, "", self.dice.random_range(1..60));
        }
        self.wait_for_a_cut(Duration::from_secs(2)).await;
        self.disks.iter().for_each(CutFs::cut);
        (0..MEMBERS).for_each(|member| self.cut(member));
        (0..MEMBERS).for_each(|member| self.power_on(member));
    }

    /// One master loses its power at the step; the others go on.
    async fn cut_one(&mut self, member: usize, (name, step, path): Named) {
        self.disks[member].cut_at(step, path, self.dice.random_range(1..6));
        if self.wait_for_a_cut(Duration::from_secs(4)).await {
            self.reached.push(name);
        }
        self.cut(member);
        self.power_on(member);
        self.cluster.wait_healthy().await.unwrap();
    }

    /// A master is away until it needs a snapshot, and loses its power while it takes it.
    async fn cut_at_install(&mut self, load: &Load, member: usize, (name, step, path): Named) {
        self.cut(member);
        load.wait_for_more(1500).await;
        self.disks[member].restore();
        self.disks[member].cut_at(step, path, self.dice.random_range(1..4));
        self.cluster.restart(member).unwrap();
        if self.wait_for_a_cut(Duration::from_secs(6)).await {
            self.reached.push(name);
            self.cut(member);
            self.power_on(member);
        }
        self.cluster.wait_healthy().await.unwrap();
    }

    async fn finish(&mut self) -> i64 {
        self.cluster.wait_healthy().await.unwrap();
        let mut revisions = Vec::new();
        for endpoint in self.endpoints() {
            let got = client(&endpoint).await.unwrap().get("p/", None).await.unwrap();
            revisions.push(got.header().unwrap().revision());
        }
        // Nobody writes any more: linearizable reads agree.
        assert!(
            revisions.iter().all(|revision| *revision == revisions[0]),
            "revisions {revisions:?}"
        );
        let mut hashes = Vec::new();
        for endpoint in self.endpoints() {
            let hash = client(&endpoint)
                .await
                .unwrap()
                .hash_kv(revisions[0])
                .await
                .unwrap();
            hashes.push((hash.hash(), hash.compact_version()));
        }
        assert!(
            hashes.iter().all(|hash| *hash == hashes[0]),
            "members differ: {hashes:?}"
        );
        revisions[0]
    }
}

async fn client(endpoint: &str) -> Result<Client, etcd_client::Error> {
    let timeout = Duration::from_secs(3);
    let options = ConnectOptions::new()
        .with_connect_timeout(timeout)
        .with_timeout(timeout);
    Client::connect([endpoint], Some(options)).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn power_cuts_lose_nothing_that_was_acknowledged() {
    let mut site = Site::start(seed()).await;
    let load = Load::start(&site.endpoints());
    let reads = reads::Reads::start(&site.endpoints(), load.ledger.clone());
    let watches = watches::Watches::start(&site.endpoints());
    let mut steps = STEPS.to_vec();
    steps.shuffle(&mut site.dice);
    for (round, step) in steps.iter().enumerate() {
        for _ in 0..TRIES {
            load.wait_for_more(20).await;
            if site.dice.random_bool(0.5) {
                site.cut_all(*step).await;
            } else {
                let member = site.dice.random_range(0..MEMBERS);
                site.cut_one(member, *step).await;
            }
            if site.reached.contains(&step.0) {
                break;
            }
        }
        load.check(&site.endpoints()[round % MEMBERS]).await;
        println!(
            "{:>22}: {} writes acknowledged so far",
            step.0,
            load.ledger.count.load(Ordering::SeqCst)
        );
    }
    for step in INSTALL_STEPS {
        for _ in 0..TRIES {
            let member = site.dice.random_range(0..MEMBERS);
            site.cut_at_install(&load, member, step).await;
            if site.reached.contains(&step.0) {
                break;
            }
        }
        println!(
            "{:>22}: {} writes acknowledged so far",
            step.0,
            load.ledger.count.load(Ordering::SeqCst)
        );
    }
    let ledger: Arc<_> = load.stop().await;
    let revision = site.finish().await;
    for endpoint in site.endpoints() {
        ledger.check(&endpoint).await;
    }
    let served = reads.stop().await;
    watches.finish(&ledger, revision).await;
    let cuts: u64 = site.disks.iter().map(|disk| disk.stats().cuts).sum();
    println!(
        "{cuts} power cuts of masters at {} named steps {:?}; {} writes acknowledged, {served} reads served; revision {revision}, members equal",
        site.reached.len(),
        site.reached,
        ledger.count.load(Ordering::SeqCst)
    );
    let named = STEPS.iter().chain(&INSTALL_STEPS).map(|(name, ..)| *name);
    let missed: Vec<&str> = named.filter(|name| !site.reached.contains(name)).collect();
    assert!(missed.is_empty(), "no power was cut at {missed:?}");
}

/// Whoever loses its power in its very first start starts again as if it never had, and the cluster comes up.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn power_cuts_in_the_first_start() {
    let seed = seed();
    for (number, (name, step, path)) in FIRST_STEPS.into_iter().enumerate() {
        let mut site = Site::prepare(seed.wrapping_add(number as u64));
        let victim = site.dice.random_range(0..MEMBERS);
        site.disks[victim].cut_at(step, path, 1);
        (0..MEMBERS).for_each(|member| site.cluster.restart(member).unwrap());
        assert!(
            site.wait_for_a_cut(Duration::from_secs(20)).await,
            "no power was cut at {name:?}"
        );
        site.cut(victim);
        site.power_on(victim);
        site.cluster.wait_healthy().await.unwrap();
        let load = Load::start(&site.endpoints());
        load.wait_for_more(30).await;
        let ledger = load.stop().await;
        site.finish().await;
        for endpoint in site.endpoints() {
            ledger.check(&endpoint).await;
        }
    }
}
