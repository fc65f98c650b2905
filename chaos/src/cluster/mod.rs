//! A cluster of real processes for a test: Debian's etcd or `barque master`, on free loopback ports.
//!
//! Main types: [`Cluster`], the [`Options`] it starts with, the client programs [`Etcdctl`] and [`Kubectl`],
//! and [`Process`], which everything that is started here is one of. A cluster never outlives its value: its
//! processes are killed and waited for by their ids when it is dropped, and by the kernel when the test dies.

mod certificates;
mod clock;
mod health;
mod launch;
mod ports;
mod process;
mod tools;
mod usage;

use std::{
    fs::File,
    net::Ipv4Addr,
    path::{Path, PathBuf},
    process::ExitStatus,
    sync::Arc,
    time::Duration,
};

use anyhow::{Context, bail};
use nix::sys::signal::Signal;
use tempfile::TempDir;

pub use certificates::{ClientCertificate, Pki};
pub use clock::Clocks;
pub use health::Access;
pub use launch::barque_binary;
pub use ports::Port;
pub use process::Process;
pub use tools::{Etcdctl, Kubectl, LineStream, Output};
pub use usage::Usage;

/// Whose program the members run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Etcd,
    Barque,
}

/// What a cluster is started with beyond the number of its members.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// Passed to every member after the flags that the cluster itself decides.
    pub extra_flags: Vec<String>,
    /// Holds one data directory per member, named like it; a temporary directory when absent.
    pub data_root: Option<PathBuf>,
    /// Serve the Kubernetes API too (`barque` only; implies TLS, since clients are known by certificate).
    pub api: bool,
    /// Client and peer traffic by TLS, with certificates from `barque pki`.
    pub tls: bool,
    /// Set in the members' environment.
    pub environment: Vec<(String, String)>,
    /// One for each member; none: all of them on loopback.
    pub hosts: Vec<Host>,
    /// Members with wall clocks of their own.
    pub clocks: Option<Clocks>,
}

/// A network of a member's own.
#[derive(Debug, Clone)]
pub struct Host {
    pub address: Ipv4Addr,
    /// An open `/proc/…/ns/net`.
    pub namespace: Arc<File>,
}

/// Whether a member's process is there, and whether it is allowed to run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MemberState {
    Running,
    /// SIGSTOP was sent.
    Stopped,
    /// Killed, terminated, or exited by itself.
    Down,
}

struct Member {
    name: String,
    client: Port,
    peer: Port,
    api: Option<Port>,
    data_dir: PathBuf,
    log: PathBuf,
    stopped: bool,
    /// It joins a cluster that is there already.
    joins: bool,
    process: Option<Process>,
}

/// Running members, addressed by their index from 0.
pub struct Cluster {
    kind: Kind,
    options: Options,
    members: Vec<Member>,
    pki: Option<Pki>,
    dir: Option<TempDir>,
}

impl Cluster {
    /// Debian's etcd with its defaults; healthy when this returns.
    pub async fn etcd(members: usize) -> anyhow::Result<Cluster> {
        Cluster::start(Kind::Etcd, members, Options::default()).await
    }

    /// `barque master` processes; healthy when this returns.
    pub async fn barque(members: usize, options: Options) -> anyhow::Result<Cluster> {
        Cluster::start(Kind::Barque, members, options).await
    }

    pub async fn start(kind: Kind, members: usize, options: Options) -> anyhow::Result<Cluster> {
        let mut cluster = Cluster::prepare(kind, members, options)?;
        for index in 0..members {
            cluster.spawn(index)?;
        }
        cluster.wait_healthy().await?;
        Ok(cluster)
    }

    /// Everything but the processes: directories, ports, certificates. `restart` starts a member.
    pub fn prepare(kind: Kind, members: usize, options: Options) -> anyhow::Result<Cluster> {
        if !options.hosts.is_empty() && options.hosts.len() != members {
            bail!("{members} members and {} hosts", options.hosts.len());
        }
        let dir = tempfile::Builder::new().prefix("barque-cluster-").tempdir()?;
        let pki = (options.tls || options.api)
            .then(|| Pki::create(dir.path(), members, &options.hosts))
            .transpose()?;
        let data_root = options.data_root.clone().unwrap_or_else(|| dir.path().to_owned());
        let members = (1..=members)
            .map(|number| {
                let name = format!("m{number}");
                Ok(Member {
                    client: Port::reserve()?,
                    peer: Port::reserve()?,
                    api: options.api.then(Port::reserve).transpose()?,
                    data_dir: data_root.join(&name),
                    log: dir.path().join(format!("{name}.log")),
                    stopped: false,
                    joins: false,
                    process: None,
                    name,
                })
            })
            .collect::<anyhow::Result<_>>()?;
        Ok(Cluster {
            kind,
            options,
            members,
            pki,
            dir: Some(dir),
        })
    }

    pub fn kind(&self) -> Kind {
        self.kind
    }

    pub fn len(&self) -> usize {
        self.members.len()
    }

    pub fn is_empty(&self) -> bool {
        self.members.is_empty()
    }

    /// Logs, certificates, and the data unless it was placed elsewhere.
    pub fn dir(&self) -> &Path {
        self.dir.as_ref().expect("kept until drop").path()
    }

    pub fn data_dir(&self, index: usize) -> &Path {
        &self.members[index].data_dir
    }

    pub fn name(&self, index: usize) -> &str {
        &self.members[index].name
    }

    /// Where member `index` serves the etcd API.
    pub fn endpoint(&self, index: usize) -> String {
        self.url(index, &self.members[index].client)
    }

    /// Where member `index` listens for its peers.
    pub fn peer_url(&self, index: usize) -> String {
        self.url(index, &self.members[index].peer)
    }

    fn url(&self, index: usize, port: &Port) -> String {
        let host = self.options.hosts.get(index);
        let address = host.map_or(Ipv4Addr::LOCALHOST, |host| host.address);
        format!("{}://{address}:{}", self.scheme(), port.number())
    }

    pub fn endpoints(&self) -> Vec<String> {
        (0..self.len()).map(|index| self.endpoint(index)).collect()
    }

    /// Where member `index` serves the Kubernetes API.
    pub fn api_endpoint(&self, index: usize) -> Option<String> {
        let port = self.members[index].api.as_ref()?;
        Some(self.url(index, port))
    }

    /// What a client of the etcd API presents and trusts, when TLS is on.
    pub fn client_certificate(&self) -> Option<ClientCertificate> {
        self.pki.as_ref().map(Pki::etcd_client)
    }

    /// What an administrator of the Kubernetes API presents and trusts, when TLS is on.
    pub fn admin_certificate(&self) -> Option<ClientCertificate> {
        self.pki.as_ref().map(Pki::kubernetes_admin)
    }

    pub fn state(&self, index: usize) -> MemberState {
        let member = &self.members[index];
        match &member.process {
            Some(process) if process.is_running() && member.stopped => MemberState::Stopped,
            Some(process) if process.is_running() => MemberState::Running,
            _ => MemberState::Down,
        }
    }

    /// The id of a member's process, while there is one.
    pub fn pid(&self, index: usize) -> Option<i32> {
        let process = self.members[index].process.as_ref()?;
        process.is_running().then(|| process.pid())
    }

    /// What the member's process has used so far.
    pub fn usage(&self, index: usize) -> anyhow::Result<Usage> {
        let pid = self
            .pid(index)
            .with_context(|| format!("{} is down", self.name(index)))?;
        Usage::of(pid)
    }

    pub fn has_clocks(&self) -> bool {
        self.options.clocks.is_some()
    }

    /// How wrong the member's wall clock is from now on; for clusters with clocks of their own.
    pub fn set_clock(&self, index: usize, wrong_by_s: i64) -> anyhow::Result<()> {
        let clocks = self.options.clocks.as_ref();
        let clocks = clocks.context("the cluster was started without clocks of its own")?;
        clocks.set(self.name(index), wrong_by_s)
    }

    /// How often the member was told a wrong time so far.
    pub fn wrong_times_told(&self, index: usize) -> anyhow::Result<i64> {
        let clocks = self.options.clocks.as_ref();
        let clocks = clocks.context("the cluster was started without clocks of its own")?;
        clocks.told(self.name(index))
    }

    /// kill -9, and gone when this returns.
    pub fn kill9(&mut self, index: usize) -> anyhow::Result<()> {
        let member = &mut self.members[index];
        member.stopped = false;
        let process = member
            .process
            .take()
            .with_context(|| format!("{} is already down", member.name))?;
        process.kill();
        Ok(())
    }

    /// SIGSTOP: the process stays, its sockets too, and nothing in it runs.
    pub fn stop(&mut self, index: usize) -> anyhow::Result<()> {
        self.signal(index, Signal::SIGSTOP)?;
        self.members[index].stopped = true;
        Ok(())
    }

    /// SIGCONT.
    pub fn cont(&mut self, index: usize) -> anyhow::Result<()> {
        self.signal(index, Signal::SIGCONT)?;
        self.members[index].stopped = false;
        Ok(())
    }

    /// SIGTERM, and the exit status of a process that had `within` to leave in order.
    pub async fn terminate(&mut self, index: usize, within: Duration) -> anyhow::Result<ExitStatus> {
        self.signal(index, Signal::SIGTERM)?;
        let member = &mut self.members[index];
        let process = member.process.as_ref().expect("it was just signalled");
        let status = process
            .exited(within)
            .await
            .with_context(|| format!("{} after SIGTERM", member.name))?;
        member.process = None;
        member.stopped = false;
        Ok(status)
    }

    /// The exit status of a member that is expected to stop by itself.
    pub async fn exited(&mut self, index: usize, within: Duration) -> anyhow::Result<ExitStatus> {
        let member = &mut self.members[index];
        let process = member
            .process
            .as_ref()
            .with_context(|| format!("{} is down", member.name))?;
        let status = process
            .exited(within)
            .await
            .with_context(|| member.name.clone())?;
        member.process = None;
        Ok(status)
    }

    /// Starts a member that is down, on its ports and its data. Does not wait for it.
    pub fn restart(&mut self, index: usize) -> anyhow::Result<()> {
        if self.state(index) != MemberState::Down {
            bail!("{} is not down", self.name(index));
        }
        self.spawn(index)
    }

    /// From its next start on, a member joins a cluster that is there, which must have been told of it.
    pub fn join(&mut self, index: usize) {
        self.members[index].joins = true;
    }

    /// Everything a member has written to its standard output and error, over all its lives.
    pub fn log(&self, index: usize) -> String {
        let bytes = std::fs::read(&self.members[index].log).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    pub fn etcdctl(&self) -> Etcdctl {
        Etcdctl::new(self.endpoints(), self.client_certificate())
    }

    pub fn etcdctl_of(&self, index: usize) -> Etcdctl {
        Etcdctl::new(vec![self.endpoint(index)], self.client_certificate())
    }

    /// A kubectl of the administrator, talking to member `index` alone.
    pub fn kubectl_of(&self, index: usize) -> anyhow::Result<Kubectl> {
        let server = self
            .api_endpoint(index)
            .context("the cluster was started without its Kubernetes API")?;
        let certificate = self
            .admin_certificate()
            .context("the cluster was started without TLS")?;
        Kubectl::new(self.dir(), self.name(index), &server, &certificate)
    }

    fn scheme(&self) -> &'static str {
        if self.pki.is_some() { "https" } else { "http" }
    }

    fn signal(&self, index: usize, signal: Signal) -> anyhow::Result<()> {
        let member = &self.members[index];
        let process = member
            .process
            .as_ref()
            .with_context(|| format!("{} is down", member.name))?;
        process
            .signal(signal)
            .with_context(|| format!("{signal} to {}", member.name))
    }

    /// The end of what a member has written.
    pub fn last_lines(&self, index: usize, lines: usize) -> String {
        let log = self.log(index);
        let all: Vec<&str> = log.lines().collect();
        all[all.len().saturating_sub(lines)..].join("\n")
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        for member in &mut self.members {
            drop(member.process.take());
        }
        if std::thread::panicking() {
            for index in 0..self.len() {
                eprintln!(
                    "--- last lines of {}\n{}",
                    self.name(index),
                    self.last_lines(index, 60)
                );
            }
            if let Some(dir) = self.dir.take() {
                eprintln!("--- logs and data are kept in {}", dir.keep().display());
            }
        }
    }
}
