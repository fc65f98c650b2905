//! A simulated member: its disks and directories, and the life that runs on them, if any.

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use barque_etcd::{EtcdConfig, EtcdServer};
use barque_replica::{MemberConfig, Replica, ReplicaConfig, WalConfig};
use barque_store::StoreConfig;
use parking_lot::Mutex;
use tokio::{runtime::Handle, task::JoinHandle};

use crate::{
    host::{CLIENT_PORT, Disk, PEER_PORT, SimHost, name},
    network::{HostId, Network},
};

/// What all members are started with.
#[derive(Debug, Clone)]
pub struct Settings {
    pub snapshot_entries: u64,
    pub segment_bytes: u64,
    pub ring_bytes: usize,
}

pub const ELECTION_TIMEOUT: Duration = Duration::from_millis(1000);

pub struct Member {
    pub id: HostId,
    pub disk: Arc<Disk>,
    network: Network,
    root: PathBuf,
    settings: Settings,
    /// `--initial-cluster`, and whether it is a new one.
    cluster: Vec<HostId>,
    new_cluster: bool,
    /// Each life has a directory of its own.
    lives: u32,
    running: Arc<Mutex<Option<Running>>>,
    /// Ends when the life stops by itself.
    starting: Option<JoinHandle<()>>,
}

/// A life that has come as far as serving peers.
struct Running {
    replica: Replica,
    etcd: EtcdServer,
    serving: Option<JoinHandle<()>>,
}

pub fn peer_url(id: HostId) -> String {
    format!("http://{}:{PEER_PORT}", name(id))
}

impl Member {
    pub fn new(
        id: HostId,
        seed: u64,
        network: Network,
        root: &Path,
        settings: Settings,
        cluster: Vec<HostId>,
        new_cluster: bool,
    ) -> Member {
        Member {
            id,
            disk: Arc::new(Disk::new(seed)),
            network,
            root: root.to_owned(),
            settings,
            cluster,
            new_cluster,
            lives: 0,
            running: Arc::default(),
            starting: None,
        }
    }

    /// It stopped by itself, as it must when its disk fails: whoever watches over the process starts it again.
    pub fn has_stopped(&self) -> bool {
        self.starting.as_ref().is_some_and(JoinHandle::is_finished)
    }

    pub fn replica(&self) -> Option<Replica> {
        self.running
            .lock()
            .as_ref()
            .map(|running| running.replica.clone())
    }

    /// Whether clients are served.
    pub fn serves(&self) -> bool {
        self.running
            .lock()
            .as_ref()
            .is_some_and(|running| running.serving.is_some())
    }

    fn dir(&self, life: u32) -> PathBuf {
        self.root.join(format!("{}-{life}", name(self.id)))
    }

    /// A life's directory of its own, with what the one before made durable: the one before may not be quite dead.
    fn prepare_dir(&mut self) -> io::Result<PathBuf> {
        let before = self.dir(self.lives).join("member");
        self.lives += 1;
        let dir = self.dir(self.lives);
        fs::create_dir_all(dir.join("member"))?;
        if before.is_dir() {
            let mut files: Vec<PathBuf> = fs::read_dir(before)?
                .map(|entry| entry.map(|entry| entry.path()))
                .collect::<io::Result<_>>()?;
            files.sort();
            for file in files
                .iter()
                .filter(|file| file.extension().is_some_and(|ext| ext == "json"))
            {
                fs::copy(
                    file,
                    dir.join("member").join(file.file_name().unwrap_or_default()),
                )?;
            }
        }
        Ok(dir)
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
                quota_backend_bytes: 0,
            },
            data_dir: dir,
            log: WalConfig {
                segment_bytes: self.settings.segment_bytes,
                cache_bytes: 1 << 20,
            },
            host: Arc::new(SimHost {
                id: self.id,
                network: self.network.clone(),
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
        }
    }

    /// Begins a life: it serves clients once it has caught up.
    pub fn start(&mut self) -> io::Result<()> {
        self.disk.restore_power();
        let dir = self.prepare_dir()?;
        let config = self.config(dir);
        let (running, network, id) = (self.running.clone(), self.network.clone(), self.id);
        self.starting = Some(tokio::spawn(async move {
            if let Err(error) = live(id, config, network, running).await {
                tracing::warn!(member = id, error, "a member did not start");
            }
        }));
        Ok(())
    }

    /// Ends the life at this moment; `power`: what was not synced is forgotten.
    pub fn crash(&mut self, power: bool) {
        self.network.crash(self.id);
        match power {
            true => self.disk.cut_power(),
            false => self.disk.halt(),
        }
        if let Some(starting) = self.starting.take() {
            starting.abort();
        }
        if let Some(running) = self.running.lock().take() {
            if let Some(serving) = &running.serving {
                serving.abort();
            }
            // Cut off from disks and network it can do nothing but end.
            tokio::spawn(async move {
                running.etcd.shutdown().await;
                running.replica.shutdown().await;
            });
        }
    }

    /// As on SIGTERM.
    pub async fn stop(&mut self) {
        let running = self.running.lock().take();
        if let Some(mut running) = running {
            running.etcd.shutdown().await;
            running.replica.shutdown().await;
            if let Some(serving) = running.serving.take() {
                serving.abort();
            }
        }
        self.crash(false);
    }

    /// An empty member in the place of one that was removed: it joins the cluster that there is.
    pub fn replace(&mut self, seed: u64) -> io::Result<()> {
        self.new_cluster = false;
        self.wipe(seed)
    }

    /// The data is gone, disks and all.
    pub fn wipe(&mut self, seed: u64) -> io::Result<()> {
        self.disk = Arc::new(Disk::new(seed));
        let dir = self.dir(self.lives);
        match fs::remove_dir_all(dir) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }
}

async fn live(
    id: HostId,
    config: ReplicaConfig,
    network: Network,
    running: Arc<Mutex<Option<Running>>>,
) -> Result<(), String> {
    let replica = Replica::start_on(Handle::current(), config)
        .await
        .map_err(|error| error.to_string())?;
    let etcd = EtcdServer::new(
        replica.clone(),
        EtcdConfig {
            election_timeout: ELECTION_TIMEOUT,
            ..EtcdConfig::default()
        },
    );
    *running.lock() = Some(Running {
        replica: replica.clone(),
        etcd: etcd.clone(),
        serving: None,
    });
    replica.wait_ready().await;
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
    let serving = tokio::spawn(async move {
        if let Err(error) = server.serve_with_incoming(incoming).await {
            tracing::warn!(member = id, %error, "serving clients failed");
        }
    });
    if let Some(running) = running.lock().as_mut() {
        running.serving = Some(serving);
    }
    let reason = replica.failed().await;
    Err(format!("it stopped: {reason}"))
}
