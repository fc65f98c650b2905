//! One child process that cannot be left behind: [`Process`].
//!
//! A thread of its own starts it and waits for it. The kernel's parent-death signal follows the *thread* that
//! forked, so a child forked by a pool's thread could be killed while the test goes on; this thread lives exactly
//! as long as the child. Signals never reach a stranger: an id is only used while the child is not yet reaped.

use std::{
    fs::File,
    os::unix::process::CommandExt,
    process::{Child, ChildStdin, ChildStdout, Command, ExitStatus},
    sync::{Arc, Mutex, mpsc},
    thread::JoinHandle,
    time::Duration,
};

use anyhow::{Context, bail};
use nix::{
    errno::Errno,
    sched::{CloneFlags, setns},
    sys::{
        signal::{Signal, kill},
        wait::{Id, WaitPidFlag, waitid},
    },
    unistd::Pid,
};
use tokio::sync::watch;

/// A running or finished child. Dropping it kills it and waits until it is gone.
pub struct Process {
    pid: Pid,
    // Held while signalling and while reaping: the id is the child's until this says true.
    reaped: Arc<Mutex<bool>>,
    exited: watch::Receiver<Option<ExitStatus>>,
    reaper: Option<JoinHandle<()>>,
}

/// The ends of the pipes that the command asked for.
pub struct Pipes {
    pub stdin: Option<ChildStdin>,
    pub stdout: Option<ChildStdout>,
}

impl Process {
    pub fn spawn(command: Command) -> anyhow::Result<Process> {
        Ok(Process::spawn_piped(command)?.0)
    }

    /// Its network is that of `namespace`, not this process's.
    pub fn spawn_within(command: Command, namespace: Arc<File>) -> anyhow::Result<Process> {
        Ok(Process::spawn_anywhere(command, Some(namespace))?.0)
    }

    pub fn spawn_piped(command: Command) -> anyhow::Result<(Process, Pipes)> {
        Process::spawn_anywhere(command, None)
    }

    fn spawn_anywhere(
        mut command: Command,
        namespace: Option<Arc<File>>,
    ) -> anyhow::Result<(Process, Pipes)> {
        let program = command.get_program().to_string_lossy().into_owned();
        let reaped = Arc::new(Mutex::new(false));
        let (publish, exited) = watch::channel(None);
        let (started, outcome) = mpsc::sync_channel(1);
        let flag = reaped.clone();
        let reaper = std::thread::Builder::new().name("child".into()).spawn(move || {
            die_with_this_thread(&mut command);
            // The thread enters, and its child is born there; nobody else's network changes.
            let entered = namespace.map_or(Ok(()), |namespace| setns(namespace, CloneFlags::CLONE_NEWNET));
            let mut child = match entered
                .map_err(std::io::Error::from)
                .and_then(|()| command.spawn())
            {
                Ok(child) => child,
                Err(error) => return started.send(Err(error)).unwrap_or(()),
            };
            let pipes = Pipes {
                stdin: child.stdin.take(),
                stdout: child.stdout.take(),
            };
            let pid = Pid::from_raw(child.id() as i32);
            started.send(Ok((pid, pipes))).unwrap_or(());
            publish.send_replace(Some(reap(child, pid, &flag)));
        })?;
        let (pid, pipes) = outcome.recv()?.with_context(|| format!("starting {program}"))?;
        Ok((
            Process {
                pid,
                reaped,
                exited,
                reaper: Some(reaper),
            },
            pipes,
        ))
    }

    pub fn pid(&self) -> i32 {
        self.pid.as_raw()
    }

    pub fn is_running(&self) -> bool {
        self.exited.borrow().is_none()
    }

    pub fn signal(&self, signal: Signal) -> anyhow::Result<()> {
        let reaped = self.reaped.lock().expect("never held by a thread that panics");
        if *reaped {
            bail!("the process has exited");
        }
        Ok(kill(self.pid, signal)?)
    }

    /// SIGKILL; returns when the process is gone.
    pub fn kill(self) {
        drop(self);
    }

    /// The exit status, once there is one.
    pub async fn exited(&self, within: Duration) -> anyhow::Result<ExitStatus> {
        let mut exited = self.exited.clone();
        let status = tokio::time::timeout(within, exited.wait_for(Option::is_some))
            .await
            .with_context(|| format!("process {} still runs after {within:?}", self.pid))??;
        Ok(status.expect("waited for it"))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // An error means that it is gone already.
        let _ = self.signal(Signal::SIGKILL);
        if let Some(reaper) = self.reaper.take() {
            let _ = reaper.join();
        }
    }
}

#[allow(unsafe_code)]
fn die_with_this_thread(command: &mut Command) {
    // SAFETY: between fork and exec only prctl is called, which is async-signal-safe and allocates nothing.
    unsafe {
        command.pre_exec(|| {
            if libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) != 0 {
                return Err(std::io::Error::last_os_error());
            }
            Ok(())
        });
    }
}

fn reap(mut child: Child, pid: Pid, reaped: &Mutex<bool>) -> ExitStatus {
    // Seen dead but not reaped: until the lock is held the id still names the child.
    while waitid(Id::Pid(pid), WaitPidFlag::WEXITED | WaitPidFlag::WNOWAIT) == Err(Errno::EINTR) {}
    let mut reaped = reaped.lock().expect("never held by a thread that panics");
    let status = child
        .wait()
        .expect("a child of this thread that nobody else waits for");
    *reaped = true;
    status
}

#[cfg(test)]
mod tests {
    use std::process::Stdio;

    use super::*;

    fn sleeper() -> Process {
        let mut command = Command::new("sleep");
        command.arg("1000").stdin(Stdio::null());
        Process::spawn(command).unwrap()
    }

    #[test]
    fn dropping_kills_and_reaps() {
        let process = sleeper();
        let pid = process.pid();
        assert!(process.is_running());
        drop(process);
        assert_eq!(kill(Pid::from_raw(pid), None), Err(Errno::ESRCH));
    }

    #[tokio::test]
    async fn a_stopped_process_dies_too() {
        let process = sleeper();
        process.signal(Signal::SIGSTOP).unwrap();
        process.signal(Signal::SIGKILL).unwrap();
        let status = process.exited(Duration::from_secs(20)).await.unwrap();
        assert!(!status.success());
        assert!(process.signal(Signal::SIGTERM).is_err());
    }

    #[test]
    fn a_missing_program_is_named() {
        let error = Process::spawn(Command::new("/nonexistent/program"))
            .err()
            .unwrap();
        assert!(format!("{error:#}").contains("/nonexistent/program"), "{error:#}");
    }
}
