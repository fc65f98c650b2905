//! The command line of a member, and where its program is found.

use std::{
    fs::OpenOptions,
    path::PathBuf,
    process::{Command, Stdio},
};

use anyhow::{Context, bail};

use super::{Cluster, Kind, Process};

/// The `barque` binary beside this executable: tests lie in `target/release/deps`, the load harness in
/// `target/release`. `BARQUE_BIN` names another one.
pub fn barque_binary() -> anyhow::Result<PathBuf> {
    if let Some(path) = std::env::var_os("BARQUE_BIN") {
        return Ok(PathBuf::from(path));
    }
    match beside_this_program("barque")? {
        Some(path) => Ok(path),
        None => {
            bail!("no `barque` beside this program: build it first, by `cargo build --release --bin barque`")
        }
    }
}

/// Tests lie one directory deeper than what they test.
pub(super) fn beside_this_program(name: &str) -> anyhow::Result<Option<PathBuf>> {
    let own = std::env::current_exe()?;
    let mut places = own.ancestors().skip(1).take(2).map(|dir| dir.join(name));
    Ok(places.find(|path| path.is_file()))
}

impl Cluster {
    pub(super) fn spawn(&mut self, index: usize) -> anyhow::Result<()> {
        let member = &self.members[index];
        let log = OpenOptions::new().create(true).append(true).open(&member.log)?;
        let mut command = self.command(index)?;
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        let process = match self.options.hosts.get(index) {
            Some(host) => Process::spawn_within(command, host.namespace.clone()),
            None => Process::spawn(command),
        };
        let process = process.with_context(|| format!("starting {}", member.name))?;
        self.members[index].process = Some(process);
        Ok(())
    }

    fn command(&self, index: usize) -> anyhow::Result<Command> {
        let member = &self.members[index];
        let mut command = match self.kind {
            Kind::Etcd => Command::new("etcd"),
            Kind::Barque => Command::new(barque_binary()?),
        };
        if self.kind == Kind::Barque {
            command.arg("master");
            match self.api_endpoint(index) {
                Some(url) => command.arg(format!("--listen-api={url}")),
                None => command.arg("--api=false"),
            };
        }
        let peer_url = self.peer_url(index);
        let initial: Vec<String> = (0..self.len())
            .map(|other| format!("{}={}", self.name(other), self.peer_url(other)))
            .collect();
        let state = if member.joins { "existing" } else { "new" };
        command
            .arg(format!("--name={}", member.name))
            .arg(format!("--data-dir={}", member.data_dir.display()))
            .arg(format!("--listen-client-urls={}", self.endpoint(index)))
            .arg(format!("--advertise-client-urls={}", self.endpoint(index)))
            .arg(format!("--listen-peer-urls={peer_url}"))
            .arg(format!("--initial-advertise-peer-urls={peer_url}"))
            .arg(format!("--initial-cluster={}", initial.join(",")))
            .arg(format!("--initial-cluster-state={state}"));
        if self.kind == Kind::Etcd {
            // Debian's etcd still defaults to a logger that it calls deprecated.
            command.args(["--logger=zap", "--log-level=warn", "--enable-v2=false"]);
        }
        if let Some(pki) = &self.pki {
            command.args(pki.member_flags(index, self.options.api));
        }
        command.args(&self.options.extra_flags);
        command.envs(self.options.environment.iter().cloned());
        if let Some(clocks) = &self.options.clocks {
            clocks.give(&member.name, &mut command)?;
        }
        Ok(command)
    }
}
