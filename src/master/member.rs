//! A started member: its replica, and what its listeners serve of it.

use std::{net::TcpListener, sync::Arc};

use barque_apiserver::ApiServer;
use barque_etcd::EtcdServer;
use barque_replica::{LEASE_CHECKPOINT_INTERVAL, RealHost, Replica, ReplicaConfig, WalConfig};
use barque_store::StoreConfig;

use super::{
    config::Config,
    drain::Drain,
    front::{ApiFront, ClientFront, MetricsFront},
    health::Readiness,
    listener::{Fronts, accept_loop},
    metrics, mount,
    rooms::Rooms,
};

pub struct Member {
    readiness: Arc<Readiness>,
    etcd: EtcdServer,
    client: ClientFront,
    api: Option<ApiServer>,
    metrics: MetricsFront,
    rooms: Rooms,
}

impl Member {
    pub fn new(replica: Replica, config: &Config, max_connections: usize) -> Self {
        let readiness = Arc::new(Readiness::new(replica.clone()));
        let etcd = mount::etcd(&replica, config);
        let api = mount::api(&replica, config);
        let rooms = Rooms::new(max_connections);
        let registry = metrics::registry(replica, etcd.metrics().clone(), api.clone(), rooms.clone());
        let registry = Arc::new(registry);
        let metrics = MetricsFront::new(readiness.clone(), registry);
        Self {
            client: ClientFront::new(etcd.routes(), metrics.clone()),
            api,
            etcd,
            metrics,
            readiness,
            rooms,
        }
    }

    /// Accepts on all listeners until the returned drain begins.
    pub fn serve(&self, fronts: Fronts) -> Drain {
        let drain = Drain::default();
        let rooms = &self.rooms;
        for listener in fronts.client {
            let terms = rooms.client.clone();
            drain.track(accept_loop(listener, self.client.clone(), terms, drain.clone()));
        }
        if let Some(api) = &self.api {
            let front = ApiFront::new(api.router(), self.readiness.clone());
            for listener in fronts.api {
                let terms = rooms.api.clone();
                drain.track(accept_loop(listener, front.clone(), terms, drain.clone()));
            }
        }
        for listener in fronts.metrics {
            let terms = rooms.metrics.clone();
            drain.track(accept_loop(listener, self.metrics.clone(), terms, drain.clone()));
        }
        drain
    }

    /// From here on probes send new clients elsewhere.
    pub fn go_unready(&self) {
        self.readiness.go_unready();
    }

    /// Starts what the Kubernetes API does besides answering; resolves only when it must not be served.
    pub async fn api_failed(&self) -> anyhow::Error {
        if let Some(api) = &self.api
            && let Err(error) = api.run_background().await
        {
            return anyhow::Error::new(error).context("the Kubernetes API cannot be served");
        }
        std::future::pending().await
    }

    /// Ends the streams that would never end by themselves.
    pub async fn end_streams(&self) {
        self.etcd.shutdown().await;
        if let Some(api) = &self.api {
            api.shutdown().await;
        }
    }
}

pub fn replica_config(config: &Config, peer_listeners: Vec<TcpListener>) -> ReplicaConfig {
    ReplicaConfig {
        name: config.name.clone(),
        data_dir: config.data_dir.clone(),
        store: StoreConfig {
            dir: config.data_dir.join("state"),
            ring_bytes: config.limits.watch_ring_bytes,
            block_cache_bytes: config.limits.block_cache_bytes,
            quota_backend_bytes: config.limits.quota_backend_bytes,
        },
        log: WalConfig {
            segment_bytes: config.limits.wal_segment_bytes,
            ..WalConfig::default()
        },
        host: Arc::new(RealHost),
        initial_cluster: config.initial_cluster.clone(),
        initial_cluster_token: config.initial_cluster_token.clone(),
        new_cluster: config.new_cluster,
        advertise_client_urls: config.advertise_client_urls.clone(),
        peer_listeners,
        tls: config.peer_tls.clone(),
        heartbeat_interval: config.heartbeat_interval,
        election_timeout: config.election_timeout,
        snapshot_entries: config.snapshot_entries,
        snapshot_bytes: config.snapshot_bytes,
        snapshot_bytes_per_second: config.snapshot_bytes_per_second,
        max_batch_bytes: config.limits.batch_bytes(),
        request_timeout: config.request_timeout,
        scrub_every: config.scrub_every,
        lease_checkpoint_interval: LEASE_CHECKPOINT_INTERVAL,
    }
}
