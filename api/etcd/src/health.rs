//! `grpc.health.v1`: the whole server (the empty name) is serving while it has a leader and is not stopping.

use std::{pin::Pin, sync::Arc};

use barque_proto::health::{
    HealthCheckRequest, HealthCheckResponse, health_check_response::ServingStatus, health_server::Health,
};
use futures_util::{Stream, stream};
use tonic::{Request, Response, Status};

use crate::{Error, EtcdServer, server::Shared};

impl Shared {
    fn serving(&self) -> ServingStatus {
        if self.stopping.is_cancelled() || !self.has_leader() {
            ServingStatus::NotServing
        } else {
            ServingStatus::Serving
        }
    }
}

fn response(status: ServingStatus) -> HealthCheckResponse {
    HealthCheckResponse {
        status: status.into(),
    }
}

/// Says the status at once, and again whenever it changes.
struct HealthStream {
    shared: Arc<Shared>,
    known: bool,
    said: Option<ServingStatus>,
}

impl HealthStream {
    async fn next(mut self) -> Option<(Result<HealthCheckResponse, Status>, Option<Self>)> {
        let mut leadership = self.shared.leadership.clone();
        let mut quorum = self.shared.quorum.clone();
        let stopping = self.shared.stopping.clone();
        loop {
            leadership.mark_unchanged();
            quorum.mark_unchanged();
            let now = if self.known {
                self.shared.serving()
            } else {
                ServingStatus::ServiceUnknown
            };
            if self.said != Some(now) {
                self.said = Some(now);
                return Some((Ok(response(now)), Some(self)));
            }
            tokio::select! {
                () = stopping.cancelled() => return Some((Err(Error::Stopped.into()), None)),
                changed = leadership.changed() => changed.ok()?,
                changed = quorum.changed() => changed.ok()?,
            }
        }
    }
}

#[tonic::async_trait]
impl Health for EtcdServer {
    type WatchStream = Pin<Box<dyn Stream<Item = Result<HealthCheckResponse, Status>> + Send>>;

    async fn check(
        &self,
        request: Request<HealthCheckRequest>,
    ) -> Result<Response<HealthCheckResponse>, Status> {
        if !request.get_ref().service.is_empty() {
            return Err(Error::UnknownService.into());
        }
        Ok(Response::new(response(self.shared.serving())))
    }

    async fn watch(
        &self,
        request: Request<HealthCheckRequest>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        let known = request.get_ref().service.is_empty();
        let state = HealthStream {
            shared: Arc::clone(&self.shared),
            known,
            said: None,
        };
        let answers = stream::unfold(Some(state), |state: Option<HealthStream>| async move {
            state?.next().await
        });
        Ok(Response::new(Box::pin(answers)))
    }
}
