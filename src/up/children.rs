//! The processes of a cluster as children: started, reaped, stopped in order.

use std::{
    fs::File,
    os::unix::process::ExitStatusExt,
    path::Path,
    process::{ExitStatus, Stdio},
    time::Duration,
};

use anyhow::Context;
use futures_util::{StreamExt, stream::FuturesUnordered};
use rustix::process::Signal;
use tokio::{
    process::{Child, Command},
    signal::unix::{self, SignalKind, signal},
};

use crate::{
    cluster_dir::{Cluster, ClusterDir},
    down::GRACE,
    process::Tie,
};

pub const PROXY: &str = "proxy";

pub struct Children {
    running: Vec<Named>,
}

struct Named {
    name: String,
    child: Child,
}

/// A child that ended by itself.
pub struct Exit {
    pub name: String,
    pub status: ExitStatus,
}

impl Children {
    pub fn none() -> Self {
        Self { running: Vec::new() }
    }

    /// After an error some may run.
    pub fn start(&mut self, dir: &ClusterDir, cluster: &Cluster, tie: Tie) -> anyhow::Result<()> {
        for master in &cluster.masters {
            let mut command = barque("master", tie)?;
            command.arg("--config-file").arg(dir.config_file(&master.name));
            self.spawn(&master.name, command, &dir.log_file(&master.name))?;
        }
        let mut command = barque("proxy", tie)?;
        command.arg("--dir").arg(dir.path());
        self.spawn(PROXY, command, &dir.log_file(PROXY))
    }

    fn spawn(&mut self, name: &str, mut command: Command, log: &Path) -> anyhow::Result<()> {
        let open = || File::options().create(true).append(true).open(log);
        let out = open().with_context(|| format!("open {}", log.display()))?;
        let err = out
            .try_clone()
            .with_context(|| format!("open {}", log.display()))?;
        let child = command.stdin(Stdio::null()).stdout(out).stderr(err).spawn();
        let child = child.with_context(|| format!("start {name}"))?;
        self.running.push(Named {
            name: name.to_owned(),
            child,
        });
        Ok(())
    }

    /// Resolves when a child ends; never when there is none left.
    pub async fn next_exit(&mut self) -> anyhow::Result<Exit> {
        let mut waits: FuturesUnordered<_> = self
            .running
            .iter_mut()
            .enumerate()
            .map(|(at, named)| async move { (at, named.child.wait().await) })
            .collect();
        let Some((at, status)) = waits.next().await else {
            return std::future::pending().await;
        };
        drop(waits);
        let named = self.running.swap_remove(at);
        let status = status.with_context(|| format!("wait for {}", named.name))?;
        Ok(Exit {
            name: named.name,
            status,
        })
    }

    /// The balancer first, so that no client finds its way to a member that is going; then all masters at once.
    pub async fn stop_all(&mut self) -> anyhow::Result<()> {
        let (proxy, masters): (Vec<_>, Vec<_>) =
            self.running.drain(..).partition(|named| named.name == PROXY);
        stop_together(proxy).await?;
        stop_together(masters).await
    }

    /// They live on when this process ends.
    pub fn leave(self) {
        for named in self.running {
            drop(named.child);
        }
    }
}

async fn stop_together(group: Vec<Named>) -> anyhow::Result<()> {
    for named in &group {
        terminate(&named.child)?;
    }
    let mut waits: FuturesUnordered<_> = group
        .into_iter()
        .map(|named| wait_or_kill(named, GRACE))
        .collect();
    while let Some(outcome) = waits.next().await {
        outcome?;
    }
    Ok(())
}

fn terminate(child: &Child) -> anyhow::Result<()> {
    // Not reaped yet, so the pid is still this child's.
    let pid = child
        .id()
        .and_then(|pid| rustix::process::Pid::from_raw(pid.cast_signed()));
    if let Some(pid) = pid {
        rustix::process::kill_process(pid, Signal::TERM).context("signal a child")?;
    }
    Ok(())
}

async fn wait_or_kill(mut named: Named, grace: Duration) -> anyhow::Result<()> {
    match tokio::time::timeout(grace, named.child.wait()).await {
        Ok(status) => {
            let status = status.with_context(|| format!("wait for {}", named.name))?;
            // By the signal itself, if it did not listen for it yet.
            let is_stopped = status.success() || status.signal() == Some(Signal::TERM.as_raw());
            if !is_stopped {
                eprintln!("barque: {} stopped with {status}", named.name);
            }
        }
        Err(_) => {
            eprintln!(
                "barque: {} did not stop within {} s and is killed",
                named.name,
                grace.as_secs()
            );
            named
                .child
                .kill()
                .await
                .with_context(|| format!("kill {}", named.name))?;
        }
    }
    Ok(())
}

fn barque(subcommand: &str, tie: Tie) -> anyhow::Result<Command> {
    let mut command = Command::new(std::env::current_exe().context("find this program")?);
    command.arg(subcommand).arg("--tie").arg(tie.spelled());
    Ok(command)
}

/// Ctrl-C or SIGTERM.
pub struct StopSignal {
    interrupt: unix::Signal,
    terminate: unix::Signal,
    hangup: unix::Signal,
}

impl StopSignal {
    pub fn new() -> anyhow::Result<Self> {
        let listen = |kind| signal(kind).context("listen for signals");
        Ok(Self {
            interrupt: listen(SignalKind::interrupt())?,
            terminate: listen(SignalKind::terminate())?,
            hangup: listen(SignalKind::hangup())?,
        })
    }

    pub async fn received(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
            _ = self.hangup.recv() => {}
        }
    }
}
