//! The client programs that people use, run by tests: [`Etcdctl`] and [`Kubectl`].
//!
//! Every run has a time limit after which it is killed and counted as a failure; output goes to unlinked files, so
//! that no pipe can fill and stall.

use std::{
    ffi::OsStr,
    io::{Read, Seek, Write},
    os::fd::OwnedFd,
    path::{Path, PathBuf},
    process::{Command, ExitStatus, Stdio},
    time::Duration,
};

use anyhow::{Context, bail};
use tokio::{
    io::{AsyncBufReadExt, BufReader, Lines},
    net::unix::pipe,
};

use super::{ClientCertificate, Process};

const TIME_LIMIT: Duration = Duration::from_secs(60);

/// What a program that has exited left.
#[derive(Debug, Clone)]
pub struct Output {
    pub status: ExitStatus,
    pub stdout: String,
    pub stderr: String,
}

impl Output {
    /// The standard output of a program that exited with 0.
    pub fn success(self) -> anyhow::Result<String> {
        if !self.status.success() {
            bail!("{}: {}{}", self.status, self.stdout, self.stderr);
        }
        Ok(self.stdout)
    }
}

/// A program that goes on printing, such as a watch, read line by line.
pub struct LineStream {
    process: Process,
    lines: Lines<BufReader<pipe::Receiver>>,
}

impl LineStream {
    /// The next line; `None` once the program has closed its output.
    pub async fn next_line(&mut self) -> anyhow::Result<Option<String>> {
        Ok(self.lines.next_line().await?)
    }

    /// The next line, which must come within `limit`.
    pub async fn expect_line(&mut self, limit: Duration) -> anyhow::Result<String> {
        let line = tokio::time::timeout(limit, self.next_line())
            .await
            .context("no line in time")??;
        line.context("the program closed its output")
    }

    pub fn process(&self) -> &Process {
        &self.process
    }
}

/// Debian's etcdctl against given endpoints.
#[derive(Debug, Clone)]
pub struct Etcdctl {
    endpoints: Vec<String>,
    certificate: Option<ClientCertificate>,
}

impl Etcdctl {
    pub fn new(endpoints: Vec<String>, certificate: Option<ClientCertificate>) -> Etcdctl {
        Etcdctl {
            endpoints,
            certificate,
        }
    }

    pub async fn run(&self, arguments: &[&str]) -> anyhow::Result<Output> {
        run(self.command(arguments), "").await
    }

    pub async fn run_with_input(&self, arguments: &[&str], input: &str) -> anyhow::Result<Output> {
        run(self.command(arguments), input).await
    }

    pub fn stream(&self, arguments: &[&str]) -> anyhow::Result<LineStream> {
        stream(self.command(arguments))
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new("etcdctl");
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("ETCDCTL_") {
                command.env_remove(name);
            }
        }
        command.env("ETCDCTL_API", "3");
        command.arg(format!("--endpoints={}", self.endpoints.join(",")));
        if let Some(files) = &self.certificate {
            command.arg(format!("--cacert={}", files.ca.display()));
            command.arg(format!("--cert={}", files.certificate.display()));
            command.arg(format!("--key={}", files.key.display()));
        }
        command.args(arguments);
        command
    }
}

/// kubectl with a kubeconfig of its own.
#[derive(Debug, Clone)]
pub struct Kubectl {
    kubeconfig: PathBuf,
    cache: PathBuf,
}

impl Kubectl {
    /// With a kubeconfig that is already there.
    pub fn with_kubeconfig(kubeconfig: &Path, cache: &Path) -> Kubectl {
        Kubectl {
            kubeconfig: kubeconfig.to_owned(),
            cache: cache.to_owned(),
        }
    }

    /// Writes a kubeconfig into `dir` for one server.
    pub fn new(dir: &Path, name: &str, server: &str, files: &ClientCertificate) -> anyhow::Result<Kubectl> {
        let config = serde_json::json!({
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "test",
            "contexts": [{"name": "test", "context": {"cluster": "test", "user": "admin"}}],
            "clusters": [{"name": "test", "cluster": {"server": server, "certificate-authority": files.ca}}],
            "users": [{"name": "admin", "user": {
                "client-certificate": files.certificate, "client-key": files.key,
            }}],
        });
        let kubeconfig = dir.join(format!("{name}.kubeconfig"));
        std::fs::write(&kubeconfig, config.to_string())?;
        Ok(Kubectl {
            kubeconfig,
            cache: dir.join("kubectl-cache"),
        })
    }

    pub async fn run(&self, arguments: &[&str]) -> anyhow::Result<Output> {
        run(self.command(arguments), "").await
    }

    /// With `input` on its standard input, for `-f -`.
    pub async fn run_with_input(&self, arguments: &[&str], input: &str) -> anyhow::Result<Output> {
        run(self.command(arguments), input).await
    }

    pub fn stream(&self, arguments: &[&str]) -> anyhow::Result<LineStream> {
        stream(self.command(arguments))
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new("kubectl");
        command.arg(format!("--kubeconfig={}", self.kubeconfig.display()));
        command.arg(format!("--cache-dir={}", self.cache.display()));
        command.env_remove("KUBECONFIG");
        command.args(arguments);
        command
    }
}

async fn run(mut command: Command, input: &str) -> anyhow::Result<Output> {
    let shown = shown(&command);
    let mut stdin = tempfile::tempfile()?;
    stdin.write_all(input.as_bytes())?;
    stdin.rewind()?;
    let (mut stdout, mut stderr) = (tempfile::tempfile()?, tempfile::tempfile()?);
    command
        .stdin(stdin)
        .stdout(stdout.try_clone()?)
        .stderr(stderr.try_clone()?);
    let process = Process::spawn(command)?;
    let status = process.exited(TIME_LIMIT).await.with_context(|| shown)?;
    Ok(Output {
        status,
        stdout: contents(&mut stdout)?,
        stderr: contents(&mut stderr)?,
    })
}

fn stream(mut command: Command) -> anyhow::Result<LineStream> {
    command.stdin(Stdio::null()).stdout(Stdio::piped());
    let (process, pipes) = Process::spawn_piped(command)?;
    let stdout = OwnedFd::from(pipes.stdout.context("it was asked for")?);
    let lines = BufReader::new(pipe::Receiver::from_owned_fd(stdout)?).lines();
    Ok(LineStream { process, lines })
}

fn contents(file: &mut std::fs::File) -> anyhow::Result<String> {
    let mut bytes = Vec::new();
    file.rewind()?;
    file.read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

fn shown(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words.map(OsStr::to_string_lossy).collect::<Vec<_>>().join(" ")
}
