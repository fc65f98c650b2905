//! A cluster of `barque up`: it comes up, serves, goes, and comes back with its data; nothing is left behind.

use std::{
    fs,
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::mpsc,
    thread,
    time::Duration,
};

use crate::program::{barque, refusal, shell, stderr, stdout, success, text};

/// How long anything may take before it counts as hung.
const PATIENCE: Duration = Duration::from_secs(120);

/// A cluster in a directory of its own; whatever a failed test leaves running is stopped.
struct Cluster {
    dir: tempfile::TempDir,
}

impl Cluster {
    fn new() -> Cluster {
        Cluster {
            dir: tempfile::tempdir().unwrap(),
        }
    }

    fn dir(&self) -> &str {
        text(self.dir.path())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn up_detached(&self, args: &[&str]) -> String {
        success(&barque(
            &[&["up", "--dir", self.dir(), "--detach"], args].concat(),
        ))
    }

    fn down(&self) {
        success(&barque(&["down", "--dir", self.dir()]));
    }

    fn etcdctl(&self, line: &str) -> String {
        success(&shell(&format!(". {}/etcd.env && etcdctl {line}", self.dir())))
    }

    fn pid(&self, name: &str) -> i32 {
        let path = self.path("pids").join(format!("{name}.pid"));
        fs::read_to_string(path).unwrap().trim().parse().unwrap()
    }

    /// Processes that have this cluster's directory on their command line.
    fn processes(&self) -> Vec<String> {
        let list = stdout(&shell("ps -eo pid,stat,args"));
        let ours =
            |line: &&str| line.contains(self.dir()) && line.contains("barque") && !line.contains("ps -eo");
        list.lines().filter(ours).map(str::to_owned).collect()
    }

    /// Those of them that are no zombies.
    fn running(&self) -> Vec<String> {
        let all = self.processes().into_iter();
        all.filter(|line| !line.contains('Z')).collect()
    }

    /// Of every master, and of the balancer.
    fn ports(&self) -> serde_json::Value {
        serde_json::from_slice(&fs::read(self.path("cluster.json")).unwrap()).unwrap()
    }

    fn status(&self) -> serde_json::Value {
        let output = barque(&["status", "--dir", self.dir(), "-o", "json"]);
        serde_json::from_str(&stdout(&output)).unwrap_or_else(|error| panic!("{error}: {}", stderr(&output)))
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if self.path("cluster.json").exists() {
            barque(&["down", "--dir", self.dir()]);
        }
    }
}

/// `barque up` in the foreground.
struct Foreground {
    child: Child,
    lines: mpsc::Receiver<String>,
}

impl Foreground {
    fn start(cluster: &Cluster) -> Foreground {
        let mut command = Command::new(env!("CARGO_BIN_EXE_barque"));
        command.args(["up", "--dir", cluster.dir()]).stdin(Stdio::null());
        let mut child = command
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let (sender, lines) = mpsc::channel();
        for pipe in [
            Box::new(child.stdout.take().unwrap()) as Box<dyn std::io::Read + Send>,
            Box::new(child.stderr.take().unwrap()),
        ] {
            let sender = sender.clone();
            thread::spawn(move || {
                for line in BufReader::new(pipe).lines() {
                    // Nobody listens once the test is over.
                    let _ = sender.send(line.unwrap());
                }
            });
        }
        let up = Foreground { child, lines };
        up.wait_for_line("The cluster is up");
        up
    }

    fn wait_for_line(&self, part: &str) -> String {
        loop {
            let line = self
                .lines
                .recv_timeout(PATIENCE)
                .unwrap_or_else(|error| panic!("{part}: {error}"));
            if line.contains(part) {
                return line;
            }
        }
    }

    fn signal(&self, signal: &str) {
        send(signal, i32::try_from(self.child.id()).unwrap());
    }

    fn exit_code(mut self) -> Option<i32> {
        self.child.wait().unwrap().code()
    }
}

fn send(signal: &str, pid: i32) {
    success(&shell(&format!("kill -{signal} {pid}")));
}

#[test]
fn a_cluster_comes_up_serves_and_comes_back_with_its_data() {
    let cluster = Cluster::new();
    let said = cluster.up_detached(&[]);
    assert!(said.contains("The cluster is up: 3 masters"), "{said}");
    for private in ["kubeconfig", "etcd.env"] {
        use std::os::unix::fs::PermissionsExt;
        let mode = fs::metadata(cluster.path(private)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{private}");
    }
    assert_eq!(cluster.etcdctl("put greeting hello"), "OK\n");
    assert_eq!(cluster.etcdctl("endpoint status").lines().count(), 3);

    let status = cluster.status();
    assert_eq!(status["healthy"], true, "{status}");
    let members = status["members"].as_array().unwrap();
    assert_eq!(
        members.iter().filter(|member| member["leader"] == true).count(),
        1,
        "{status}"
    );
    let mut names: Vec<&str> = members
        .iter()
        .map(|member| member["name"].as_str().unwrap())
        .collect();
    names.sort_unstable();
    assert_eq!(names, ["m1", "m2", "m3"]);

    let (code, line) = refusal(&barque(&["up", "--dir", cluster.dir(), "--detach"]));
    assert!(code == 1 && line.contains("runs already"), "{line}");

    cluster.down();
    assert_eq!(cluster.running(), Vec::<String>::new());
    assert_eq!(barque(&["status", "--dir", cluster.dir()]).status.code(), Some(1));

    let ports = fs::read(cluster.path("cluster.json")).unwrap();
    cluster.up_detached(&[]);
    assert_eq!(cluster.etcdctl("get greeting --print-value-only"), "hello\n");
    assert_eq!(fs::read(cluster.path("cluster.json")).unwrap(), ports);
    cluster.down();

    let (code, line) = refusal(&barque(&["up", "--dir", cluster.dir(), "--masters", "5"]));
    assert!(code == 1 && line.contains("holds a cluster of 3"), "{line}");
    success(&barque(&["down", "--dir", cluster.dir(), "--purge"]));
    assert!(!cluster.dir.path().exists());
}

#[test]
fn a_cluster_that_could_not_be_started_whole_is_stopped() {
    let cluster = Cluster::new();
    cluster.up_detached(&["--masters", "1"]);
    cluster.down();
    let log = cluster.path("logs").join("proxy.log");
    fs::remove_file(&log).unwrap();
    fs::create_dir(&log).unwrap();
    let (code, line) = refusal(&barque(&["up", "--dir", cluster.dir(), "--detach"]));
    assert!(code == 1 && line.contains("proxy.log"), "{line}");
    assert_eq!(cluster.running(), Vec::<String>::new());
}

#[test]
fn any_one_master_may_die() {
    let cluster = Cluster::new();
    cluster.up_detached(&[]);
    cluster.etcdctl("put before kill");
    let kubeconfig = format!("{}/kubeconfig", cluster.dir());
    let kubectl = |line: &str| success(&shell(&format!("kubectl --kubeconfig {kubeconfig} {line}")));
    let create = |name: &str| {
        let object = format!(r#"{{"apiVersion":"v1","kind":"ConfigMap","metadata":{{"name":"{name}"}}}}"#);
        kubectl(&format!("create -f - <<<'{object}'"))
    };
    create("before");
    for name in ["m1", "m2", "m3"] {
        send("9", cluster.pid(name));
        assert_eq!(cluster.etcdctl("put with one-dead"), "OK\n", "without {name}");
        assert_eq!(
            cluster.etcdctl("get before --print-value-only"),
            "kill\n",
            "without {name}"
        );
        assert_eq!(kubectl("get --raw /readyz"), "ok", "without {name}");
        create(&format!("without-{name}"));
        assert_eq!(
            kubectl("get configmap before -o name"),
            "configmap/before\n",
            "without {name}"
        );
        let status = cluster.status();
        assert_eq!(status["healthy"], false);
        let dead = status["members"]
            .as_array()
            .unwrap()
            .iter()
            .find(|member| member["restart"].is_string());
        let restart = dead.unwrap_or_else(|| panic!("{status}"))["restart"]
            .as_str()
            .unwrap()
            .to_owned();
        let again = restart.replacen("barque", env!("CARGO_BIN_EXE_barque"), 1);
        success(&shell(&format!(
            "setsid {again} >>{}/logs/{name}.log 2>&1 &",
            cluster.dir()
        )));
        wait_until_healthy(&cluster);
    }
}

#[track_caller]
fn wait_until_healthy(cluster: &Cluster) {
    let deadline = std::time::Instant::now() + PATIENCE;
    while cluster.status()["healthy"] != true {
        assert!(std::time::Instant::now() < deadline, "{}", cluster.status());
    }
}

#[test]
fn ctrl_c_leaves_no_process_behind() {
    let cluster = Cluster::new();
    let up = Foreground::start(&cluster);
    cluster.etcdctl("put kept yes");
    up.signal("INT");
    assert_eq!(up.exit_code(), Some(0));
    assert_eq!(cluster.processes(), Vec::<String>::new());

    let up = Foreground::start(&cluster);
    assert_eq!(cluster.etcdctl("get kept --print-value-only"), "yes\n");
    success(&barque(&["down", "--dir", cluster.dir()]));
    assert_eq!(up.exit_code(), Some(0));
    assert_eq!(cluster.processes(), Vec::<String>::new());
}

#[test]
fn a_killed_parent_leaves_no_process_behind() {
    let cluster = Cluster::new();
    let up = Foreground::start(&cluster);
    let masters = ["m1", "m2", "m3", "proxy"].map(|name| cluster.pid(name));
    up.signal("KILL");
    assert_eq!(up.exit_code(), None);
    for pid in masters {
        wait_for_end(pid);
    }
}

/// The children of a process that was killed are nobody's to reap here: a zombie has ended.
#[track_caller]
fn wait_for_end(pid: i32) {
    let deadline = std::time::Instant::now() + PATIENCE;
    while fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| !stat.contains(") Z ")) {
        assert!(std::time::Instant::now() < deadline, "process {pid} lives on");
        thread::yield_now();
    }
}

#[test]
fn a_master_that_dies_is_told_of_and_the_rest_goes_on_while_there_is_a_quorum() {
    let cluster = Cluster::new();
    let up = Foreground::start(&cluster);
    send("9", cluster.pid("m2"));
    let line = up.wait_for_line("m2 ended with");
    assert!(
        line.contains("signal: 9") && line.contains("logs/m2.log"),
        "{line}"
    );
    up.wait_for_line("2 of 3 masters left, which is enough");
    assert_eq!(cluster.etcdctl("put still works"), "OK\n");
    send("9", cluster.pid("m1"));
    up.wait_for_line("1 of 3 masters left, too few to go on");
    assert_eq!(up.exit_code(), Some(1));
    assert_eq!(cluster.processes(), Vec::<String>::new());
}

#[test]
fn two_clusters_live_side_by_side() {
    let (one, other) = (Cluster::new(), Cluster::new());
    one.up_detached(&["--masters", "1"]);
    other.up_detached(&["--masters", "1"]);
    one.etcdctl("put who one");
    other.etcdctl("put who other");
    assert_eq!(one.etcdctl("get who --print-value-only"), "one\n");
    assert_eq!(other.etcdctl("get who --print-value-only"), "other\n");
    one.down();
    assert_eq!(other.etcdctl("get who --print-value-only"), "other\n");
}

/// An address that is free at the moment.
fn free_url() -> String {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    format!("http://{}", listener.local_addr().unwrap())
}

/// A cluster of one, without the Kubernetes API.
fn lone_master(dir: &Path, client: &str, peer: &str, token: &str, log_level: &str) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_barque"));
    command.args(["master", "--api=false", "--data-dir", text(&dir.join("data"))]);
    command.args(["--listen-client-urls", client, "--advertise-client-urls", client]);
    command.args(["--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer]);
    command.args([
        "--initial-cluster",
        &format!("default={peer}"),
        "--initial-cluster-token",
        token,
    ]);
    command.args(["--log-level", log_level]).stdin(Stdio::null());
    command
}

#[test]
fn a_master_whose_log_cannot_be_written_serves_all_the_same() {
    let dir = tempfile::tempdir().unwrap();
    let (client, peer) = (free_url(), free_url());
    let mut command = lone_master(dir.path(), &client, &peer, "one", "debug");
    let mut master = command.stderr(Stdio::piped()).spawn().unwrap();
    // From here on every line fails, for want of somebody at the pipe's other end.
    drop(master.stderr.take());
    wait_for_health(&client);
    let put = success(&shell(&format!(
        "ETCDCTL_API=3 etcdctl --endpoints {client} put a b"
    )));
    assert_eq!(put, "OK\n");
    send("TERM", i32::try_from(master.id()).unwrap());
    assert_eq!(master.wait().unwrap().code(), Some(0));
}

#[test]
fn the_data_of_another_cluster_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let (client, peer) = (free_url(), free_url());
    let command = |token: &str| lone_master(dir.path(), &client, &peer, token, "error");
    let mut first = command("one").spawn().unwrap();
    wait_for_health(&client);
    // Debian's etcdctl asks one endpoint with its whole URL as the authority.
    let status = success(&shell(&format!(
        "ETCDCTL_API=3 etcdctl --endpoints {client} endpoint status"
    )));
    assert!(status.contains("3.6."), "{status}");
    send("TERM", i32::try_from(first.id()).unwrap());
    assert_eq!(first.wait().unwrap().code(), Some(0));
    let (code, line) = refusal(&crate::program::run(&mut command("other")));
    assert_eq!(code, 1, "{line}");
    assert!(
        line.contains("its --initial-cluster-token is \"one\", not \"other\""),
        "{line}"
    );
}

#[track_caller]
fn wait_for_health(client: &str) {
    let deadline = std::time::Instant::now() + PATIENCE;
    let address = client.trim_start_matches("http://");
    while !answers_healthy(address) {
        assert!(std::time::Instant::now() < deadline, "{client} is not healthy");
        thread::yield_now();
    }
}

fn answers_healthy(address: &str) -> bool {
    use std::io::{Read, Write};
    let Ok(mut stream) = std::net::TcpStream::connect(address) else {
        return false;
    };
    let request = "GET /health HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n";
    let mut answer = String::new();
    stream.write_all(request.as_bytes()).is_ok()
        && stream.read_to_string(&mut answer).is_ok()
        && answer.contains(r#""health":"true""#)
}

#[test]
fn every_process_has_its_metrics() {
    let cluster = Cluster::new();
    cluster.up_detached(&["--masters", "1"]);
    cluster.etcdctl("put a b");
    let ports = cluster.ports();
    let master = page(&ports["masters"][0]["metricsPort"]);
    for name in [
        "etcd_server_has_leader 1",
        "etcd_server_is_leader 1",
        "etcd_disk_wal_fsync_duration_seconds_bucket{le=\"+Inf\"}",
        "etcd_server_proposals_committed_total",
        "etcd_server_leader_changes_seen_total",
        "etcd_debugging_mvcc_watcher_total",
        "etcd_mvcc_db_total_size_in_bytes",
        "barque_apply_lag_entries",
        "process_resident_memory_bytes",
        "grpc_server_handled_total{grpc_service=\"etcdserverpb.KV\",grpc_method=\"Put\",grpc_code=\"OK\"} 1",
    ] {
        assert!(master.contains(name), "{name} is missing:\n{master}");
    }
    assert!(page(&ports["proxyMetricsPort"]).contains("barque_proxy_backend_ready"));
}

fn page(port: &serde_json::Value) -> String {
    success(&shell(&format!("curl -sSf http://127.0.0.1:{port}/metrics")))
}

#[test]
fn certificates_of_one_listener_open_no_other() {
    let cluster = Cluster::new();
    cluster.up_detached(&["--masters", "1"]);
    let ports = cluster.ports();
    let master = &ports["masters"][0];
    let pki = cluster.path("pki");
    let get = |port: &serde_json::Value, ca: &str, pair: &Path, path: &str| {
        let (pki, pair) = (text(&pki), text(pair));
        let tls = format!("--cacert {pki}/{ca}/ca.crt --cert {pair}.crt --key {pair}.key");
        shell(&format!("curl -sSf {tls} https://127.0.0.1:{port}{path}"))
            .status
            .success()
    };
    let (etcd, admin, peer) = (
        pki.join("etcd-users/admin"),
        pki.join("users/admin"),
        pki.join("masters/m1/peer"),
    );
    assert!(get(&master["clientPort"], "etcd", &etcd, "/health"));
    assert!(get(&master["apiPort"], "kubernetes", &admin, "/readyz"));
    for stranger in [&admin, &peer] {
        assert!(
            !get(&master["clientPort"], "etcd", stranger, "/health"),
            "{}",
            stranger.display()
        );
    }
    for stranger in [&etcd, &peer] {
        assert!(
            !get(&master["apiPort"], "kubernetes", stranger, "/readyz"),
            "{}",
            stranger.display()
        );
        assert!(!get(&master["peerPort"], "peer", stranger, "/") || *stranger == peer);
    }
}

/// All listeners of one process read their files in the same way.
#[test]
fn a_renewed_certificate_is_shown_without_a_restart() {
    let cluster = Cluster::new();
    cluster.up_detached(&["--masters", "1"]);
    let ports = cluster.ports();
    let port = &ports["masters"][0]["apiPort"];
    let serial = || {
        success(&shell(&format!(
            "openssl s_client -connect 127.0.0.1:{port} </dev/null 2>/dev/null | openssl x509 -noout -serial"
        )))
    };
    let until = |what: &str, seen: &dyn Fn() -> bool| {
        let deadline = std::time::Instant::now() + PATIENCE;
        while !seen() {
            assert!(std::time::Instant::now() < deadline, "{what}");
            thread::sleep(Duration::from_millis(100));
        }
    };
    let first = serial();
    let pki = cluster.path("pki");
    let issue = [
        "--dir",
        text(&pki),
        "--master",
        "m1",
        "--host",
        "127.0.0.1",
        "--force",
    ];
    success(&barque(&[&["pki", "issue"], &issue[..]].concat()));
    until("the renewed certificate is not shown", &|| serial() != first);

    // Half a renewal: the key of another certificate.
    let second = serial();
    fs::copy(pki.join("masters/m1/peer.key"), pki.join("masters/m1/api.key")).unwrap();
    let log = || fs::read_to_string(cluster.path("logs").join("m1.log")).unwrap();
    until("nothing is said of a key that does not fit", &|| {
        assert_eq!(serial(), second);
        log().contains("the certificate cannot be read again; the one before is still used")
    });
}
