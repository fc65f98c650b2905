//! A member that is lost for good is replaced with etcdctl alone, by what `member add` prints.

use std::{
    collections::BTreeMap,
    fs::File,
    path::PathBuf,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use barque_chaos::cluster::{Cluster, Etcdctl, Kind, Options, Port, Process, barque_binary};

const PATIENCE: Duration = Duration::from_secs(90);

/// A member that is no part of the cluster's value: started with what `member add` printed in its environment.
struct Newcomer {
    name: &'static str,
    client: Port,
    peer: Port,
    log: PathBuf,
    process: Option<Process>,
}

impl Newcomer {
    fn new(cluster: &Cluster, name: &'static str) -> Self {
        Self {
            name,
            client: Port::reserve().unwrap(),
            peer: Port::reserve().unwrap(),
            log: cluster.dir().join(format!("{name}.log")),
            process: None,
        }
    }

    fn peer_url(&self) -> String {
        format!("http://127.0.0.1:{}", self.peer.number())
    }

    fn address(&self) -> String {
        format!("127.0.0.1:{}", self.client.number())
    }

    fn start(&mut self, cluster: &Cluster, printed: &BTreeMap<String, String>) {
        let mut command = match cluster.kind() {
            Kind::Etcd => Command::new("etcd"),
            Kind::Barque => Command::new(barque_binary().unwrap()),
        };
        match cluster.kind() {
            Kind::Etcd => command.args(["--logger=zap", "--log-level=warn"]),
            Kind::Barque => command.args(["master", "--api=false"]),
        };
        let log = File::create(&self.log).unwrap();
        command
            .arg(format!("--data-dir={}", cluster.dir().join(self.name).display()))
            .arg(format!("--listen-client-urls=http://{}", self.address()))
            .arg(format!("--advertise-client-urls=http://{}", self.address()))
            .arg(format!("--listen-peer-urls={}", self.peer_url()))
            .envs(printed)
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log);
        self.process = Some(Process::spawn(command).unwrap());
    }

    fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }
}

/// Repeats a command until it succeeds: clusters say in several ways that they are not ready yet.
async fn until_success(etcdctl: &Etcdctl, arguments: &[&str], log: impl Fn() -> String) -> String {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let output = etcdctl.run(arguments).await.unwrap();
        if output.status.success() {
            return output.stdout;
        }
        assert!(
            Instant::now() < deadline,
            "{arguments:?}: {}{}\n{}",
            output.stdout,
            output.stderr,
            log()
        );
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

/// The members by name: id, and what else `member list` prints.
async fn members(etcdctl: &Etcdctl) -> BTreeMap<String, Vec<String>> {
    let list = until_success(etcdctl, &["member", "list"], String::new).await;
    list.lines()
        .map(|line| line.split(", ").map(str::to_owned).collect::<Vec<_>>())
        .map(|fields| (fields[2].clone(), fields))
        .collect()
}

/// `ETCD_NAME="m4"` and its like.
fn variables(printed: &str) -> BTreeMap<String, String> {
    printed
        .lines()
        .filter_map(|line| line.split_once('='))
        .map(|(name, value)| (name.to_owned(), value.trim_matches('"').to_owned()))
        .collect()
}

async fn a_lost_member_is_replaced(kind: Kind) {
    let mut cluster = Cluster::start(kind, 3, Options::default()).await.unwrap();
    let addresses: Vec<String> = cluster
        .endpoints()
        .iter()
        .map(|endpoint| endpoint.replace("http://", ""))
        .collect();
    let only = |address: &str| Etcdctl::new(vec![address.to_owned()], None);
    let silent = String::new;
    let lost = (cluster.leader().await.unwrap() + 1) % 3;
    let (stays, dies) = ((lost + 1) % 3, (lost + 2) % 3);
    let etcdctl = only(&addresses[stays]);
    until_success(&etcdctl, &["put", "k", "v"], silent).await;
    let before = members(&etcdctl).await;
    let id = before[cluster.name(lost)][0].clone();

    cluster.kill9(lost).unwrap();
    std::fs::remove_dir_all(cluster.data_dir(lost)).unwrap();
    let said = until_success(&etcdctl, &["member", "remove", &id], silent).await;
    assert!(
        said.starts_with(&format!("Member {id:>16} removed from cluster")),
        "{said}"
    );

    let mut newcomer = Newcomer::new(&cluster, "m4");
    let url = format!("--peer-urls={}", newcomer.peer_url());
    let said = until_success(&etcdctl, &["member", "add", "m4", &url], silent).await;
    let printed = variables(&said);
    assert_eq!(printed["ETCD_NAME"], "m4");
    assert_eq!(printed["ETCD_INITIAL_CLUSTER_STATE"], "existing");
    assert_eq!(printed["ETCD_INITIAL_ADVERTISE_PEER_URLS"], newcomer.peer_url());
    let all: Vec<&str> = printed["ETCD_INITIAL_CLUSTER"].split(',').collect();
    assert_eq!(all.len(), 3, "{said}");
    assert!(
        all.contains(&format!("m4={}", newcomer.peer_url()).as_str()),
        "{said}"
    );

    newcomer.start(&cluster, &printed);
    let through_it = only(&newcomer.address());
    let log = || newcomer.log();
    assert_eq!(until_success(&through_it, &["get", "k"], log).await, "k\nv\n");
    let listed = &members(&etcdctl).await["m4"];
    assert_eq!(
        (listed[1].as_str(), listed[5].as_str()),
        ("started", "false"),
        "{listed:?}"
    );

    // Of three members one more may be lost.
    cluster.kill9(dies).unwrap();
    until_success(&through_it, &["put", "k", "again"], log).await;
    assert_eq!(until_success(&etcdctl, &["get", "k"], log).await, "k\nagain\n");

    let both = Etcdctl::new(vec![addresses[stays].clone(), newcomer.address()], None);
    let m4 = members(&both).await["m4"][0].clone();
    if !leads(&through_it).await {
        let said = until_success(&both, &["move-leader", &m4], log).await;
        assert!(said.starts_with("Leadership transferred from"), "{said}");
    }
    assert!(leads(&through_it).await);

    // The one that is down will come back elsewhere.
    let elsewhere = Port::reserve().unwrap();
    let url = format!("http://127.0.0.1:{}", elsewhere.number());
    let id = before[cluster.name(dies)][0].clone();
    let said = until_success(
        &both,
        &["member", "update", &id, &format!("--peer-urls={url}")],
        log,
    )
    .await;
    assert!(
        said.starts_with(&format!("Member {id:>16} updated in cluster")),
        "{said}"
    );
    assert_eq!(members(&both).await[cluster.name(dies)][3], url);
    // With one of three down, nobody else is added.
    let refused = both
        .run(&["member", "add", "m5", "--peer-urls=http://127.0.0.1:1"])
        .await
        .unwrap();
    assert!(
        !refused.status.success() && refused.stderr.contains("etcdserver: unhealthy cluster"),
        "{refused:?}"
    );
}

/// Whether the one member asked says that it is the leader.
async fn leads(etcdctl: &Etcdctl) -> bool {
    let status = until_success(etcdctl, &["endpoint", "status"], String::new).await;
    status.split(", ").nth(4) == Some("true")
}

#[tokio::test]
async fn debians_etcd_replaces_a_lost_member() {
    a_lost_member_is_replaced(Kind::Etcd).await;
}

#[tokio::test]
async fn ours_replaces_a_lost_member() {
    a_lost_member_is_replaced(Kind::Barque).await;
}
