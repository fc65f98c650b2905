//! The services' one shared state, and the routes by which a listener reaches them.
//!
//! [`EtcdServer`] is what the binary holds. Each RPC lives in a file of its own as a method of `Shared` from
//! wire request to wire response, which knows nothing of gRPC: the front can be exchanged without touching them.

use std::sync::{Arc, atomic::AtomicBool};

use barque_proto::{
    etcd::etcdserverpb::{
        ResponseHeader, auth_server::AuthServer, cluster_server::ClusterServer, kv_server::KvServer,
        lease_server::LeaseServer, maintenance_server::MaintenanceServer,
    },
    health::health_server::HealthServer,
};
use barque_replica::{Leadership, Replica};
use barque_store::{Reader, Revision};
use futures_util::future::BoxFuture;
use parking_lot::Mutex;
use tokio::{
    runtime::{Handle, RuntimeFlavor},
    sync::{OwnedSemaphorePermit, Semaphore, watch},
    task::JoinHandle,
};
use tokio_util::sync::CancellationToken;
use tonic::service::Routes;

use crate::{
    Error, EtcdConfig, EtcdMetrics,
    front::Front,
    leaderless::{self, Quorum},
    planted,
    watch::WatchService,
};

/// What Status and `/version` report as the server's version: the release whose behaviour is spoken here.
pub const ETCD_VERSION: &str = "3.6.8";
/// The cluster's version: the lowest of the members', as etcd reports it beside the server's.
pub const ETCD_CLUSTER_VERSION: &str = "3.6.0";

/// Watch responses of any size that may be under way at once. Each holds one revision, for a watcher that did not ask for
/// fragments; further ones wait.
const LARGE_RESPONSES: usize = 2;

/// The etcd v3 API of one member; cheap to clone.
#[derive(Clone)]
pub struct EtcdServer {
    pub(crate) shared: Arc<Shared>,
    monitor: Arc<Mutex<Option<JoinHandle<()>>>>,
}

pub(crate) struct Shared {
    pub replica: Replica,
    pub config: EtcdConfig,
    pub metrics: Arc<EtcdMetrics>,
    pub leadership: watch::Receiver<Leadership>,
    /// Whether a leader with a quorum behind it can be reached.
    pub quorum: watch::Receiver<Quorum>,
    pub stopping: CancellationToken,
    /// Bounds what large ranges and hashes may occupy at once; watchers that catch up have a budget of their
    /// own, so that ranges do not starve them.
    pub large_reads: Arc<Semaphore>,
    pub catch_ups: Arc<Semaphore>,
    /// Watch responses without a bound on their size that are put together or sent.
    pub large_responses: Arc<Semaphore>,
    /// One at a time.
    pub defragmenting: Arc<Semaphore>,
    /// Known to be a voter; see `refuse_on_learner`.
    pub votes: AtomicBool,
    pub cluster_id: u64,
    pub member_id: u64,
}

impl EtcdServer {
    /// Must be called within a tokio runtime: one task asks whether there is a leader.
    pub fn new(replica: Replica, config: EtcdConfig) -> EtcdServer {
        let status = replica.status();
        let leadership = replica.leadership();
        let stopping = CancellationToken::new();
        let (quorum, monitor) =
            leaderless::monitor(asking(replica.clone()), config.election_timeout, stopping.clone());
        let monitor = tokio::spawn(replica.guarded("that asks for the quorum", monitor));
        let shared = Shared {
            large_reads: Arc::new(Semaphore::new(config.large_reads.max(1))),
            catch_ups: Arc::new(Semaphore::new(config.catch_ups.max(1))),
            large_responses: Arc::new(Semaphore::new(LARGE_RESPONSES)),
            defragmenting: Arc::new(Semaphore::new(1)),
            replica,
            config,
            metrics: Arc::default(),
            leadership,
            quorum,
            stopping,
            votes: AtomicBool::new(false),
            cluster_id: status.cluster_id,
            member_id: status.member_id.0,
        };
        EtcdServer {
            shared: Arc::new(shared),
            monitor: Arc::new(Mutex::new(Some(monitor))),
        }
    }

    /// Every service, to be mounted on a listener beside plain HTTP routes.
    pub fn routes(&self) -> Routes {
        let limit = self.shared.config.max_message_bytes();
        Routes::new(Front(
            KvServer::new(self.clone()).max_decoding_message_size(limit),
        ))
        .add_service(Front(WatchService::new(Arc::clone(&self.shared))))
        .add_service(Front(
            LeaseServer::new(self.clone()).max_decoding_message_size(limit),
        ))
        .add_service(Front(
            ClusterServer::new(self.clone()).max_decoding_message_size(limit),
        ))
        .add_service(Front(
            MaintenanceServer::new(self.clone()).max_decoding_message_size(limit),
        ))
        .add_service(Front(
            AuthServer::new(self.clone()).max_decoding_message_size(limit),
        ))
        .add_service(Front(
            HealthServer::new(self.clone()).max_decoding_message_size(limit),
        ))
        .prepare()
    }

    pub fn metrics(&self) -> &Arc<EtcdMetrics> {
        &self.shared.metrics
    }

    /// Ends all streams with "server stopped", so that their connections can be drained.
    pub async fn shutdown(&self) {
        self.shared.stopping.cancel();
        let monitor = self.monitor.lock().take();
        if let Some(Err(error)) = match monitor {
            Some(monitor) => Some(monitor.await),
            None => None,
        } {
            tracing::error!(%error, "the task that watches for a missing leader failed");
        }
    }
}

/// The probe for [`leaderless`]: whether the cluster answers a read barrier.
fn asking(replica: Replica) -> impl Fn() -> BoxFuture<'static, bool> {
    move || {
        let replica = replica.clone();
        Box::pin(async move { replica.read_barrier().await.is_ok() })
    }
}

impl Shared {
    /// There is a leader, as far as this member can know.
    pub fn has_leader(&self) -> bool {
        self.leadership.borrow().leader.is_some() && self.quorum.borrow().answers
    }

    /// The header at `revision`.
    pub fn header(&self, revision: Revision) -> ResponseHeader {
        ResponseHeader {
            cluster_id: self.cluster_id,
            member_id: self.member_id,
            revision: revision.0,
            raft_term: self.leadership.borrow().term,
        }
    }

    /// The header at the keyspace's revision as this member has it.
    pub fn current_header(&self) -> ResponseHeader {
        self.header(self.replica.store().head().revision)
    }

    /// Waits until local reads cover everything acknowledged anywhere before.
    pub async fn barrier(&self) -> Result<(), Error> {
        match planted("read-without-barrier") {
            true => Ok(()),
            false => Ok(self.replica.read_barrier().await?),
        }
    }

    /// Waits for a place among the watch responses that may become large.
    pub async fn room_for_large_responses(&self) -> Result<OwnedSemaphorePermit, Error> {
        let place = Arc::clone(&self.large_responses).acquire_owned().await;
        place.map_err(|_| Error::Stopped)
    }

    /// Runs a read that may take long where it delays nobody, within the budget for such reads.
    pub async fn read_at_length<T: Send + 'static>(
        &self,
        read: impl FnOnce(Reader) -> Result<T, Error> + Send + 'static,
    ) -> Result<T, Error> {
        let store = self.replica.store().clone();
        at_length(&self.large_reads, move || read(store.reader())).await
    }
}

/// Runs `work` on a thread for blocking work, once the budget has room for it. A runtime of one thread (the
/// simulator's) has no others.
pub(crate) async fn at_length<T: Send + 'static>(
    budget: &Arc<Semaphore>,
    work: impl FnOnce() -> Result<T, Error> + Send + 'static,
) -> Result<T, Error> {
    let permit = Arc::clone(budget)
        .acquire_owned()
        .await
        .map_err(|_| Error::Stopped)?;
    if Handle::current().runtime_flavor() == RuntimeFlavor::CurrentThread {
        return work();
    }
    let outcome = tokio::task::spawn_blocking(move || {
        let outcome = work();
        drop(permit);
        outcome
    });
    outcome.await.map_err(|error| Error::Internal {
        detail: format!("a long piece of work failed: {error}"),
    })?
}
