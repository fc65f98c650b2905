//! The services over a real replica of one member, spoken to over a real socket by the generated clients.

use std::{net::TcpListener, sync::Arc, time::Duration};

use barque_proto::{
    command,
    etcd::etcdserverpb::{
        compare::{CompareResult, CompareTarget, TargetUnion},
        kv_client::KvClient,
        lease_client::LeaseClient,
        maintenance_client::MaintenanceClient,
        request_op::Request as Op,
        response_op::Response as Outcome,
        watch_client::WatchClient,
        watch_request::RequestUnion,
        *,
    },
};
use barque_replica::{MemberConfig, RealHost, Replica, ReplicaConfig, WalConfig};
use barque_store::StoreConfig;
use tempfile::TempDir;
use tokio::{sync::mpsc, task::JoinHandle};
use tokio_stream::wrappers::{ReceiverStream, TcpListenerStream};
use tonic::{Code, Streaming, transport::Channel};

use crate::{EtcdConfig, EtcdServer};

mod watches;

/// One member, its services, and a connection to them.
struct Member {
    replica: Replica,
    server: EtcdServer,
    channel: Channel,
    address: String,
    serving: JoinHandle<()>,
    _dir: TempDir,
}

impl Member {
    async fn start(config: EtcdConfig) -> Member {
        let dir = tempfile::tempdir().unwrap();
        let peers = TcpListener::bind("127.0.0.1:0").unwrap();
        let peer_urls = vec![format!("http://{}", peers.local_addr().unwrap())];
        let replica = Replica::start(ReplicaConfig {
            name: "m0".into(),
            data_dir: dir.path().to_owned(),
            store: StoreConfig {
                dir: dir.path().join("state"),
                ring_bytes: 1 << 20,
                block_cache_bytes: 1 << 20,
                quota_backend_bytes: 0,
            },
            log: WalConfig::default(),
            host: Arc::new(RealHost),
            initial_cluster: vec![MemberConfig {
                name: "m0".into(),
                peer_urls,
            }],
            initial_cluster_token: "services".into(),
            new_cluster: true,
            advertise_client_urls: vec!["http://127.0.0.1:2379".into()],
            peer_listeners: vec![peers],
            tls: None,
            heartbeat_interval: Duration::from_millis(100),
            election_timeout: Duration::from_secs(1),
            snapshot_entries: 100_000,
            snapshot_bytes: 1 << 30,
            snapshot_bytes_per_second: 0,
            max_batch_bytes: 4 << 20,
            request_timeout: Duration::from_secs(10),
            scrub_every: Duration::ZERO,
            lease_checkpoint_interval: barque_replica::LEASE_CHECKPOINT_INTERVAL,
        });
        let replica = replica.await.unwrap();
        replica.leadership().wait_for(|now| now.is_self).await.unwrap();
        let server = EtcdServer::new(replica.clone(), config);
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let routes = server.routes();
        let serving = tokio::spawn(async move {
            let builder = tonic::transport::Server::builder().add_routes(routes);
            builder
                .serve_with_incoming(TcpListenerStream::new(listener))
                .await
                .unwrap();
        });
        let address = format!("http://{address}");
        let channel = Channel::from_shared(address.clone())
            .unwrap()
            .connect()
            .await
            .unwrap();
        Member {
            replica,
            server,
            channel,
            address,
            serving,
            _dir: dir,
        }
    }

    fn kv(&self) -> KvClient<Channel> {
        KvClient::new(self.channel.clone())
    }

    async fn put(&self, key: &str, value: &str) -> i64 {
        let request = put(key, value);
        self.kv()
            .put(request)
            .await
            .unwrap()
            .into_inner()
            .header
            .unwrap()
            .revision
    }

    async fn watch(&self) -> Watching {
        self.watch_over(self.channel.clone()).await
    }

    async fn watch_over(&self, channel: Channel) -> Watching {
        let (requests, outgoing) = mpsc::channel(16);
        let responses = WatchClient::new(channel)
            .max_decoding_message_size(usize::MAX)
            .watch(ReceiverStream::new(outgoing))
            .await
            .unwrap();
        Watching {
            requests,
            responses: responses.into_inner(),
        }
    }

    async fn stop(self) {
        self.server.shutdown().await;
        self.replica.shutdown().await;
        self.serving.abort();
    }
}

struct Watching {
    requests: mpsc::Sender<WatchRequest>,
    responses: Streaming<WatchResponse>,
}

impl Watching {
    async fn send(&self, request: RequestUnion) {
        self.requests
            .send(WatchRequest {
                request_union: Some(request),
            })
            .await
            .unwrap();
    }

    async fn create(&mut self, request: WatchCreateRequest) -> WatchResponse {
        self.send(RequestUnion::CreateRequest(request)).await;
        let created = self.next().await;
        assert!(created.created);
        created
    }

    async fn next(&mut self) -> WatchResponse {
        self.responses.message().await.unwrap().unwrap()
    }

    /// The next `n` events, as (watch, key, mod revision, previous value).
    async fn events(&mut self, n: usize) -> Vec<(i64, String, i64, String)> {
        let mut seen = Vec::new();
        while seen.len() < n {
            let response = self.next().await;
            for event in response.events {
                let kv = event.kv.unwrap();
                let prev = event.prev_kv.map(|prev| text(&prev.value)).unwrap_or_default();
                seen.push((response.watch_id, text(&kv.key), kv.mod_revision, prev));
            }
        }
        seen
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

fn put(key: &str, value: &str) -> PutRequest {
    PutRequest {
        key: key.to_owned().into(),
        value: value.to_owned().into(),
        ..Default::default()
    }
}

fn get(key: &str, end: &str) -> RangeRequest {
    RangeRequest {
        key: key.to_owned().into(),
        range_end: end.to_owned().into(),
        ..Default::default()
    }
}

fn op(op: Op) -> RequestOp {
    RequestOp { request: Some(op) }
}

fn watch(key: &str, end: &str) -> WatchCreateRequest {
    WatchCreateRequest {
        key: key.to_owned().into(),
        range_end: end.to_owned().into(),
        ..Default::default()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn writes_are_read_back() {
    let member = Member::start(EtcdConfig::default()).await;
    let mut kv = member.kv();
    assert_eq!(member.put("a", "1").await, 2);
    assert_eq!(member.put("b", "2").await, 3);
    let request = PutRequest {
        prev_kv: true,
        ..put("a", "3")
    };
    let overwritten = kv.put(request).await.unwrap().into_inner();
    assert_eq!(text(&overwritten.prev_kv.unwrap().value), "1");

    let all = kv.range(get("\0", "\0")).await.unwrap().into_inner();
    let status = member.replica.status();
    let header = all.header.unwrap();
    assert_eq!(
        (header.cluster_id, header.member_id),
        (status.cluster_id, status.member_id.0)
    );
    assert_eq!((header.revision, header.raft_term), (4, status.term));
    let rows = all
        .kvs
        .iter()
        .map(|kv| (text(&kv.key), text(&kv.value), kv.version))
        .collect::<Vec<_>>();
    assert_eq!(rows, [("a".into(), "3".into(), 2), ("b".into(), "2".into(), 1)]);
    let earlier = kv
        .range(RangeRequest {
            revision: 2,
            ..get("a", "")
        })
        .await
        .unwrap()
        .into_inner();
    assert_eq!(text(&earlier.kvs[0].value), "1");
    assert_eq!(earlier.header.unwrap().revision, 4, "the header speaks of now");

    let gone = DeleteRangeRequest {
        key: "a".into(),
        range_end: "z".into(),
        prev_kv: true,
    };
    let gone = kv.delete_range(gone).await.unwrap().into_inner();
    assert_eq!((gone.deleted, gone.prev_kvs.len()), (2, 2));

    kv.compact(CompactionRequest {
        revision: 4,
        physical: true,
    })
    .await
    .unwrap();
    let refused = kv
        .range(RangeRequest {
            revision: 3,
            ..get("a", "")
        })
        .await
        .unwrap_err();
    let compacted = "etcdserver: mvcc: required revision has been compacted";
    assert_eq!((refused.code(), refused.message()), (Code::OutOfRange, compacted));
    let counted = member.server.metrics().requests();
    assert!(
        counted.contains(&("etcdserverpb.KV", "Put", "OK", 3)),
        "{counted:?}"
    );
    assert!(
        counted.contains(&("etcdserverpb.KV", "Range", "OutOfRange", 1)),
        "{counted:?}"
    );
    member.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn txns_that_read_answer_as_those_that_write() {
    let member = Member::start(EtcdConfig::default()).await;
    member.put("a", "1").await;
    member.put("b", "2").await;
    let compare = |target: CompareTarget, union: TargetUnion, end: &str| Compare {
        key: "a".into(),
        range_end: end.to_owned().into(),
        result: CompareResult::Equal.into(),
        target: target.into(),
        target_union: Some(union),
    };
    let value = || TargetUnion::Value("1".into());
    let cases = [
        (vec![], true),
        (vec![compare(CompareTarget::Value, value(), "")], true),
        (vec![compare(CompareTarget::Value, value(), "c")], false),
        (
            vec![compare(CompareTarget::Version, TargetUnion::Version(1), "c")],
            true,
        ),
        (
            vec![compare(CompareTarget::Mod, TargetUnion::ModRevision(3), "")],
            false,
        ),
    ];
    for (compare, expect) in cases {
        let reading = TxnRequest {
            compare,
            success: vec![op(Op::RequestRange(get("a", "z")))],
            failure: vec![op(Op::RequestRange(get("b", "")))],
        };
        let mut writing = reading.clone();
        let never = TxnRequest {
            compare: vec![compare_absent()],
            success: vec![op(Op::RequestPut(put("x", "")))],
            failure: vec![],
        };
        for branch in [&mut writing.success, &mut writing.failure] {
            branch.push(op(Op::RequestTxn(never.clone())));
        }
        let reading = member.kv().txn(reading).await.unwrap().into_inner();
        let writing = member.kv().txn(writing).await.unwrap().into_inner();
        assert_eq!((reading.succeeded, writing.succeeded), (expect, expect));
        assert_eq!(reading.responses[0], writing.responses[0]);
        assert_eq!(reading.header, writing.header);
        let Some(Outcome::ResponseRange(rows)) = &reading.responses[0].response else {
            panic!("a range answers a range");
        };
        assert_eq!(rows.count, if expect { 2 } else { 1 });
    }
    member.stop().await;
}

/// Holds of a key that is there, so never of "x".
fn compare_absent() -> Compare {
    Compare {
        key: "x".into(),
        result: CompareResult::Greater.into(),
        target: CompareTarget::Version.into(),
        target_union: Some(TargetUnion::Version(0)),
        ..Default::default()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn watchers_of_one_stream_see_what_they_asked_for() {
    let member = Member::start(EtcdConfig::default()).await;
    member.put("a", "1").await;
    member.put("b", "2").await;
    let mut stream = member.watch().await;

    let history = WatchCreateRequest {
        start_revision: 2,
        prev_kv: true,
        ..watch("a", "z")
    };
    let created = stream.create(history).await;
    assert_eq!((created.watch_id, created.header.unwrap().revision), (0, 3));
    let old = stream.events(2).await;
    assert_eq!(
        old,
        [
            (0, "a".into(), 2, String::new()),
            (0, "b".into(), 3, String::new())
        ]
    );

    let now = WatchCreateRequest {
        watch_id: 9,
        ..watch("a", "")
    };
    assert_eq!(stream.create(now.clone()).await.watch_id, 9);
    let refused = stream.create(now).await;
    assert!(refused.canceled && refused.watch_id == -1);
    assert_eq!(
        refused.cancel_reason,
        "mvcc: duplicate watch ID provided on the WatchStream"
    );

    member.put("a", "3").await;
    let mut both = stream.events(2).await;
    both.sort();
    assert_eq!(
        both,
        [(0, "a".into(), 4, "1".into()), (9, "a".into(), 4, String::new())]
    );

    stream
        .send(RequestUnion::ProgressRequest(WatchProgressRequest {}))
        .await;
    let progress = stream.next().await;
    assert_eq!((progress.watch_id, progress.header.unwrap().revision), (-1, 4));
    assert!(progress.events.is_empty());

    stream
        .send(RequestUnion::CancelRequest(WatchCancelRequest { watch_id: 77 }))
        .await;
    stream
        .send(RequestUnion::CancelRequest(WatchCancelRequest { watch_id: 9 }))
        .await;
    let canceled = stream.next().await;
    assert!(
        canceled.canceled && canceled.watch_id == 9,
        "an unknown id gets no reply: {canceled:?}"
    );

    member
        .kv()
        .compact(CompactionRequest {
            revision: 4,
            physical: false,
        })
        .await
        .unwrap();
    let created = stream
        .create(WatchCreateRequest {
            start_revision: 3,
            ..watch("a", "")
        })
        .await;
    assert!(!created.canceled);
    let compacted = stream.next().await;
    assert!(compacted.canceled && compacted.watch_id == created.watch_id);
    assert_eq!(compacted.compact_revision, 4);

    member.server.shutdown().await;
    let ended = stream.responses.message().await.unwrap_err();
    assert_eq!(
        (ended.code(), ended.message()),
        (Code::Unavailable, "etcdserver: server stopped")
    );
    member.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_that_was_left_unread_misses_nothing() {
    let member = Member::start(EtcdConfig::default()).await;
    let mut stream = member.watch().await;
    stream
        .create(WatchCreateRequest {
            progress_notify: true,
            ..watch("k", "l")
        })
        .await;
    // Far more than the ring and the connection's window hold.
    let value = "v".repeat(20_000);
    for n in 0..200 {
        member.put(&format!("k{n:03}"), &value).await;
    }
    let seen = stream.events(200).await;
    let expected = (0..200).map(|n| (0, format!("k{n:03}"), n + 2, String::new()));
    assert!(seen.iter().cloned().eq(expected));
    member.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn idle_watchers_are_told_of_progress() {
    let interval = Duration::from_millis(100);
    let config = EtcdConfig {
        watch_progress_notify_interval: interval,
        ..Default::default()
    };
    let member = Member::start(config).await;
    let mut stream = member.watch().await;
    stream.create(watch("quiet", "")).await;
    stream
        .create(WatchCreateRequest {
            progress_notify: true,
            watch_id: 5,
            ..watch("k", "")
        })
        .await;
    let revision = member.put("other", "").await;
    loop {
        let progress = stream.next().await;
        assert!(progress.watch_id == 5 && progress.events.is_empty());
        if progress.header.unwrap().revision == revision {
            break;
        }
    }
    member.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn leases_hold_keys_and_let_them_go() {
    let member = Member::start(EtcdConfig::default()).await;
    let mut leases = LeaseClient::new(member.channel.clone());
    let granted = leases
        .lease_grant(LeaseGrantRequest { id: 0, ttl: 1 })
        .await
        .unwrap()
        .into_inner();
    assert_eq!(granted.ttl, 2, "one and a half election timeouts, rounded up");
    assert!(granted.id > 0);
    let too_large = leases
        .lease_grant(LeaseGrantRequest {
            id: 0,
            ttl: 9_000_000_001,
        })
        .await
        .unwrap_err();
    assert_eq!(
        (too_large.code(), too_large.message()),
        (Code::OutOfRange, "etcdserver: too large lease TTL")
    );
    let granted = leases
        .lease_grant(LeaseGrantRequest { id: 42, ttl: 600 })
        .await
        .unwrap()
        .into_inner();
    member
        .kv()
        .put(PutRequest {
            lease: granted.id,
            ..put("k", "v")
        })
        .await
        .unwrap();

    let (requests, outgoing) = mpsc::channel(4);
    let mut answers = leases
        .lease_keep_alive(ReceiverStream::new(outgoing))
        .await
        .unwrap()
        .into_inner();
    for (id, ttl) in [(42, 600), (43, 0)] {
        requests.send(LeaseKeepAliveRequest { id }).await.unwrap();
        let answer = answers.message().await.unwrap().unwrap();
        assert_eq!((answer.id, answer.ttl), (id, ttl));
    }
    let asked = LeaseTimeToLiveRequest { id: 42, keys: true };
    let left = leases.lease_time_to_live(asked).await.unwrap().into_inner();
    assert_eq!((left.granted_ttl, left.keys), (600, vec!["k".into()]));
    let missing = leases
        .lease_time_to_live(LeaseTimeToLiveRequest { id: 43, keys: false })
        .await
        .unwrap();
    assert_eq!(missing.into_inner().ttl, -1);

    leases.lease_revoke(LeaseRevokeRequest { id: 42 }).await.unwrap();
    assert_eq!(
        member.kv().range(get("k", "")).await.unwrap().into_inner().count,
        0
    );
    let again = leases
        .lease_revoke(LeaseRevokeRequest { id: 42 })
        .await
        .unwrap_err();
    assert_eq!(
        (again.code(), again.message()),
        (Code::NotFound, "etcdserver: requested lease not found")
    );
    member.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_kubernetes_prefix_is_read_only() {
    let config = EtcdConfig {
        protected_prefix: Some("/registry/".into()),
        ..Default::default()
    };
    let member = Member::start(config).await;
    let mut kv = member.kv();
    let everything = DeleteRangeRequest {
        key: "\0".into(),
        range_end: "\0".into(),
        prev_kv: false,
    };
    let inner = TxnRequest {
        failure: vec![op(Op::RequestPut(put("/registry/x", "")))],
        ..Default::default()
    };
    let outer = TxnRequest {
        success: vec![op(Op::RequestTxn(inner))],
        ..Default::default()
    };
    for refused in [
        kv.put(put("/registry/pods/a", "")).await.unwrap_err(),
        kv.delete_range(everything).await.unwrap_err(),
        kv.txn(outer).await.unwrap_err(),
    ] {
        assert_eq!(refused.code(), Code::PermissionDenied);
        assert!(
            refused.message().starts_with("etcdserver: permission denied"),
            "{}",
            refused.message()
        );
    }
    member.put("/elsewhere", "").await;
    assert_eq!(
        kv.range(get("/registry/", "/registry0"))
            .await
            .unwrap()
            .into_inner()
            .count,
        0
    );
    member.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_have_sizes() {
    let config = EtcdConfig {
        max_request_bytes: 1000,
        ..Default::default()
    };
    let member = Member::start(config).await;
    let refused = member.kv().put(put("k", &"v".repeat(1000))).await.unwrap_err();
    assert_eq!(
        (refused.code(), refused.message()),
        (Code::InvalidArgument, "etcdserver: request is too large")
    );
    let refused = member.kv().put(put("k", &"v".repeat(600_000))).await.unwrap_err();
    assert_eq!(refused.code(), Code::ResourceExhausted);
    assert!(
        refused
            .message()
            .starts_with("grpc: received message larger than max ("),
        "{}",
        refused.message()
    );
    member.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_txn_too_deep_for_the_log_is_refused() {
    let member = Member::start(EtcdConfig::default()).await;
    let of = |inner: Op| TxnRequest {
        success: vec![op(inner)],
        ..Default::default()
    };
    // As deep as a request can be decoded: in the log it would lie two messages deeper.
    let innermost = of(Op::RequestPut(put("k", "deep")));
    let deep = (1..50).fold(innermost, |txn, _| of(Op::RequestTxn(txn)));
    let refused = member.kv().txn(deep).await.unwrap_err();
    assert_eq!(
        (refused.code(), refused.message()),
        (
            Code::InvalidArgument,
            "etcdserver: txn request is nested more than 32 levels deep"
        )
    );
    member.put("k", "v").await;
    let found = member.kv().range(get("k", "")).await.unwrap().into_inner();
    assert_eq!(text(&found.kvs[0].value), "v");
    member.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_says_how_it_is() {
    let member = Member::start(EtcdConfig::default()).await;
    let mut maintenance = MaintenanceClient::new(member.channel.clone());
    let status = maintenance.status(StatusRequest {}).await.unwrap().into_inner();
    assert_eq!(status.version, crate::ETCD_VERSION);
    assert_eq!(status.leader, member.replica.status().member_id.0);
    assert!(status.errors.is_empty() && !status.is_learner && status.raft_applied_index > 0);

    let id = status.leader;
    let alarm = |action: alarm_request::AlarmAction| AlarmRequest {
        action: action.into(),
        member_id: id,
        alarm: AlarmType::Nospace.into(),
    };
    maintenance
        .alarm(alarm(alarm_request::AlarmAction::Activate))
        .await
        .unwrap();
    let refused = member.kv().put(put("k", "v")).await.unwrap_err();
    let no_space = "etcdserver: mvcc: database space exceeded";
    assert_eq!(
        (refused.code(), refused.message()),
        (Code::ResourceExhausted, no_space)
    );
    let listed = maintenance
        .alarm(AlarmRequest::default())
        .await
        .unwrap()
        .into_inner()
        .alarms;
    assert_eq!(
        listed,
        [AlarmMember {
            member_id: id,
            alarm: AlarmType::Nospace.into()
        }]
    );
    let status = maintenance.status(StatusRequest {}).await.unwrap().into_inner();
    assert_eq!(status.errors, [format!("memberID:{id} alarm:NOSPACE ")]);
    maintenance
        .alarm(alarm(alarm_request::AlarmAction::Deactivate))
        .await
        .unwrap();
    member.put("k", "v").await;

    // Of damaged files it is a member's own alarm, which etcd's clients know as CORRUPT and which refuses nothing.
    let damaged = command::Alarm {
        kind: command::alarm::Kind::Damaged.into(),
        member_id: id,
        active: true,
    };
    let damaged = command::Command {
        op: Some(command::command::Op::Alarm(damaged)),
        ..Default::default()
    };
    member.replica.propose(damaged).await.unwrap();
    member.put("k", "v").await;
    let corrupt = AlarmMember {
        member_id: id,
        alarm: AlarmType::Corrupt.into(),
    };
    let listed = maintenance.alarm(AlarmRequest::default()).await.unwrap();
    assert_eq!(listed.into_inner().alarms, [corrupt]);
    let status = maintenance.status(StatusRequest {}).await.unwrap().into_inner();
    assert_eq!(status.errors, [format!("memberID:{id} alarm:CORRUPT ")]);
    let disarm = AlarmRequest {
        action: alarm_request::AlarmAction::Deactivate.into(),
        member_id: id,
        alarm: AlarmType::Corrupt.into(),
    };
    let disarmed = maintenance.alarm(disarm).await.unwrap();
    assert_eq!(disarmed.into_inner().alarms, [corrupt]);
    assert!(member.replica.store().alarms().is_empty());

    let hash = maintenance
        .hash_kv(HashKvRequest { revision: 0 })
        .await
        .unwrap()
        .into_inner();
    assert_eq!(hash.hash_revision, hash.header.unwrap().revision);
    maintenance.defragment(DefragmentRequest {}).await.unwrap();
    let elsewhere = maintenance
        .move_leader(MoveLeaderRequest { target_id: 1 })
        .await
        .unwrap_err();
    assert_eq!(elsewhere.message(), "etcdserver: bad leader transferee");
    member.stop().await;
}
