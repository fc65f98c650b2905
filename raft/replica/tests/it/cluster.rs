//! A cluster of replicas in this process: started, killed, wiped and started again.

use std::{
    net::{SocketAddr, TcpListener},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use barque_entrance::Figures;
use barque_proto::command::{Command, Put, Range, command::Op};
use barque_replica::{
    MemberConfig, MemberId, PeerTls, ProposeError, RealHost, Replica, ReplicaConfig, StartError, WalConfig,
};
use barque_store::{Response, Revision, StoreConfig};
use tempfile::TempDir;
use tokio::task::JoinHandle;

/// Long enough for a machine that is busy with something else; a test that waits this long has failed.
pub const PATIENCE: Duration = Duration::from_secs(60);

pub struct Cluster {
    pub dir: TempDir,
    pub members: Vec<MemberConfig>,
    addresses: Vec<SocketAddr>,
    /// Bound from the first moment on, so that nobody else takes the ports.
    reserved: Vec<Option<TcpListener>>,
    pub replicas: Vec<Option<Replica>>,
    pub token: String,
    pub snapshot_entries: u64,
    pub snapshot_bytes: u64,
    pub tls: Vec<Option<PeerTls>>,
    pub new_cluster: bool,
    pub scrub_every: Duration,
}

impl Cluster {
    pub fn new(size: usize) -> Self {
        Self::with_scheme(size, "http")
    }

    pub fn with_scheme(size: usize, scheme: &str) -> Self {
        let reserved: Vec<_> = (0..size)
            .map(|_| TcpListener::bind("127.0.0.1:0").unwrap())
            .collect();
        let addresses: Vec<_> = reserved
            .iter()
            .map(|listener| listener.local_addr().unwrap())
            .collect();
        let member = |(number, address): (usize, &SocketAddr)| MemberConfig {
            name: format!("m{number}"),
            peer_urls: vec![format!("{scheme}://{address}")],
        };
        Self {
            dir: tempfile::tempdir().unwrap(),
            members: addresses.iter().enumerate().map(member).collect(),
            addresses,
            reserved: reserved.into_iter().map(Some).collect(),
            replicas: vec![None; size],
            token: "test".into(),
            snapshot_entries: 100_000,
            snapshot_bytes: 1 << 30,
            tls: vec![None; size],
            new_cluster: true,
            scrub_every: Duration::ZERO,
        }
    }

    pub async fn started(size: usize) -> Self {
        let mut cluster = Self::new(size);
        cluster.start_all().await;
        cluster
    }

    pub fn data_dir(&self, number: usize) -> PathBuf {
        self.dir.path().join(format!("m{number}"))
    }

    /// Of the peers' ports.
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// Waits until the member's port holds so many connections that have made a call.
    pub async fn settled_at(&self, number: usize, count: u64) {
        self.port(number, |port| port.connections - port.newcomers >= count)
            .await
    }

    /// Waits until so many were closed there that made none in time.
    pub async fn late_at(&self, number: usize, count: u64) {
        self.port(number, |port| port.late >= count).await
    }

    async fn port(&self, number: usize, enough: impl Fn(&Figures) -> bool) {
        within(async {
            while !enough(&self.replica(number).metrics().peer_port) {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        })
        .await
    }

    fn listener(&mut self, number: usize) -> TcpListener {
        self.reserved[number]
            .take()
            .unwrap_or_else(|| bind(self.addresses[number]))
    }

    pub fn config(&mut self, number: usize) -> ReplicaConfig {
        let data_dir = self.data_dir(number);
        ReplicaConfig {
            name: self.members[number].name.clone(),
            store: store_config(&data_dir),
            data_dir,
            log: WalConfig::default(),
            host: Arc::new(RealHost),
            initial_cluster: self.members.clone(),
            initial_cluster_token: self.token.clone(),
            new_cluster: self.new_cluster,
            advertise_client_urls: vec![format!("http://127.0.0.1:{}", 1000 + number)],
            peer_listeners: vec![self.listener(number)],
            tls: self.tls[number].clone(),
            heartbeat_interval: Duration::from_millis(100),
            election_timeout: Duration::from_millis(1000),
            snapshot_entries: self.snapshot_entries,
            snapshot_bytes: self.snapshot_bytes,
            snapshot_bytes_per_second: 0,
            max_batch_bytes: 2 << 20,
            request_timeout: Duration::from_secs(10),
            scrub_every: self.scrub_every,
            lease_checkpoint_interval: barque_replica::LEASE_CHECKPOINT_INTERVAL,
        }
    }

    pub async fn try_start(&mut self, number: usize) -> Result<(), StartError> {
        let config = self.config(number);
        self.replicas[number] = Some(Replica::start(config).await?);
        Ok(())
    }

    pub async fn start(&mut self, number: usize) {
        self.try_start(number).await.unwrap();
    }

    /// Begins to start it: the first time, that takes until every other member has been begun too. Aborting the task
    /// ends the member as a crash would.
    pub fn begin(&mut self, number: usize) -> JoinHandle<Result<Replica, StartError>> {
        tokio::spawn(Replica::start(self.config(number)))
    }

    /// The first start of these members, which wait for one another.
    pub async fn start_together(&mut self, numbers: &[usize]) {
        let starting: Vec<_> = numbers.iter().map(|number| self.begin(*number)).collect();
        for (number, starting) in numbers.iter().zip(starting) {
            self.replicas[*number] = Some(within(starting).await.unwrap().unwrap());
        }
    }

    pub async fn start_all(&mut self) {
        let all: Vec<usize> = (0..self.replicas.len()).collect();
        self.start_together(&all).await;
        for number in all {
            self.ready(number).await;
        }
    }

    /// Gives the member another address; whoever is told of it finds it there at its next start.
    pub fn relocate(&mut self, number: usize) -> Vec<String> {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        self.addresses[number] = listener.local_addr().unwrap();
        self.reserved[number] = Some(listener);
        let urls = vec![format!("http://{}", self.addresses[number])];
        self.members[number].peer_urls = urls.clone();
        urls
    }

    /// Waits until every running member knows what each of them tells of itself.
    pub async fn introduced(&self) {
        let told = |number: &usize| {
            let members = self.replica(*number).members();
            members.iter().all(|member| !member.client_urls.is_empty())
        };
        within(async {
            while !self.running().iter().all(told) {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        })
        .await
    }

    pub async fn ready(&self, number: usize) {
        within(self.replica(number).wait_ready()).await;
    }

    pub fn replica(&self, number: usize) -> &Replica {
        self.replicas[number].as_ref().expect("the replica runs")
    }

    pub fn running(&self) -> Vec<usize> {
        (0..self.replicas.len())
            .filter(|number| self.replicas[*number].is_some())
            .collect()
    }

    /// Ends it as kill -9 would.
    pub async fn kill(&mut self, number: usize) {
        let replica = self.replicas[number].take().expect("the replica runs");
        replica.crash().await;
    }

    pub fn wipe(&self, number: usize) {
        std::fs::remove_dir_all(self.data_dir(number)).unwrap();
    }

    pub fn id(&self, number: usize) -> MemberId {
        self.replica(number).status().member_id
    }

    /// The number of the member that leads, as the running members agree; waits for one.
    pub async fn leader(&self) -> usize {
        let leads = |number: &usize| self.replica(*number).leadership().borrow().is_self;
        within(async {
            loop {
                let leaders: Vec<_> = self.running().into_iter().filter(leads).collect();
                if let [leader] = leaders[..] {
                    return leader;
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        })
        .await
    }

    pub async fn follower(&self) -> usize {
        let leader = self.leader().await;
        self.running()
            .into_iter()
            .find(|number| *number != leader)
            .expect("a follower runs")
    }

    /// Waits until the member has applied what the others have.
    pub async fn caught_up(&self, number: usize) {
        within(async { while self.replica(number).read_barrier().await.is_err() {} }).await;
    }
}

impl Drop for Cluster {
    /// Databases are closed before their directory goes: RocksDB writes on closing, repeats what fails after a
    /// second, and all the tests of this process share its thread for that.
    fn drop(&mut self) {
        let replicas: Vec<Replica> = self.replicas.drain(..).flatten().collect();
        let ending = std::thread::spawn(move || {
            let runtime = tokio::runtime::Runtime::new().expect("a runtime");
            runtime.block_on(futures_util::future::join_all(
                replicas.into_iter().map(Replica::crash),
            ));
        });
        drop(ending.join());
    }
}

fn bind(address: SocketAddr) -> TcpListener {
    // The kernel may hold on to the sockets of the process part that was just killed.
    for _ in 0..200 {
        match TcpListener::bind(address) {
            Ok(listener) => return listener,
            Err(_) => std::thread::sleep(Duration::from_millis(50)),
        }
    }
    panic!("{address} stays busy");
}

pub fn store_config(data_dir: &Path) -> StoreConfig {
    StoreConfig {
        dir: data_dir.join("state"),
        ring_bytes: 1 << 20,
        block_cache_bytes: 1 << 20,
        quota_backend_bytes: 0,
    }
}

pub async fn within<T>(what: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, what)
        .await
        .expect("it takes too long")
}

pub fn put(key: &str, value: &str) -> Command {
    let put = Put {
        key: key.to_string().into(),
        value: value.to_string().into(),
        ..Put::default()
    };
    Command {
        op: Some(Op::Put(put)),
        ..Command::default()
    }
}

pub async fn write(replica: &Replica, key: &str, value: &str) -> Result<Revision, ProposeError> {
    match replica.propose(put(key, value)).await? {
        Response::Put(put) => Ok(put.revision),
        other => panic!("not a put's response: {other:?}"),
    }
}

/// Writes until it is acknowledged: whoever led when a member went may have been that one, and take a write with it.
pub async fn write_until_acknowledged(replica: &Replica, key: &str, value: &str) {
    within(async { while write(replica, key, value).await.is_err() {} }).await;
}

/// What the local state holds, without asking anybody.
pub fn local(replica: &Replica, key: &str) -> Option<String> {
    let found = replica.store().reader().get(key.as_bytes(), Revision(0)).unwrap();
    found.map(|found| String::from_utf8(found.value.to_vec()).unwrap())
}

pub async fn read(replica: &Replica, key: &str) -> Option<String> {
    replica.read_barrier().await.unwrap();
    local(replica, key)
}

pub fn count(replica: &Replica, prefix: &str) -> i64 {
    let mut end = prefix.as_bytes().to_vec();
    *end.last_mut().unwrap() += 1;
    let query = Range {
        key: prefix.to_string().into(),
        range_end: end.into(),
        count_only: true,
        ..Range::default()
    };
    replica.store().reader().range(&query).unwrap().count
}
