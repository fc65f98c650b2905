//! A member's `/metrics`: etcd's names where etcd has them, `barque_*` besides. Read from the replica, the store
//! and the services at each scrape.

use std::{
    fmt,
    sync::{Arc, atomic::Ordering::Relaxed},
};

use barque_apiserver::ApiServer;
use barque_etcd::EtcdMetrics;
use barque_replica::{APPLY_BUCKETS_S, FSYNC_BUCKETS_S, Replica, ReplicaMetrics};
use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeMetric, NoLabelSet},
    metrics::{MetricType, counter::ConstCounter, gauge::ConstGauge},
    registry::Registry,
};

use super::rooms::Rooms;
use crate::http_metrics;

pub fn registry(replica: Replica, etcd: Arc<EtcdMetrics>, api: Option<ApiServer>, rooms: Rooms) -> Registry {
    let mut registry = Registry::default();
    registry.register_collector(Box::new(MemberMetrics {
        replica,
        etcd,
        api,
        rooms,
    }));
    registry.register_collector(Box::new(http_metrics::ProcessMetrics));
    registry
}

struct MemberMetrics {
    replica: Replica,
    etcd: Arc<EtcdMetrics>,
    api: Option<ApiServer>,
    rooms: Rooms,
}

impl fmt::Debug for MemberMetrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemberMetrics").finish_non_exhaustive()
    }
}

impl Collector for MemberMetrics {
    fn encode(&self, encoder: DescriptorEncoder) -> fmt::Result {
        let mut page = Page(encoder);
        let replica = self.replica.metrics();
        self.raft(&mut page, &replica)?;
        self.peers(&mut page)?;
        self.connections(&mut page, &replica)?;
        disk(&mut page, &replica)?;
        self.keyspace(&mut page)?;
        self.watches(&mut page)?;
        self.requests(&mut page)?;
        self.api(&mut page)
    }
}

impl MemberMetrics {
    fn raft(&self, page: &mut Page<'_>, replica: &ReplicaMetrics) -> fmt::Result {
        let status = self.replica.status();
        page.gauge(
            "etcd_server_has_leader",
            "1 when a leader is known",
            replica.has_leader.into(),
        )?;
        page.gauge(
            "etcd_server_is_leader",
            "1 when this member leads",
            replica.is_leader.into(),
        )?;
        page.gauge(
            "etcd_server_is_learner",
            "1 when this member is a learner",
            status.is_learner.into(),
        )?;
        // Without "_total", which the text form adds.
        page.counter(
            "etcd_server_leader_changes_seen",
            "Leader changes seen",
            replica.leader_changes_seen,
        )?;
        page.counter(
            "etcd_server_proposals_failed",
            "Commands without an outcome",
            replica.proposals_failed,
        )?;
        page.counter(
            "etcd_server_read_indexes",
            "ReadIndex rounds",
            replica.read_indexes,
        )?;
        page.counter(
            "etcd_server_slow_apply",
            "Applies of over 100 ms",
            replica.slow_applies,
        )?;
        // Gauges by etcd's choice, whatever their names say.
        page.gauge(
            "etcd_server_proposals_committed_total",
            "Commands with an outcome",
            replica.proposals_committed,
        )?;
        page.gauge(
            "etcd_server_proposals_applied_total",
            "Index of the last entry applied",
            status.applied_index,
        )?;
        page.gauge(
            "etcd_server_proposals_pending",
            "Commands queued or in flight",
            replica.proposals_pending,
        )?;
        page.gauge("barque_raft_term", "Raft term", status.term)?;
        page.gauge(
            "barque_raft_last_log_index",
            "Last entry of the log",
            status.last_log_index,
        )?;
        page.gauge(
            "barque_raft_purged_index",
            "Last entry purged from the log",
            status.purged_index,
        )?;
        page.gauge(
            "barque_apply_lag_entries",
            "Committed entries yet to be applied",
            replica.apply_lag,
        )?;
        page.counter(
            "barque_applied_entries",
            "Log entries applied",
            replica.applied_entries,
        )?;
        page.counter(
            "barque_read_barriers",
            "Linearizable reads; several share one round",
            replica.read_barriers,
        )?;
        page.counter("barque_snapshots_sent", "Snapshots sent", replica.snapshots_sent)?;
        page.counter(
            "barque_snapshots_received",
            "Snapshots installed",
            replica.snapshots_received,
        )?;
        page.counter(
            "barque_snapshot_failures",
            "Snapshots that failed",
            replica.snapshot_failures,
        )?;
        page.counter(
            "barque_divergences",
            "Members that this leader found to have another state than others",
            replica.divergences,
        )?;
        page.counter(
            "barque_scrubs",
            "Times that all rows of this member were checked",
            replica.scrubs,
        )?;
        page.counter(
            "barque_scrub_bytes",
            "Bytes of rows read for that",
            replica.scrub_bytes,
        )?;
        page.gauge(
            "barque_scrub_last_finished_timestamp_seconds",
            "When all rows were last checked; 0: not yet",
            replica.scrub_ended_s,
        )?;
        page.gauge(
            "barque_damaged",
            "1 when data of this member was found damaged",
            self.replica.store().damage().is_some().into(),
        )?;
        let buckets = (
            &APPLY_BUCKETS_S[..],
            &replica.apply_buckets[..],
            replica.apply_sum_s,
        );
        page.histogram("barque_apply_duration_seconds", "Time to apply a batch", buckets)
    }

    /// Known to the leader only.
    fn peers(&self, page: &mut Page<'_>) -> fmt::Result {
        let peers = self.replica.status().peers;
        let mut family = page.0.encode_descriptor(
            "barque_peer_lag_entries",
            "Entries a peer is behind",
            None,
            MetricType::Gauge,
        )?;
        for peer in peers {
            let labels = [("member", format!("{:x}", peer.member_id.0))];
            gauge(peer.behind).encode(family.encode_family(&labels)?)?;
        }
        Ok(())
    }

    fn connections(&self, page: &mut Page<'_>, replica: &ReplicaMetrics) -> fmt::Result {
        let [clients, metrics] = self.rooms.figures();
        let rooms = [clients, metrics, ("peers", replica.peer_port)];
        http_metrics::encode_entrances(&mut page.0, &rooms)
    }

    fn keyspace(&self, page: &mut Page<'_>) -> fmt::Result {
        let store = self.replica.store();
        let (head, sizes) = (store.head(), store.sizes());
        page.gauge(
            "etcd_mvcc_db_total_size_in_bytes",
            "Bytes on disk",
            sizes.total_bytes,
        )?;
        page.gauge(
            "etcd_mvcc_db_total_size_in_use_in_bytes",
            "Bytes of live data, estimated",
            sizes.in_use_bytes,
        )?;
        // Without a limit there is no number that an alert could divide by.
        if let Some(quota) = self.replica.quota_backend_bytes() {
            page.gauge(
                "etcd_server_quota_backend_bytes",
                "Bytes that may be in use",
                quota,
            )?;
        }
        page.gauge("etcd_debugging_mvcc_keys_total", "Live keys", sizes.live_keys)?;
        page.gauge(
            "etcd_debugging_mvcc_current_revision",
            "Revision",
            head.revision.0.unsigned_abs(),
        )?;
        let compacted = head.compact_revision.0.unsigned_abs();
        page.gauge(
            "etcd_debugging_mvcc_compact_revision",
            "Last compacted revision",
            compacted,
        )?;
        page.gauge(
            "etcd_debugging_lease_granted",
            "Leases",
            store.leases().map_or(0, |leases| leases.len() as u64),
        )
    }

    fn watches(&self, page: &mut Page<'_>) -> fmt::Result {
        let hub = self.replica.store().hub().metrics();
        page.gauge(
            "etcd_debugging_mvcc_watch_stream_total",
            "Open watch streams",
            hub.subscribers,
        )?;
        page.gauge("etcd_debugging_mvcc_watcher_total", "Watchers", hub.watchers)?;
        page.gauge(
            "etcd_debugging_mvcc_slow_watcher_total",
            "Watchers that are catching up",
            hub.slow_watchers,
        )?;
        page.counter(
            "etcd_debugging_mvcc_events",
            "Events handed to watchers",
            hub.events_delivered,
        )?;
        page.gauge(
            "barque_watch_ring_bytes",
            "Bytes of recent events in memory",
            hub.ring_bytes,
        )?;
        page.gauge(
            "barque_watch_ring_revisions",
            "Revisions in memory",
            hub.ring_revisions,
        )?;
        let etcd = &self.etcd;
        page.counter(
            "barque_etcd_events_sent",
            "Events sent by the etcd API",
            etcd.events_sent.load(Relaxed),
        )?;
        let catch_ups = etcd.watch_catch_up_reads.load(Relaxed);
        page.counter(
            "barque_etcd_watch_catch_up_reads",
            "Reads of history for watchers",
            catch_ups,
        )
    }

    fn requests(&self, page: &mut Page<'_>) -> fmt::Result {
        let help = "RPCs answered";
        let mut family = page
            .0
            .encode_descriptor("grpc_server_handled", help, None, MetricType::Counter)?;
        for (service, method, code, count) in self.etcd.requests() {
            let labels = [
                ("grpc_service", service),
                ("grpc_method", method),
                ("grpc_code", code),
            ];
            ConstCounter::new(count).encode(family.encode_family(&labels)?)?;
        }
        Ok(())
    }
}

impl MemberMetrics {
    fn api(&self, page: &mut Page<'_>) -> fmt::Result {
        let Some(api) = &self.api else { return Ok(()) };
        let metrics = api.metrics();
        page.gauge(
            "barque_api_watches",
            "Open watches of the Kubernetes API",
            api.watches() as u64,
        )?;
        page.counter(
            "barque_api_watch_events",
            "Events sent by the Kubernetes API",
            metrics.watch_events.get(),
        )?;
        page.counter(
            "barque_api_requests_rejected",
            "Too many at once",
            metrics.rejected.get(),
        )?;
        let help = "Requests answered by the Kubernetes API";
        let mut family = page
            .0
            .encode_descriptor("barque_api_requests", help, None, MetricType::Counter)?;
        let classes = [
            ("2xx", &metrics.requests_2xx),
            ("4xx", &metrics.requests_4xx),
            ("5xx", &metrics.requests_5xx),
        ];
        for (class, count) in classes {
            let labels = [("code", class)];
            ConstCounter::new(count.get()).encode(family.encode_family(&labels)?)?;
        }
        Ok(())
    }
}

fn disk(page: &mut Page<'_>, replica: &ReplicaMetrics) -> fmt::Result {
    let wal = &replica.wal;
    let buckets = (&FSYNC_BUCKETS_S[..], &wal.fsync_buckets[..], wal.fsync_sum_s);
    page.histogram(
        "etcd_disk_wal_fsync_duration_seconds",
        "Latency of the log's fdatasync",
        buckets,
    )?;
    page.counter(
        "barque_wal_fsyncs",
        "Syncs of the log that something waited for",
        wal.fsyncs,
    )?;
    page.counter("barque_wal_batches", "Batches written to the log", wal.batches)?;
    page.gauge("barque_wal_bytes", "Bytes of the log on disk", wal.bytes_on_disk)?;
    page.gauge(
        "barque_wal_out_of_space",
        "1 when the disk has no room for the log",
        wal.out_of_space.into(),
    )
}

/// One scrape's answer as it grows.
struct Page<'a>(DescriptorEncoder<'a>);

impl Page<'_> {
    fn gauge(&mut self, name: &str, help: &str, value: u64) -> fmt::Result {
        gauge(value).encode(self.0.encode_descriptor(name, help, None, MetricType::Gauge)?)
    }

    fn counter(&mut self, name: &str, help: &str, value: u64) -> fmt::Result {
        ConstCounter::new(value).encode(self.0.encode_descriptor(name, help, None, MetricType::Counter)?)
    }

    /// Bounds, counts per bucket with one more for what is above the last bound, and the sum.
    fn histogram(
        &mut self,
        name: &str,
        help: &str,
        (bounds, counts, sum): (&[f64], &[u64], f64),
    ) -> fmt::Result {
        let bounds = bounds.iter().copied().chain([f64::INFINITY]);
        let buckets: Vec<(f64, u64)> = bounds.zip(counts.iter().copied()).collect();
        let mut metric = self
            .0
            .encode_descriptor(name, help, None, MetricType::Histogram)?;
        metric.encode_histogram::<NoLabelSet>(sum, counts.iter().sum(), &buckets, None)
    }
}

fn gauge(value: u64) -> ConstGauge<i64> {
    ConstGauge::new(i64::try_from(value).unwrap_or(i64::MAX))
}
