//! A simulated member: its disks and directories, and the life that runs on them, if any.

use std::{fs, io, path::PathBuf, sync::Arc, time::Duration};

use barque_checks::history::LeaderRecord;
use barque_etcd::{EtcdConfig, EtcdServer};
use barque_replica::{MemberConfig, Replica, ReplicaConfig, WalConfig};
use barque_store::StoreConfig;
use barque_traffic::Recorder;
use parking_lot::Mutex;
use tokio::{runtime::Handle, task::JoinHandle, time::timeout};

use crate::{
    files::{Files, Tree},
    host::{CLIENT_PORT, Disk, DiskCopy, PEER_PORT, SimHost, name},
    interpose::now_us,
    lives::Lives,
    network::{HostId, Network},
    process::{self, Processes, Slot},
};

/// What all members are started with.
#[derive(Debug, Clone)]
pub struct Settings {
    pub snapshot_entries: u64,
    pub segment_bytes: u64,
    pub ring_bytes: usize,
    /// How often remaining TTLs of leases are written down; of those that live longer.
    pub checkpoint_every: Duration,
    /// How often a watch that asked for it is told how far it is.
    pub progress_every: Duration,
    /// 0: none.
    pub quota_bytes: u64,
}

pub const ELECTION_TIMEOUT: Duration = Duration::from_millis(1000);

/// Often enough that every run sees some.
const SCRUB_EVERY: Duration = Duration::from_secs(20);

/// How long an operator waits for what was asked for; a member that does not stop in order is killed then.
const PATIENCE: Duration = Duration::from_secs(12);

/// Where members live.
#[derive(Clone)]
pub struct Premises {
    pub network: Network,
    pub processes: Processes,
    pub recorder: Recorder,
    pub lives: Lives,
    /// A directory for all of them.
    pub root: PathBuf,
}

pub struct Member {
    pub id: HostId,
    pub disk: Arc<Disk>,
    files: Files,
    premises: Premises,
    settings: Settings,
    /// `--initial-cluster`, and whether it is a new one.
    cluster: Vec<HostId>,
    new_cluster: bool,
    running: Arc<Mutex<Option<Running>>>,
    /// Ends when the life stops by itself.
    life: Option<JoinHandle<()>>,
    /// Why a life stopped by itself, and how many did.
    stops: Arc<Mutex<(u64, String)>>,
}

/// The whole data directory of a member that does not run.
pub struct DirCopy {
    disk: DiskCopy,
    files: Tree,
}

/// A life that has come as far as serving peers.
struct Running {
    replica: Replica,
    etcd: EtcdServer,
    serves: bool,
}

impl Running {
    fn head(&self) -> i64 {
        self.replica.store().head().revision.0
    }
}

pub fn peer_url(id: HostId) -> String {
    format!("http://{}:{PEER_PORT}", name(id))
}

fn slot(id: HostId) -> Slot {
    id as Slot + 1
}

impl Member {
    /// One of a new cluster.
    pub fn new(
        id: HostId,
        seed: u64,
        premises: Premises,
        settings: Settings,
        cluster: Vec<HostId>,
    ) -> Member {
        Member {
            id,
            disk: Arc::new(Disk::new(seed)),
            files: Files::new(slot(id), premises.root.join(name(id)), seed),
            premises,
            settings,
            cluster,
            new_cluster: true,
            running: Arc::default(),
            life: None,
            stops: Arc::default(),
        }
    }

    /// The process of its lives, and its clock.
    pub fn slot(&self) -> Slot {
        slot(self.id)
    }

    /// It stopped by itself, as it must when its disk fails: whoever watches over the process starts it again.
    pub fn has_stopped(&self) -> bool {
        self.life.as_ref().is_some_and(JoinHandle::is_finished)
    }

    /// How many lives stopped by themselves, and why the last of them did.
    pub fn stops(&self) -> (u64, String) {
        self.stops.lock().clone()
    }

    /// Of a member that does not run.
    pub fn copy(&self) -> Option<DirCopy> {
        let files = self.files.copy()?;
        let disk = self.disk.copy();
        Some(DirCopy { disk, files })
    }

    /// The next life finds the copy, whatever there was since.
    pub fn put_back(&mut self, copy: DirCopy) {
        self.premises.lives.lost_data(self.id);
        self.disk.put_back(&copy.disk);
        self.files.put_back(copy.files);
    }

    pub fn replica(&self) -> Option<Replica> {
        self.running
            .lock()
            .as_ref()
            .map(|running| running.replica.clone())
    }

    pub fn tasks(&self) -> usize {
        self.premises.processes.tasks(self.slot())
    }

    /// Whether clients are served.
    pub fn serves(&self) -> bool {
        self.running.lock().as_ref().is_some_and(|running| running.serves)
    }

    /// Has the member's process do something, as an operator would; `None`: it does not run, was killed meanwhile, or
    /// took too long.
    pub async fn ask<T: Send + 'static, F: Future<Output = T> + Send + 'static>(
        &self,
        request: impl FnOnce(Replica) -> F,
    ) -> Option<T> {
        let (replica, process) = (self.replica()?, self.premises.processes.handle(self.slot())?);
        let asked = process.spawn(request(replica));
        timeout(PATIENCE, asked).await.ok()?.ok()
    }

    fn dir(&self) -> PathBuf {
        self.premises.root.join(name(self.id))
    }

    fn config(&self, dir: PathBuf) -> ReplicaConfig {
        let member = |id: &HostId| MemberConfig {
            name: name(*id),
            peer_urls: vec![peer_url(*id)],
        };
        ReplicaConfig {
            name: name(self.id),
            store: StoreConfig {
                dir: dir.join("state"),
                ring_bytes: self.settings.ring_bytes,
                block_cache_bytes: 0,
                quota_backend_bytes: self.settings.quota_bytes,
            },
            data_dir: dir,
            log: WalConfig {
                segment_bytes: self.settings.segment_bytes,
                cache_bytes: 1 << 20,
            },
            host: Arc::new(SimHost {
                id: self.id,
                network: self.premises.network.clone(),
                disk: self.disk.clone(),
            }),
            initial_cluster: self.cluster.iter().map(member).collect(),
            initial_cluster_token: "simulated".into(),
            new_cluster: self.new_cluster,
            advertise_client_urls: vec![format!("http://{}:{CLIENT_PORT}", name(self.id))],
            peer_listeners: Vec::new(),
            tls: None,
            heartbeat_interval: Duration::from_millis(100),
            election_timeout: ELECTION_TIMEOUT,
            snapshot_entries: self.settings.snapshot_entries,
            snapshot_bytes: 1 << 30,
            snapshot_bytes_per_second: 0,
            max_batch_bytes: self.settings.segment_bytes as usize / 4,
            request_timeout: Duration::from_secs(4),
            scrub_every: SCRUB_EVERY,
            lease_checkpoint_interval: self.settings.checkpoint_every,
        }
    }

    /// Begins a life: it serves clients once it has caught up.
    pub fn start(&mut self) -> io::Result<()> {
        self.disk.restore_power();
        let dir = self.dir();
        fs::create_dir_all(&dir)?;
        let (config, running) = (self.config(dir.clone()), self.running.clone());
        let (network, id) = (self.premises.network.clone(), self.id);
        let (recorder, lives) = (self.premises.recorder.clone(), self.premises.lives.clone());
        let progress_every = self.settings.progress_every;
        let (left, stops) = (self.files.left.clone(), self.stops.clone());
        let life = self.premises.processes.start(self.slot(), async move {
            let ended = match left.lay_out(slot(id), &dir) {
                Ok(()) => live(id, config, network, running, recorder, lives, progress_every).await,
                Err(error) => Err(error.to_string()),
            };
            if let Err(error) = ended {
                tracing::warn!(member = id, error, "a member has stopped");
                let mut stops = stops.lock();
                *stops = (stops.0 + 1, error);
            }
            process::exit();
        })?;
        self.life = Some(life);
        Ok(())
    }

    /// Ends the life at this moment; `power`: what was not synced is forgotten.
    pub fn crash(&mut self, power: bool) {
        if let Some(running) = self.running.lock().as_ref().filter(|running| running.serves) {
            self.premises.lives.ended(self.id, running.head());
        }
        self.premises.processes.kill(self.slot());
        self.premises.network.crash(self.id, power);
        match power {
            true => self.disk.cut_power(),
            false => self.disk.halt(),
        }
        if let Err(error) = self.files.end_life(power) {
            tracing::error!(member = self.id, %error, "what its files leave cannot be told");
        }
        self.life = None;
        *self.running.lock() = None;
    }

    /// As on SIGTERM; killed if it takes too long.
    pub async fn stop(&mut self) {
        let etcd = self.running.lock().as_ref().map(|running| running.etcd.clone());
        if let Some(etcd) = etcd {
            self.ask(|replica| async move {
                etcd.shutdown().await;
                replica.shutdown().await;
            })
            .await;
        }
        self.crash(false);
    }

    /// As SIGSTOP.
    pub fn freeze(&self) {
        self.premises.processes.freeze(self.slot());
    }

    /// As SIGCONT; see [`Processes::thaw`].
    pub fn thaw(&self) -> Option<bool> {
        self.premises.processes.thaw(self.slot())
    }

    /// An empty member in the place of one that was removed: it joins the cluster that there is.
    pub fn replace(&mut self, seed: u64) {
        self.new_cluster = false;
        self.wipe(seed);
    }

    /// The data is gone, disks and all.
    pub fn wipe(&mut self, seed: u64) {
        self.disk = Arc::new(Disk::new(seed));
        self.files.wipe();
        self.premises.lives.lost_data(self.id);
    }
}

async fn live(
    id: HostId,
    config: ReplicaConfig,
    network: Network,
    running: Arc<Mutex<Option<Running>>>,
    recorder: Recorder,
    lives: Lives,
    progress_every: Duration,
) -> Result<(), String> {
    let replica = Replica::start_on(Handle::current(), config)
        .await
        .map_err(|error| error.to_string())?;
    tokio::spawn(note_leadership(id, replica.clone(), recorder));
    let etcd = EtcdServer::new(
        replica.clone(),
        EtcdConfig {
            election_timeout: ELECTION_TIMEOUT,
            watch_progress_notify_interval: progress_every,
            ..EtcdConfig::default()
        },
    );
    *running.lock() = Some(Running {
        replica: replica.clone(),
        etcd: etcd.clone(),
        serves: false,
    });
    tokio::select! {
        () = replica.wait_ready() => {}
        reason = replica.failed() => return Err(format!("it stopped: {reason}")),
    }
    let mut listener = network.listen(id, CLIENT_PORT);
    let (tx, rx) = tokio::sync::mpsc::channel(64);
    tokio::spawn(async move {
        while let Some(end) = listener.next().await {
            if tx.send(Ok::<_, io::Error>(end)).await.is_err() {
                return;
            }
        }
    });
    let incoming = tokio_stream::wrappers::ReceiverStream::new(rx);
    let server = tonic::transport::Server::builder().add_routes(etcd.routes());
    tokio::spawn(async move {
        if let Err(error) = server.serve_with_incoming(incoming).await {
            tracing::warn!(member = id, %error, "serving clients failed");
        }
    });
    if let Some(running) = running.lock().as_mut() {
        running.serves = true;
        lives.began_to_serve(id, running.head());
    }
    Err(format!("it stopped: {}", replica.failed().await))
}

/// Every term in which this member says that it leads.
async fn note_leadership(member: HostId, replica: Replica, recorder: Recorder) {
    let mut leadership = replica.leadership();
    drop(replica);
    loop {
        let now = *leadership.borrow_and_update();
        if now.is_self {
            let record = LeaderRecord {
                time: now_us(),
                term: now.term,
                member,
            };
            recorder.history(|history| history.leaders.push(record));
        }
        if leadership.changed().await.is_err() {
            return;
        }
    }
}
