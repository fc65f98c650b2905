//! What every gRPC service shares at its edge: admission, counting, and errors put into etcd's words.

use std::{
    convert::Infallible,
    future::Future,
    pin::Pin,
    sync::atomic::Ordering::Relaxed,
    task::{Context, Poll},
};

use futures_util::future::BoxFuture;
use http::HeaderMap;
use tonic::{Code, Request, Response, Status, body::Body, metadata::MetadataMap, server::NamedService};
use tower::Service;

use crate::{Error, Method, errors, server::Shared};

impl Shared {
    /// Answers a unary request: admits it, runs it, counts it.
    pub(crate) async fn unary<Q, A, F>(
        &self,
        method: Method,
        request: Request<Q>,
        run: impl FnOnce(Q) -> F,
    ) -> Result<Response<A>, Status>
    where
        F: Future<Output = Result<A, Error>>,
    {
        let outcome = match self.admit(request.metadata()) {
            Ok(()) => run(request.into_inner()).await,
            Err(error) => Err(error),
        };
        match outcome {
            Ok(answer) => {
                self.metrics.handled(method, Code::Ok);
                Ok(Response::new(answer))
            }
            Err(error) => {
                self.metrics.handled(method, error.code());
                if let Error::Internal { detail } = &error {
                    tracing::error!(?method, detail, "a request failed");
                }
                Err(error.into())
            }
        }
    }

    /// A client that asks for it is refused while there is no leader.
    pub(crate) fn admit(&self, metadata: &MetadataMap) -> Result<(), Error> {
        if requires_leader(metadata) && !self.has_leader() {
            return Err(Error::NoLeader);
        }
        Ok(())
    }

    /// A learner answers Status and serializable ranges, and nothing else. Once a voter, a member never is one
    /// again, so only those that are not yet voters look at the membership.
    pub(crate) fn refuse_on_learner(&self) -> Result<(), Error> {
        if self.votes.load(Relaxed) {
            return Ok(());
        }
        let me = self.member_id;
        let members = self.replica.members();
        let Some(member) = members.iter().find(|member| member.id.0 == me) else {
            return Ok(());
        };
        if member.is_learner {
            return Err(Error::NotSupportedForLearner);
        }
        self.votes.store(true, Relaxed);
        Ok(())
    }

    /// Resolves with the reason when a stream must end: the server stops, or the leader that its client asked
    /// for is gone.
    pub(crate) fn stream_end(&self, metadata: &MetadataMap) -> Result<BoxFuture<'static, Error>, Error> {
        self.admit(metadata)?;
        self.refuse_on_learner()?;
        let stopping = self.stopping.clone().cancelled_owned();
        if !requires_leader(metadata) {
            return Ok(Box::pin(async move {
                stopping.await;
                Error::Stopped
            }));
        }
        let mut quorum = self.quorum.clone();
        let before = quorum.borrow().losses;
        Ok(Box::pin(async move {
            tokio::select! {
                () = stopping => Error::Stopped,
                lost = quorum.wait_for(|now| now.losses > before) => match lost {
                    Ok(_) => Error::NoLeader,
                    Err(_) => Error::Stopped,
                },
            }
        }))
    }
}

fn requires_leader(metadata: &MetadataMap) -> bool {
    metadata
        .get("hasleader")
        .is_some_and(|value| value.as_bytes() == b"true")
}

/// Wraps a service so that tonic's own refusals read as etcd's clients expect them.
#[derive(Clone)]
pub(crate) struct Front<S>(pub S);

impl<S: NamedService> NamedService for Front<S> {
    const NAME: &'static str = S::NAME;
}

impl<S> Service<http::Request<Body>> for Front<S>
where
    S: Service<http::Request<Body>, Response = http::Response<Body>, Error = Infallible>,
    S::Future: Unpin,
{
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = FrontFuture<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.0.poll_ready(cx)
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        FrontFuture(self.0.call(request))
    }
}

pub(crate) struct FrontFuture<F>(F);

impl<F> Future for FrontFuture<F>
where
    F: Future<Output = Result<http::Response<Body>, Infallible>> + Unpin,
{
    type Output = Result<http::Response<Body>, Infallible>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.0)
            .poll(cx)
            .map_ok(|response| match refusal(response.headers()) {
                Some(status) => status.into_http(),
                None => response,
            })
    }
}

/// An answer that is all headers is a refusal; one of them needs other words.
fn refusal(headers: &HeaderMap) -> Option<Status> {
    headers
        .get(Status::GRPC_STATUS)
        .filter(|code| code.as_bytes() == b"11")?;
    errors::oversized_message(&Status::from_header_map(headers)?)
}
