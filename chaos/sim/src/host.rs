//! What a simulated member stands on: disks that forget and dawdle, and the simulated network.

use std::{
    io,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use barque_replica::{Connection, Host, Listener};
use barque_store::{Applier, Store, StoreConfig, StoreError, kv::memory::MemoryEngine};
use barque_wal::{
    Driver, Recovered, Wal, WalConfig,
    files::{Copy, CutFiles},
};
use futures_util::future::BoxFuture;
use parking_lot::Mutex;
use rand::{Rng, SeedableRng, rngs::StdRng};
use tokio::time::{sleep, timeout};

use crate::network::{HostId, Network};

pub const PEER_PORT: u16 = 2380;
pub const CLIENT_PORT: u16 = 2379;

/// The name by which others reach a member.
pub fn name(host: HostId) -> String {
    format!("m{host}")
}

fn number(host: &str) -> io::Result<HostId> {
    let number = host.strip_prefix('m').and_then(|number| number.parse().ok());
    number.ok_or_else(|| io::Error::other(format!("there is no host {host}")))
}

/// A member's disks; they outlast its lives.
pub struct Disk {
    pub log: CutFiles,
    state: Mutex<Arc<MemoryEngine>>,
    pace: Mutex<Pace>,
    syncs: AtomicU64,
}

/// Microseconds for a write and its sync when nothing is wrong.
const HEALTHY_US: (u64, u64) = (100, 3_000);

struct Pace {
    rng: StdRng,
    least_us: u64,
    most_us: u64,
}

impl Disk {
    pub fn new(seed: u64) -> Disk {
        Disk {
            log: CutFiles::new(seed),
            state: Mutex::new(Arc::new(MemoryEngine::new())),
            pace: Mutex::new(Pace {
                rng: StdRng::seed_from_u64(seed),
                least_us: HEALTHY_US.0,
                most_us: HEALTHY_US.1,
            }),
            syncs: AtomicU64::new(0),
        }
    }

    /// How long a write and its sync take from now on.
    pub fn set_pace(&self, least_us: u64, most_us: u64) {
        let mut pace = self.pace.lock();
        (pace.least_us, pace.most_us) = (least_us, most_us);
    }

    pub fn set_healthy_pace(&self) {
        self.set_pace(HEALTHY_US.0, HEALTHY_US.1);
    }

    /// How many there were so far.
    pub fn syncs(&self) -> u64 {
        self.syncs.load(Ordering::Relaxed)
    }

    fn latency(&self) -> Duration {
        let mut pace = self.pace.lock();
        let (least, most) = (pace.least_us, pace.most_us);
        Duration::from_micros(pace.rng.random_range(least..=most))
    }

    /// What was not synced is forgotten; nothing of this life reaches the disks any more.
    pub fn cut_power(&self) {
        self.log.cut();
        let mut state = self.state.lock();
        *state = Arc::new(state.crash());
    }

    /// The process ends, the machine goes on: what was written is there, what was in memory is gone.
    pub fn halt(&self) {
        self.log.halt();
        let mut state = self.state.lock();
        *state = Arc::new(state.crash());
    }

    pub fn restore_power(&self) {
        self.log.restore();
    }

    /// Of a machine whose process does not run.
    pub fn copy(&self) -> DiskCopy {
        DiskCopy {
            log: self.log.copy(),
            state: self.state.lock().copy(),
        }
    }

    /// What was written since is gone.
    pub fn put_back(&self, copy: &DiskCopy) {
        self.log.put_back(&copy.log);
        *self.state.lock() = Arc::new(copy.state.copy().crash());
    }
}

/// What a member's disks held at some moment.
pub struct DiskCopy {
    log: Copy,
    state: MemoryEngine,
}

/// One life's [`Host`].
pub struct SimHost {
    pub id: HostId,
    pub network: Network,
    pub disk: Arc<Disk>,
}

impl Host for SimHost {
    fn open_store(&self, config: StoreConfig) -> Result<(Store, Applier), StoreError> {
        let engine = self.disk.state.lock().clone();
        Store::open_with(engine, config.ring_bytes)
    }

    /// Always at the same path: the simulated disk is this member's alone.
    fn open_log(&self, _: &Path, config: WalConfig) -> io::Result<(Wal, Recovered)> {
        let files = Arc::new(self.disk.log.clone());
        let (wal, recovered, driver) = Wal::open_driven(Path::new("/wal"), files, config)?;
        tokio::spawn(drive(driver, self.disk.clone()));
        Ok((wal, recovered))
    }

    fn connect<'a>(&'a self, host: &'a str, port: u16) -> BoxFuture<'a, io::Result<Box<dyn Connection>>> {
        Box::pin(async move {
            let end = self.network.connect(self.id, number(host)?, port).await?;
            Ok(Box::new(end) as Box<dyn Connection>)
        })
    }

    fn listen(&self, _: Vec<std::net::TcpListener>) -> io::Result<Vec<Box<dyn Listener>>> {
        Ok(vec![Box::new(self.network.listen(self.id, PEER_PORT))])
    }
}

/// The log's writer: each batch takes as long as the disk takes, and so does the mark after a pause.
async fn drive(mut driver: Driver, disk: Arc<Disk>) {
    loop {
        let pause = driver.pause();
        let work = std::future::poll_fn(|cx| match driver.poll_work(cx.waker()) {
            true => std::task::Poll::Ready(()),
            false => std::task::Poll::Pending,
        });
        let rests = match pause {
            Some(pause) => timeout(pause, work).await.is_err(),
            None => {
                work.await;
                false
            }
        };
        sleep(disk.latency()).await;
        disk.syncs.fetch_add(1, Ordering::Relaxed);
        let goes_on = if rests { driver.rest() } else { driver.work() };
        if !goes_on {
            return;
        }
    }
}
