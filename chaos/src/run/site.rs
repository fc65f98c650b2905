//! The cluster of a run with all that can be done to it: [`Site`].

use std::{
    fs, io,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::Context;
use barque_chaos::{
    cluster::{ClientCertificate, Clocks, Cluster, Kind as Program, MemberState, Options},
    cutfs::CutFs,
    lan::Lan,
};
use barque_traffic::Target;
use rand::{Rng, SeedableRng, rngs::StdRng};
use tempfile::TempDir;
use tokio::time::sleep;
use tonic::transport::{Certificate, ClientTlsConfig, Endpoint, Identity};

use super::{
    flags::{Settings, Traffic},
    kind::Kind,
};

/// Fields are dropped in this order: the processes first, then what they stand on.
pub struct Site {
    pub cluster: Cluster,
    pub disks: Vec<CutFs>,
    pub lan: Option<Lan>,
    pub dice: StdRng,
    pub began: Instant,
    /// Passed to every member.
    pub flags: Vec<String>,
    lives: Arc<Vec<AtomicU32>>,
    _data: TempDir,
}

impl Site {
    pub async fn start(settings: &Settings, lan: Option<Lan>) -> anyhow::Result<Site> {
        let mut dice = StdRng::seed_from_u64(settings.seed);
        let data = tempfile::Builder::new().prefix("barque-chaos-").tempdir()?;
        let mut disks = Vec::new();
        if settings.faults.iter().any(|kind| kind.needs_disks()) {
            for number in 1..=settings.members {
                let dir = data.path().join(format!("m{number}"));
                fs::create_dir(&dir)?;
                disks.push(CutFs::mount(&dir, dice.random())?);
            }
        }
        // Small logs are purged, and members that were away need snapshots.
        let kept = [100, 1000, 10_000][dice.random_range(0..3)];
        let flags = vec![format!("--snapshot-count={kept}")];
        let jumps = settings.faults.contains(&Kind::ClockJump);
        let options = Options {
            extra_flags: flags.clone(),
            data_root: Some(data.path().to_owned()),
            hosts: lan.as_ref().map(Lan::hosts).unwrap_or_default(),
            api: settings.traffic.contains(&Traffic::Kubernetes),
            clocks: jumps.then(|| Clocks::new(data.path())).transpose()?,
            ..Options::default()
        };
        let cluster = Cluster::start(settings.program, settings.members, options).await?;
        Ok(Site {
            cluster,
            disks,
            lan,
            dice,
            began: Instant::now(),
            flags,
            lives: Arc::new((0..settings.members).map(|_| AtomicU32::new(1)).collect()),
            _data: data,
        })
    }

    pub fn now_us(&self) -> u64 {
        micros(self.began)
    }

    /// The number of a member in the history.
    pub fn id(index: usize) -> u32 {
        u32::try_from(index + 1).expect("a few members")
    }

    pub fn ids(&self) -> Vec<u32> {
        (0..self.cluster.len()).map(Site::id).collect()
    }

    pub fn target(&self) -> anyhow::Result<Target> {
        let endpoints: Vec<Endpoint> = {
            let tls = self
                .cluster
                .client_certificate()
                .map(|files| tls(&files))
                .transpose()?;
            let endpoints = self.cluster.endpoints().into_iter();
            endpoints
                .map(|url| endpoint(url, tls.as_ref()))
                .collect::<anyhow::Result<_>>()?
        };
        let (began, lives) = (self.began, self.lives.clone());
        Ok(Target {
            members: self.ids(),
            dial: Arc::new(move |_, member| endpoints[member as usize - 1].connect_lazy()),
            now_us: Arc::new(move || micros(began)),
            life: Arc::new(move |member| lives[member as usize - 1].load(Ordering::SeqCst)),
        })
    }

    /// Starts a member that is down. etcd may answer from an older state than before its restart; ours never does, so
    /// that all lives on one data directory count as one.
    pub fn restart(&mut self, index: usize) -> anyhow::Result<()> {
        if self.cluster.kind() == Program::Etcd {
            self.lives[index].fetch_add(1, Ordering::SeqCst);
        }
        self.cluster.restart(index)
    }

    /// All that a member had on its disk.
    pub fn wipe(&mut self, index: usize) -> anyhow::Result<()> {
        self.lives[index].fetch_add(1, Ordering::SeqCst);
        let dir = self.cluster.data_dir(index);
        empty(dir).with_context(|| dir.display().to_string())
    }

    pub fn any(&mut self) -> usize {
        self.dice.random_range(0..self.cluster.len())
    }

    /// Any member, half of the time the leader.
    pub async fn victim(&mut self) -> anyhow::Result<usize> {
        match self.dice.random_bool(0.5) {
            true => self.cluster.leader().await,
            false => Ok(self.any()),
        }
    }

    pub async fn follower(&mut self) -> anyhow::Result<usize> {
        let leader = self.cluster.leader().await?;
        let step = self.dice.random_range(1..self.cluster.len());
        Ok((leader + step) % self.cluster.len())
    }

    pub async fn pause(&mut self, least_ms: u64, most_ms: u64) {
        sleep(Duration::from_millis(self.dice.random_range(least_ms..most_ms))).await;
    }

    /// Takes back whatever a fault that failed half-way has left.
    pub fn heal(&mut self) -> anyhow::Result<()> {
        if let Some(lan) = &self.lan {
            lan.heal();
        }
        for disk in &self.disks {
            disk.fill(None);
            disk.slow(Duration::ZERO);
            disk.cancel_failure();
            if disk.is_cut() {
                disk.restore();
            }
        }
        for index in 0..self.cluster.len() {
            if self.cluster.has_clocks() {
                self.cluster.set_clock(index, 0)?;
            }
            match self.cluster.state(index) {
                MemberState::Running => {}
                MemberState::Stopped => self.cluster.cont(index)?,
                MemberState::Down => self.restart(index)?,
            }
        }
        Ok(())
    }

    pub fn lan(&self) -> anyhow::Result<&Lan> {
        self.lan
            .as_ref()
            .context("the run was started without a network of its own")
    }

    pub fn disk(&self, index: usize) -> anyhow::Result<&CutFs> {
        self.disks
            .get(index)
            .context("the run was started without disks of its own")
    }

    /// Whether any fault of the run needs more than processes.
    pub fn needs_lan(settings: &Settings) -> bool {
        settings.faults.iter().copied().any(Kind::needs_lan)
    }
}

fn micros(began: Instant) -> u64 {
    u64::try_from(began.elapsed().as_micros()).unwrap_or(u64::MAX)
}

/// Without pings on an idle connection, which etcd takes for an attack.
fn endpoint(url: String, tls: Option<&ClientTlsConfig>) -> anyhow::Result<Endpoint> {
    let endpoint = Endpoint::from_shared(url)?
        .connect_timeout(Duration::from_secs(2))
        .http2_keep_alive_interval(Duration::from_secs(10))
        .keep_alive_timeout(Duration::from_secs(3));
    Ok(match tls {
        Some(tls) => endpoint.tls_config(tls.clone())?,
        None => endpoint,
    })
}

fn tls(files: &ClientCertificate) -> anyhow::Result<ClientTlsConfig> {
    let identity = Identity::from_pem(fs::read(&files.certificate)?, fs::read(&files.key)?);
    let ca = Certificate::from_pem(fs::read(&files.ca)?);
    Ok(ClientTlsConfig::new().ca_certificate(ca).identity(identity))
}

/// The directory itself may be a mount and stays.
fn empty(dir: &Path) -> io::Result<()> {
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        match entry.file_type()?.is_dir() {
            true => fs::remove_dir_all(entry.path())?,
            false => fs::remove_file(entry.path())?,
        }
    }
    Ok(())
}
