//! The KV service's gRPC front.

use barque_proto::etcd::etcdserverpb::{
    CompactionRequest, CompactionResponse, DeleteRangeRequest, DeleteRangeResponse, PutRequest, PutResponse,
    RangeRequest, RangeResponse, TxnRequest, TxnResponse, kv_server::Kv,
};
use tonic::{Request, Response, Status};

use crate::{EtcdServer, Method};

#[tonic::async_trait]
impl Kv for EtcdServer {
    async fn range(&self, request: Request<RangeRequest>) -> Result<Response<RangeResponse>, Status> {
        self.shared
            .unary(Method::Range, request, |request| self.shared.range(request))
            .await
    }

    async fn put(&self, request: Request<PutRequest>) -> Result<Response<PutResponse>, Status> {
        self.shared
            .unary(Method::Put, request, |request| self.shared.put(request))
            .await
    }

    async fn delete_range(
        &self,
        request: Request<DeleteRangeRequest>,
    ) -> Result<Response<DeleteRangeResponse>, Status> {
        self.shared
            .unary(Method::DeleteRange, request, |request| {
                self.shared.delete_range(request)
            })
            .await
    }

    async fn txn(&self, request: Request<TxnRequest>) -> Result<Response<TxnResponse>, Status> {
        self.shared
            .unary(Method::Txn, request, |request| self.shared.txn(request))
            .await
    }

    async fn compact(
        &self,
        request: Request<CompactionRequest>,
    ) -> Result<Response<CompactionResponse>, Status> {
        self.shared
            .unary(Method::Compact, request, |request| self.shared.compact(request))
            .await
    }
}
