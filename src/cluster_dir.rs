//! A directory that holds a cluster of `barque up`: who is in it, on which ports, and where its files lie.
//!
//! Ports are drawn from the directory's path once, and remembered in `cluster.json`: the cluster opens again
//! where it was, and two clusters live side by side.

use std::{
    fs::{File, TryLockError},
    net::{Ipv4Addr, SocketAddr, TcpListener},
    path::{Path, PathBuf},
};

use anyhow::{Context, bail};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::{files, pki, process::Running};

const FORMAT_VERSION: u32 = 1;
const FIRST_PORT: u16 = 20_000;
/// A cluster's ports lie in one block.
const BLOCK_PORTS: u16 = 40;
const BLOCKS: u16 = 250;
const PORTS_PER_MASTER: u16 = 4;
pub const MASTERS_MAX: u16 = 7;

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Cluster {
    pub version: u32,
    pub token: String,
    pub masters: Vec<Master>,
    pub proxy_port: u16,
    pub proxy_metrics_port: u16,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Master {
    pub name: String,
    pub client_port: u16,
    pub peer_port: u16,
    pub api_port: u16,
    pub metrics_port: u16,
}

impl Cluster {
    pub fn ports(&self) -> Vec<u16> {
        let masters = self.masters.iter();
        let of_masters = masters.flat_map(|m| [m.client_port, m.peer_port, m.api_port, m.metrics_port]);
        of_masters
            .chain([self.proxy_port, self.proxy_metrics_port])
            .collect()
    }

    pub fn quorum(&self) -> usize {
        self.masters.len() / 2 + 1
    }

    fn lay_out(token: String, masters: u16, base: u16) -> Self {
        let master = |i: u16| {
            let first = base + i * PORTS_PER_MASTER;
            Master {
                name: format!("m{}", i + 1),
                client_port: first,
                peer_port: first + 1,
                api_port: first + 2,
                metrics_port: first + 3,
            }
        };
        let after = base + masters * PORTS_PER_MASTER;
        Self {
            version: FORMAT_VERSION,
            token,
            masters: (0..masters).map(master).collect(),
            proxy_port: after,
            proxy_metrics_port: after + 1,
        }
    }
}

pub fn loopback(port: u16) -> SocketAddr {
    (Ipv4Addr::LOCALHOST, port).into()
}

/// The first port of `ports` that something else listens on.
pub fn first_busy(ports: &[u16]) -> Option<u16> {
    ports
        .iter()
        .copied()
        .find(|port| TcpListener::bind(loopback(*port)).is_err())
}

#[derive(Debug, Clone)]
pub struct ClusterDir {
    path: PathBuf,
}

impl ClusterDir {
    /// The directory must exist; its path becomes absolute.
    pub fn open(dir: &Path) -> anyhow::Result<Self> {
        let path = dir
            .canonicalize()
            .with_context(|| format!("open directory {}", dir.display()))?;
        if path.to_str().is_none() {
            bail!("{} is not UTF-8", path.display());
        }
        Ok(Self { path })
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    pub fn cluster_file(&self) -> PathBuf {
        self.path.join("cluster.json")
    }

    pub fn kubeconfig(&self) -> PathBuf {
        self.path.join("kubeconfig")
    }

    pub fn etcd_env(&self) -> PathBuf {
        self.path.join("etcd.env")
    }

    pub fn pki(&self) -> pki::Tree {
        pki::Tree::new(&self.path.join("pki"))
    }

    pub fn config_file(&self, name: &str) -> PathBuf {
        self.path.join("conf").join(format!("{name}.yaml"))
    }

    pub fn data(&self, name: &str) -> PathBuf {
        self.path.join("data").join(name)
    }

    pub fn log_file(&self, name: &str) -> PathBuf {
        self.path.join("logs").join(format!("{name}.log"))
    }

    pub fn pid_file(&self, name: &str) -> PathBuf {
        self.path.join("pids").join(format!("{name}.pid"))
    }

    /// Held as long as the file is open: two `barque up` never mind one directory. `None`: another process has it.
    pub fn try_lock(&self) -> anyhow::Result<Option<File>> {
        let path = self.path.join("lock");
        let file = File::options().create(true).append(true).open(&path);
        let file = file.with_context(|| format!("open {}", path.display()))?;
        match file.try_lock() {
            Ok(()) => Ok(Some(file)),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(error)) => Err(error).with_context(|| format!("lock {}", path.display())),
        }
    }

    pub fn make_subdirectories(&self) -> anyhow::Result<()> {
        for name in ["conf", "data", "logs", "pids"] {
            files::make_private_dir(&self.path.join(name))?;
        }
        Ok(())
    }

    /// The cluster that lives here, if one does.
    pub fn load(&self) -> anyhow::Result<Option<Cluster>> {
        let path = self.cluster_file();
        let text = match std::fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error).with_context(|| format!("read {}", path.display())),
        };
        let cluster: Cluster =
            serde_json::from_str(&text).with_context(|| format!("{} is not a cluster's", path.display()))?;
        if cluster.version != FORMAT_VERSION {
            bail!(
                "{} has format {}, this program knows {FORMAT_VERSION}",
                path.display(),
                cluster.version
            );
        }
        Ok(Some(cluster))
    }

    /// The cluster that must live here.
    pub fn require(&self) -> anyhow::Result<Cluster> {
        self.load()?
            .with_context(|| format!("no cluster in {} (barque up makes one)", self.path.display()))
    }

    /// Draws names and ports, and remembers them.
    pub fn create(&self, masters: u16) -> anyhow::Result<Cluster> {
        let digest = Sha256::digest(self.path.as_os_str().as_encoded_bytes());
        let draw = u16::from_be_bytes([digest[0], digest[1]]) % BLOCKS;
        let token = format!(
            "barque-{:02x}{:02x}{:02x}{:02x}",
            digest[2], digest[3], digest[4], digest[5]
        );
        let candidates = (0..BLOCKS).map(|i| {
            let base = FIRST_PORT + (draw + i) % BLOCKS * BLOCK_PORTS;
            Cluster::lay_out(token.clone(), masters, base)
        });
        let free = candidates
            .into_iter()
            .find(|cluster| first_busy(&cluster.ports()).is_none());
        let cluster = free.context("no block of free ports between 20000 and 29999")?;
        let text = serde_json::to_string_pretty(&cluster)?;
        files::replace(
            &self.cluster_file(),
            files::PUBLIC,
            format!("{text}\n").as_bytes(),
        )?;
        Ok(cluster)
    }

    /// The running process of a master, whoever started it.
    pub fn running_master(&self, name: &str) -> anyhow::Result<Option<Running>> {
        let config = self.config_file(name);
        Running::find(
            &self.pid_file(name),
            &["master", "--config-file", &config.to_string_lossy()],
        )
    }

    pub fn running_proxy(&self) -> anyhow::Result<Option<Running>> {
        Running::find(
            &self.pid_file("proxy"),
            &["proxy", "--dir", &self.path.to_string_lossy()],
        )
    }

    /// The `barque up` that stays in the foreground. It holds the lock; without that, whoever has its pid now is
    /// somebody else.
    pub fn running_up(&self) -> anyhow::Result<Option<Running>> {
        if self.try_lock()?.is_some() {
            return Ok(None);
        }
        Running::find(&self.pid_file("up"), &["up"])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_port_is_different_and_within_the_block() {
        for masters in 1..=MASTERS_MAX {
            let cluster = Cluster::lay_out(String::new(), masters, FIRST_PORT);
            let mut ports = cluster.ports();
            ports.sort_unstable();
            ports.dedup();
            assert_eq!(ports.len(), usize::from(masters * PORTS_PER_MASTER + 2));
            assert!(
                ports
                    .iter()
                    .all(|port| (FIRST_PORT..FIRST_PORT + BLOCK_PORTS).contains(port))
            );
        }
    }

    #[test]
    fn the_last_block_ends_below_30000() {
        const { assert!(FIRST_PORT + BLOCKS * BLOCK_PORTS <= 30_000) };
    }
}
