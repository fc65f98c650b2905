//! Processes by pid file: is it ours, stop it, wait for it. A process is pinned by a pidfd before it is looked
//! at, so that a recycled pid is never signalled.

use std::{
    fs,
    os::fd::OwnedFd,
    path::Path,
    time::{Duration, Instant},
};

use anyhow::{Context, bail};
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    io::Errno,
    process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal},
};

use crate::files;

/// How a child learns, on its hidden flag, what it is to its parent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tie {
    /// Ends when the parent of this pid does, however that ends.
    Attached(u32),
    Detached,
}

impl Tie {
    pub fn parse(text: &str) -> Result<Tie, String> {
        match text {
            "detached" => Ok(Tie::Detached),
            pid => pid
                .parse()
                .map(Tie::Attached)
                .map_err(|_| format!("neither a pid nor \"detached\": {pid}")),
        }
    }

    pub fn spelled(self) -> String {
        match self {
            Tie::Attached(pid) => pid.to_string(),
            Tie::Detached => "detached".to_owned(),
        }
    }

    /// Called by the child first of all. A session of its own keeps the terminal's Ctrl-C from reaching the
    /// children at once: their parent stops them in order.
    pub fn tie(self) -> anyhow::Result<()> {
        rustix::process::setsid().context("start a session")?;
        let Tie::Attached(parent) = self else {
            return Ok(());
        };
        rustix::process::set_parent_process_death_signal(Some(Signal::TERM))
            .context("follow the parent process")?;
        // The parent may have died before the line above took effect.
        let now = rustix::process::getppid().map(|pid| pid.as_raw_nonzero().get());
        if now != i32::try_from(parent).ok() {
            bail!("the process that started this one has ended");
        }
        Ok(())
    }
}

/// A running process that was found to be the one meant.
pub struct Running {
    pub pid: i32,
    fd: OwnedFd,
}

impl Running {
    /// The process of `pid_file`, if it runs and its command line has every one of `words`, in order. A pid
    /// file that is left over finds nobody.
    pub fn find(pid_file: &Path, words: &[&str]) -> anyhow::Result<Option<Running>> {
        let Some(pid) = read_pid(pid_file)? else {
            return Ok(None);
        };
        let Some(raw) = Pid::from_raw(pid) else {
            return Ok(None);
        };
        let fd = match pidfd_open(raw, PidfdFlags::empty()) {
            Ok(fd) => fd,
            Err(Errno::SRCH | Errno::INVAL) => return Ok(None),
            Err(error) => return Err(error).with_context(|| format!("open process {pid}")),
        };
        let running = Running { pid, fd };
        if running.wait(Duration::ZERO)? || !command_line_has(pid, words) {
            return Ok(None);
        }
        Ok(Some(running))
    }

    pub fn signal(&self, signal: Signal) -> anyhow::Result<()> {
        match pidfd_send_signal(&self.fd, signal) {
            Ok(()) | Err(Errno::SRCH) => Ok(()),
            Err(error) => Err(error).with_context(|| format!("signal process {}", self.pid)),
        }
    }

    /// Whether it has ended, within `timeout`. A zombie has.
    pub fn wait(&self, timeout: Duration) -> anyhow::Result<bool> {
        let deadline = Instant::now() + timeout;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let timespec = Timespec::try_from(left).context("a time to wait")?;
            match poll(&mut [PollFd::new(&self.fd, PollFlags::IN)], Some(&timespec)) {
                Ok(ended) => return Ok(ended > 0),
                Err(Errno::INTR) => {}
                Err(error) => return Err(error).with_context(|| format!("wait for process {}", self.pid)),
            }
        }
    }

    /// SIGTERM, then SIGKILL for one that has not ended within `grace`. Returns whether it went by itself.
    pub fn stop(&self, grace: Duration) -> anyhow::Result<bool> {
        self.signal(Signal::TERM)?;
        self.await_or_kill(grace)
    }

    pub fn await_or_kill(&self, grace: Duration) -> anyhow::Result<bool> {
        if self.wait(grace)? {
            return Ok(true);
        }
        self.signal(Signal::KILL)?;
        if !self.wait(KILL_TIMEOUT)? {
            bail!("process {} does not end, not even by SIGKILL", self.pid);
        }
        Ok(false)
    }
}

const KILL_TIMEOUT: Duration = Duration::from_secs(10);

pub fn write_pid(path: &Path) -> anyhow::Result<()> {
    files::replace(
        path,
        files::PUBLIC,
        format!("{}\n", std::process::id()).as_bytes(),
    )
}

fn read_pid(path: &Path) -> anyhow::Result<Option<i32>> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(text.trim().parse().ok().filter(|pid| *pid > 0)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).with_context(|| format!("read {}", path.display())),
    }
}

fn command_line_has(pid: i32, words: &[&str]) -> bool {
    let Ok(bytes) = fs::read(format!("/proc/{pid}/cmdline")) else {
        return false;
    };
    let mut args = bytes.split(|byte| *byte == 0);
    words.iter().all(|word| args.any(|arg| arg == word.as_bytes()))
}
