//! The Watch service: one bidirectional stream of watchers, without a task or a channel of its own.
//!
//! The connection polls the response stream ([`stream::WatchStream`]) when it can send; that poll takes in the
//! client's requests and drains the hub. A client that does not read is therefore not drained for: it costs its
//! cursor. Events leave as the bytes that were encoded once for all watchers ([`frame`]).

mod codec;
mod frame;
mod outbox;
mod progress;
mod registry;
mod stream;

use std::{
    convert::Infallible,
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use barque_proto::etcd::etcdserverpb::WatchRequest;
use tonic::{
    Request, Response, Status, Streaming,
    body::Body,
    server::{Grpc, NamedService, StreamingService},
};
use tower::Service;

pub(crate) use self::stream::WatchStream;
use self::{codec::WatchCodec, frame::Frame};
use crate::{Method, server::Shared};

/// The gRPC service by hand: the generated one would take responses as structures and encode them per watcher.
#[derive(Clone)]
pub(crate) struct WatchService {
    shared: Arc<Shared>,
}

impl WatchService {
    pub fn new(shared: Arc<Shared>) -> Self {
        Self { shared }
    }

    fn open(
        &self,
        request: Request<Streaming<WatchRequest>>,
    ) -> Result<WatchStream<Streaming<WatchRequest>>, Status> {
        let end = self.shared.stream_end(request.metadata()).inspect_err(|error| {
            self.shared.metrics.handled(Method::Watch, error.code());
        })?;
        Ok(WatchStream::new(
            Arc::clone(&self.shared),
            request.into_inner(),
            end,
        ))
    }
}

impl NamedService for WatchService {
    const NAME: &'static str = "etcdserverpb.Watch";
}

impl Service<http::Request<Body>> for WatchService {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<http::Response<Body>, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        if request.uri().path() != "/etcdserverpb.Watch/Watch" {
            let unknown = Status::unimplemented("unknown method of etcdserverpb.Watch");
            return Box::pin(std::future::ready(Ok(unknown.into_http())));
        }
        let opener = Opener(self.clone());
        let limit = self.shared.config.max_message_bytes();
        Box::pin(async move {
            let mut grpc = Grpc::new(WatchCodec).max_decoding_message_size(limit);
            Ok(grpc.streaming(opener, request).await)
        })
    }
}

struct Opener(WatchService);

impl StreamingService<WatchRequest> for Opener {
    type Response = Frame;
    type ResponseStream = WatchStream<Streaming<WatchRequest>>;
    type Future = std::future::Ready<Result<Response<Self::ResponseStream>, Status>>;

    fn call(&mut self, request: Request<Streaming<WatchRequest>>) -> Self::Future {
        std::future::ready(self.0.open(request).map(Response::new))
    }
}
