//! Members as processes: started on a directory, asked for all keys, stopped.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    net::TcpListener,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use crate::program::{run, shell, stderr, stdout, success, text};

/// How long anything may take before it counts as hung.
const PATIENCE: Duration = Duration::from_secs(120);
/// Between two attempts to reach a member that is starting.
const PAUSE: Duration = Duration::from_millis(50);

/// How a member is started: name, URLs, cluster.
#[derive(Debug, Clone)]
pub struct Flags {
    pub name: String,
    pub dir: PathBuf,
    pub client: String,
    pub listen_peer: String,
    pub peer: String,
    pub initial_cluster: String,
    pub is_new: bool,
}

impl Flags {
    /// A cluster of one. Nobody ever dials its peer URL, so all copies of its directory may have the same.
    pub fn alone(dir: &Path) -> Flags {
        let peer = "http://127.0.0.1:2380";
        Flags {
            name: "a".into(),
            dir: dir.to_owned(),
            client: free_url(),
            listen_peer: "http://127.0.0.1:0".into(),
            peer: peer.into(),
            initial_cluster: format!("a={peer}"),
            is_new: true,
        }
    }

    /// Small files and few entries kept, so that little data makes a log that was purged.
    fn arguments(&self, command: &mut Command, log_level: &str) {
        command.args(["master", "--api=false"]);
        command.args(["--name", &self.name, "--data-dir", text(&self.dir)]);
        command.args(["--listen-client-urls", &self.client]);
        command.args(["--advertise-client-urls", &self.client]);
        command.args(["--listen-peer-urls", &self.listen_peer]);
        command.args(["--initial-advertise-peer-urls", &self.peer]);
        command.args(["--initial-cluster", &self.initial_cluster]);
        let state = if self.is_new { "new" } else { "existing" };
        command.args(["--initial-cluster-state", state]);
        command.args(["--wal-segment-bytes", "65536", "--max-request-bytes", "32768"]);
        command.args(["--snapshot-count", "30", "--log-level", log_level]);
        command.args(["--block-cache-bytes", "1048576"]);
    }

    /// A start that is to be refused: exit code and the last line on stderr.
    pub fn refused(&self) -> (Option<i32>, String) {
        let mut command = Command::new("timeout");
        command.args(["180", env!("CARGO_BIN_EXE_barque")]);
        self.arguments(&mut command, "error");
        let output = run(&mut command);
        let said = stderr(&output);
        let line = said.lines().last().unwrap_or_default();
        assert!(
            line.starts_with("barque: ") && !said.contains("panicked"),
            "{self:?}\n{said}"
        );
        (output.status.code(), line.to_owned())
    }

    pub fn start(&self) -> Member {
        let log = self.dir.with_extension("log");
        let mut command = Command::new(env!("CARGO_BIN_EXE_barque"));
        self.arguments(&mut command, "warn");
        command.stdin(Stdio::null()).stdout(Stdio::null());
        command.stderr(File::create(&log).unwrap());
        Member {
            child: command.spawn().unwrap(),
            flags: self.clone(),
            log,
        }
    }

    pub fn etcdctl(&self, line: &str) -> std::process::Output {
        shell(&format!(
            "ETCDCTL_API=3 etcdctl --command-timeout 10s --endpoints {} {line}",
            self.client
        ))
    }
}

/// A process; killed when a test fails.
pub struct Member {
    child: Child,
    pub flags: Flags,
    log: PathBuf,
}

impl Drop for Member {
    fn drop(&mut self) {
        // It may have ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Member {
    pub fn said(&self) -> String {
        fs::read_to_string(&self.log).unwrap()
    }

    /// All keys and values, as soon as it answers.
    pub fn keys(&self) -> String {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let output = self.flags.etcdctl("get --prefix k");
            if output.status.success() {
                return stdout(&output);
            }
            assert!(Instant::now() < deadline, "{}\n{}", stderr(&output), self.said());
            thread::sleep(PAUSE);
        }
    }

    /// Waits until it has said so.
    pub fn wait_for(&self, what: &str) {
        let deadline = Instant::now() + PATIENCE;
        while !self.said().contains(what) {
            assert!(Instant::now() < deadline, "{what}\n{}", self.said());
            thread::sleep(PAUSE);
        }
    }

    pub fn etcdctl(&self, line: &str) -> String {
        success(&self.flags.etcdctl(line))
    }

    pub fn put(&self, keys: std::ops::Range<u32>) {
        let (first, last) = (keys.start, keys.end - 1);
        let put = "etcdctl put k$i $(head -c 700 /dev/urandom | base64 -w0)";
        let client = &self.flags.client;
        success(&shell(&format!(
            "export ETCDCTL_API=3 ETCDCTL_ENDPOINTS={client}; for i in $(seq {first} {last}); do {put} || exit 1; done"
        )));
    }

    /// SIGTERM: the exit code.
    pub fn stop(mut self) -> Option<i32> {
        success(&shell(&format!("kill -TERM {}", self.child.id())));
        self.wait()
    }

    /// SIGKILL.
    pub fn kill(mut self) {
        self.child.kill().unwrap();
        self.wait();
    }

    fn wait(&mut self) -> Option<i32> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status.code();
            }
            assert!(Instant::now() < deadline, "it does not end\n{}", self.said());
            thread::sleep(PAUSE);
        }
    }

    /// It ends by itself: the exit code and the last line.
    pub fn ends(mut self) -> (Option<i32>, String) {
        let code = self.wait();
        let said = self.said();
        assert!(!said.contains("panicked"), "{said}");
        (code, said.lines().last().unwrap_or_default().to_owned())
    }
}

pub fn free_url() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    format!("http://{}", listener.local_addr().unwrap())
}

pub fn copy(from: &Path, to: &Path) {
    success(&shell(&format!("cp -a {} {}", text(from), text(to))));
}

pub type Tree = BTreeMap<PathBuf, Vec<u8>>;

/// Every file below, with its content.
pub fn tree(dir: &Path) -> Tree {
    let mut found = Tree::new();
    let mut dirs = vec![dir.to_owned()];
    while let Some(next) = dirs.pop() {
        let Ok(entries) = fs::read_dir(&next) else {
            continue;
        };
        for entry in entries {
            let path = entry.unwrap().path();
            if path.is_dir() {
                dirs.push(path);
            } else {
                let bytes = fs::read(&path).unwrap();
                found.insert(path.strip_prefix(dir).unwrap().to_owned(), bytes);
            }
        }
    }
    found
}

/// What a refused start may change: the count of starts, RocksDB's own messages. RocksDB replaces its manifest when a
/// database is opened; the one before is kept beside it.
pub fn check_unchanged(before: &Tree, dir: &Path, line: &str) {
    let after = tree(dir);
    for (path, bytes) in before {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        if name == "identity.json" || name.starts_with("LOG") {
            continue;
        }
        let is_kept = after.iter().any(|(other, kept)| {
            other.starts_with("state")
                && text(other).contains("before-")
                && other.ends_with(&*name)
                && kept == bytes
        });
        let is_same = after.get(path) == Some(bytes);
        assert!(
            is_same || is_kept,
            "{line}: {} was changed or removed",
            path.display()
        );
    }
}
