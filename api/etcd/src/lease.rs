//! The Lease service: grants and revocations are commands, time is the leader's.

use std::{pin::Pin, sync::Arc, sync::atomic::Ordering::Relaxed};

use barque_proto::{
    command::{self, command::Op},
    etcd::etcdserverpb::{
        LeaseGrantRequest, LeaseGrantResponse, LeaseKeepAliveRequest, LeaseKeepAliveResponse,
        LeaseLeasesRequest, LeaseLeasesResponse, LeaseRevokeRequest, LeaseRevokeResponse, LeaseStatus,
        LeaseTimeToLiveRequest, LeaseTimeToLiveResponse, lease_server::Lease,
    },
};
use barque_replica::KeepAlive;
use barque_store::{LeaseId, Response};
use futures_util::{Stream, StreamExt, future::BoxFuture, stream};
use tonic::{Code, Request, Status, Streaming};

use crate::{Error, EtcdServer, Method, server::Shared, translate};

/// etcd's largest TTL, in seconds.
const MAX_LEASE_TTL_S: i64 = 9_000_000_000;

impl Shared {
    async fn lease_grant(&self, request: LeaseGrantRequest) -> Result<LeaseGrantResponse, Error> {
        self.refuse_on_learner()?;
        if request.ttl > MAX_LEASE_TTL_S {
            return Err(Error::LeaseTtlTooLarge);
        }
        let id = match request.id {
            0 => rand::random_range(1..=i64::MAX),
            given => given,
        };
        let op = Op::LeaseGrant(command::LeaseGrant {
            id,
            ttl_s: request.ttl.max(self.config.min_lease_ttl_s()),
        });
        match self.replica.propose(translate::command(op)).await? {
            Response::LeaseGrant(granted) => Ok(LeaseGrantResponse {
                header: Some(self.header(granted.revision)),
                id: granted.id.0,
                ttl: granted.ttl_s,
                error: String::new(),
            }),
            other => translate::unexpected("a lease grant", &other),
        }
    }

    async fn lease_revoke(&self, request: LeaseRevokeRequest) -> Result<LeaseRevokeResponse, Error> {
        self.refuse_on_learner()?;
        self.may_revoke(LeaseId(request.id))?;
        loop {
            let op = Op::LeaseRevoke(command::LeaseRevoke { id: request.id });
            match self.replica.propose(translate::command(op)).await? {
                // It had more keys than one command deletes.
                Response::LeaseRevoke { complete: false, .. } => {}
                Response::LeaseRevoke { revision, .. } => {
                    return Ok(LeaseRevokeResponse {
                        header: Some(self.header(revision)),
                    });
                }
                other => translate::unexpected("a lease revocation", &other),
            }
        }
    }

    /// The header is taken first: its revision must not be later than the renewal, or a client could read of
    /// a revision at which the lease was already revoked beside a TTL that says it lives.
    async fn lease_keep_alive(
        &self,
        request: LeaseKeepAliveRequest,
    ) -> Result<LeaseKeepAliveResponse, Error> {
        let header = self.current_header();
        let ttl = match self.replica.keep_alive(LeaseId(request.id)).await? {
            KeepAlive::Renewed { ttl_s } => ttl_s,
            KeepAlive::NotFound => 0,
        };
        self.metrics.lease_keep_alives.fetch_add(1, Relaxed);
        Ok(LeaseKeepAliveResponse {
            header: Some(header),
            id: request.id,
            ttl,
        })
    }

    async fn lease_time_to_live(
        &self,
        request: LeaseTimeToLiveRequest,
    ) -> Result<LeaseTimeToLiveResponse, Error> {
        self.refuse_on_learner()?;
        let lease = LeaseId(request.id);
        let mut response = LeaseTimeToLiveResponse {
            id: request.id,
            ttl: -1,
            ..Default::default()
        };
        if let Some((granted_s, remaining_s)) = self.replica.time_to_live(lease).await? {
            response.ttl = remaining_s;
            response.granted_ttl = granted_s;
            if request.keys {
                // The leader answered; what it counts as attached may not have been applied here yet.
                self.barrier().await?;
                response.keys = self.replica.store().reader().lease_keys(lease)?;
            }
        }
        response.header = Some(self.current_header());
        Ok(response)
    }

    async fn lease_leases(&self, _: LeaseLeasesRequest) -> Result<LeaseLeasesResponse, Error> {
        self.refuse_on_learner()?;
        self.barrier().await?;
        let leases = self.replica.store().leases()?;
        Ok(LeaseLeasesResponse {
            header: Some(self.current_header()),
            leases: leases
                .into_iter()
                .map(|(lease, ..)| LeaseStatus { id: lease.0 })
                .collect(),
        })
    }
}

type KeepAlives = Pin<Box<dyn Stream<Item = Result<LeaseKeepAliveResponse, Status>> + Send>>;

/// One keep-alive stream: requests are answered one by one, in order.
struct KeepAliveStream {
    shared: Arc<Shared>,
    requests: Streaming<LeaseKeepAliveRequest>,
    end: BoxFuture<'static, Error>,
}

impl KeepAliveStream {
    /// `None` when the client closed its half.
    async fn next(&mut self) -> Option<Result<LeaseKeepAliveResponse, Status>> {
        let answer = async {
            let request = match self.requests.next().await? {
                Ok(request) => request,
                Err(status) => return Some(Err(status)),
            };
            Some(self.shared.lease_keep_alive(request).await.map_err(Status::from))
        };
        let outcome = tokio::select! {
            error = &mut self.end => Some(Err(error.into())),
            answer = answer => answer,
        };
        let code = match &outcome {
            Some(Ok(_)) => return outcome,
            Some(Err(status)) => status.code(),
            None => Code::Ok,
        };
        self.shared.metrics.handled(Method::LeaseKeepAlive, code);
        outcome
    }
}

#[tonic::async_trait]
impl Lease for EtcdServer {
    type LeaseKeepAliveStream = KeepAlives;

    async fn lease_grant(
        &self,
        request: Request<LeaseGrantRequest>,
    ) -> Result<tonic::Response<LeaseGrantResponse>, Status> {
        self.shared
            .unary(Method::LeaseGrant, request, |request| {
                self.shared.lease_grant(request)
            })
            .await
    }

    async fn lease_revoke(
        &self,
        request: Request<LeaseRevokeRequest>,
    ) -> Result<tonic::Response<LeaseRevokeResponse>, Status> {
        self.shared
            .unary(Method::LeaseRevoke, request, |request| {
                self.shared.lease_revoke(request)
            })
            .await
    }

    async fn lease_keep_alive(
        &self,
        request: Request<Streaming<LeaseKeepAliveRequest>>,
    ) -> Result<tonic::Response<KeepAlives>, Status> {
        let end = self.shared.stream_end(request.metadata())?;
        let state = KeepAliveStream {
            shared: Arc::clone(&self.shared),
            requests: request.into_inner(),
            end,
        };
        let answers = stream::unfold(Some(state), |state: Option<KeepAliveStream>| async move {
            let mut state = state?;
            let answer = state.next().await?;
            let state = answer.is_ok().then_some(state);
            Some((answer, state))
        });
        Ok(tonic::Response::new(Box::pin(answers)))
    }

    async fn lease_time_to_live(
        &self,
        request: Request<LeaseTimeToLiveRequest>,
    ) -> Result<tonic::Response<LeaseTimeToLiveResponse>, Status> {
        let run = |request| self.shared.lease_time_to_live(request);
        self.shared.unary(Method::LeaseTimeToLive, request, run).await
    }

    async fn lease_leases(
        &self,
        request: Request<LeaseLeasesRequest>,
    ) -> Result<tonic::Response<LeaseLeasesResponse>, Status> {
        self.shared
            .unary(Method::LeaseLeases, request, |request| {
                self.shared.lease_leases(request)
            })
            .await
    }
}
