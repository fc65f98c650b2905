//! [`Target`]: one server under test, spoken to by the generated clients alone, since the gRPC code and text of an
//! answer are part of the contract and a library would interpret them.

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex},
    time::Duration,
};

use barque_proto::etcd::{
    etcdserverpb::{
        CompactionRequest, Compare, DeleteRangeRequest, DeleteRangeResponse, LeaseGrantRequest,
        LeaseRevokeRequest, PutRequest, PutResponse, RangeRequest, RangeResponse, RequestOp, TxnRequest,
        TxnResponse,
        cluster_client::ClusterClient,
        compare::{CompareResult, CompareTarget, TargetUnion},
        kv_client::KvClient,
        lease_client::LeaseClient,
        maintenance_client::MaintenanceClient,
        request_op::Request,
        watch_client::WatchClient,
    },
    mvccpb::KeyValue,
};
use bytes::Bytes;
use tonic::{
    Code, Status,
    transport::{Channel, Endpoint},
};

use crate::{difference, suite::Side};

/// Bounds every wait for something that must come: generous, since nothing here is about speed.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// A connection to the server under test, and the keys that one check may use.
#[derive(Clone)]
pub struct Target {
    endpoint: String,
    channel: Channel,
    side: Side,
    prefix: String,
    met: Arc<Mutex<BTreeSet<&'static str>>>,
}

impl Target {
    pub async fn connect(endpoint: &str, side: Side) -> Target {
        let channel = Endpoint::from_shared(endpoint.to_owned())
            .unwrap()
            .timeout(PATIENCE)
            .connect()
            .await
            .unwrap();
        Target {
            endpoint: endpoint.to_owned(),
            channel,
            side,
            prefix: String::new(),
            met: Arc::default(),
        }
    }

    pub fn for_check(&self, name: &str) -> Target {
        Target {
            prefix: format!("{name}/"),
            ..self.clone()
        }
    }

    pub fn endpoint(&self) -> &str {
        &self.endpoint
    }

    pub fn side(&self) -> Side {
        self.side
    }

    /// Notes that the check meets a row of the table of differences; true on the oracle.
    pub fn differs(&self, id: &str) -> bool {
        let row = difference::row(id);
        self.met.lock().unwrap().insert(row.id);
        self.side == Side::Oracle
    }

    pub fn met(&self, id: &str) -> bool {
        self.met.lock().unwrap().contains(id)
    }

    /// A key of this check's own.
    pub fn key(&self, name: &str) -> Bytes {
        Bytes::from(format!("{}{name}", self.prefix))
    }

    /// Everything that this check writes: key and range end.
    pub fn all(&self) -> (Bytes, Bytes) {
        (self.key(""), prefix_end(self.prefix.as_bytes()))
    }

    pub fn kv(&self) -> KvClient<Channel> {
        KvClient::new(self.channel.clone()).max_decoding_message_size(64 << 20)
    }

    pub fn watch(&self) -> WatchClient<Channel> {
        WatchClient::new(self.channel.clone()).max_decoding_message_size(64 << 20)
    }

    pub fn lease(&self) -> LeaseClient<Channel> {
        LeaseClient::new(self.channel.clone())
    }

    pub fn cluster(&self) -> ClusterClient<Channel> {
        ClusterClient::new(self.channel.clone())
    }

    pub fn maintenance(&self) -> MaintenanceClient<Channel> {
        MaintenanceClient::new(self.channel.clone())
    }

    pub async fn try_put(&self, request: PutRequest) -> Result<PutResponse, Status> {
        Ok(self.kv().put(request).await?.into_inner())
    }

    pub async fn try_range(&self, request: RangeRequest) -> Result<RangeResponse, Status> {
        Ok(self.kv().range(request).await?.into_inner())
    }

    pub async fn try_delete(&self, request: DeleteRangeRequest) -> Result<DeleteRangeResponse, Status> {
        Ok(self.kv().delete_range(request).await?.into_inner())
    }

    pub async fn try_txn(&self, request: TxnRequest) -> Result<TxnResponse, Status> {
        Ok(self.kv().txn(request).await?.into_inner())
    }

    /// Puts `value` and says at which revision.
    pub async fn put(&self, name: &str, value: &str) -> i64 {
        let response = self.try_put(put(self.key(name), value)).await.unwrap();
        response.header.unwrap().revision
    }

    pub async fn put_leased(&self, name: &str, lease: i64) -> i64 {
        let request = PutRequest {
            lease,
            ..put(self.key(name), "leased")
        };
        self.try_put(request).await.unwrap().header.unwrap().revision
    }

    pub async fn get(&self, name: &str) -> Option<KeyValue> {
        self.range(RangeRequest {
            key: self.key(name),
            ..RangeRequest::default()
        })
        .await
        .kvs
        .pop()
    }

    pub async fn range(&self, request: RangeRequest) -> RangeResponse {
        self.try_range(request).await.unwrap()
    }

    /// All of this check's keys, by any further wishes in `request`.
    pub async fn list(&self, request: RangeRequest) -> RangeResponse {
        let (key, range_end) = self.all();
        self.range(RangeRequest {
            key,
            range_end,
            ..request
        })
        .await
    }

    pub async fn delete(&self, name: &str) -> i64 {
        let request = DeleteRangeRequest {
            key: self.key(name),
            ..DeleteRangeRequest::default()
        };
        self.try_delete(request).await.unwrap().header.unwrap().revision
    }

    pub async fn txn(&self, request: TxnRequest) -> TxnResponse {
        self.try_txn(request).await.unwrap()
    }

    /// The store's revision now.
    pub async fn revision(&self) -> i64 {
        self.range(RangeRequest {
            key: self.key("?"),
            ..RangeRequest::default()
        })
        .await
        .header
        .unwrap()
        .revision
    }

    pub async fn compact(&self, revision: i64) {
        let request = CompactionRequest {
            revision,
            physical: true,
        };
        self.kv().compact(request).await.unwrap();
    }

    pub async fn grant(&self, ttl: i64) -> i64 {
        let request = LeaseGrantRequest { ttl, id: 0 };
        self.lease().lease_grant(request).await.unwrap().into_inner().id
    }

    pub async fn revoke(&self, id: i64) -> i64 {
        let response = self
            .lease()
            .lease_revoke(LeaseRevokeRequest { id })
            .await
            .unwrap();
        response.into_inner().header.unwrap().revision
    }
}

/// The end of the range of all keys that begin with `prefix`.
pub fn prefix_end(prefix: &[u8]) -> Bytes {
    let mut end = prefix.to_vec();
    *end.last_mut().expect("a prefix") += 1;
    end.into()
}

pub fn put(key: Bytes, value: &str) -> PutRequest {
    PutRequest {
        key,
        value: Bytes::copy_from_slice(value.as_bytes()),
        ..PutRequest::default()
    }
}

pub fn op_put(key: Bytes, value: &str) -> RequestOp {
    RequestOp {
        request: Some(Request::RequestPut(put(key, value))),
    }
}

pub fn op_get(key: Bytes) -> RequestOp {
    op_range(RangeRequest {
        key,
        ..RangeRequest::default()
    })
}

pub fn op_range(request: RangeRequest) -> RequestOp {
    RequestOp {
        request: Some(Request::RequestRange(request)),
    }
}

pub fn op_delete(key: Bytes) -> RequestOp {
    op_delete_range(key, Bytes::new())
}

pub fn op_delete_range(key: Bytes, range_end: Bytes) -> RequestOp {
    let request = DeleteRangeRequest {
        key,
        range_end,
        ..DeleteRangeRequest::default()
    };
    RequestOp {
        request: Some(Request::RequestDeleteRange(request)),
    }
}

pub fn op_txn(request: TxnRequest) -> RequestOp {
    RequestOp {
        request: Some(Request::RequestTxn(request)),
    }
}

/// A txn without compares, which therefore succeeds.
pub fn always(success: Vec<RequestOp>) -> TxnRequest {
    TxnRequest {
        success,
        ..TxnRequest::default()
    }
}

pub fn compare(key: Bytes, result: CompareResult, union: TargetUnion) -> Compare {
    let target = match union {
        TargetUnion::Version(_) => CompareTarget::Version,
        TargetUnion::CreateRevision(_) => CompareTarget::Create,
        TargetUnion::ModRevision(_) => CompareTarget::Mod,
        TargetUnion::Value(_) => CompareTarget::Value,
        TargetUnion::Lease(_) => CompareTarget::Lease,
    };
    Compare {
        result: result as i32,
        target: target as i32,
        key,
        range_end: Bytes::new(),
        target_union: Some(union),
    }
}

/// What a Kubernetes apiserver guards its writes with.
pub fn unchanged_since(key: Bytes, mod_revision: i64) -> Compare {
    compare(key, CompareResult::Equal, TargetUnion::ModRevision(mod_revision))
}

#[track_caller]
pub fn assert_refused<T: std::fmt::Debug>(outcome: Result<T, Status>, code: Code, text: &str) {
    let status = outcome.expect_err(text);
    assert_eq!((status.code(), status.message()), (code, text));
}

/// The names of keys without their check's prefix.
pub fn names(target: &Target, kvs: &[KeyValue]) -> Vec<String> {
    let prefix = target.key("").len();
    kvs.iter()
        .map(|kv| String::from_utf8(kv.key[prefix..].to_vec()).unwrap())
        .collect()
}
