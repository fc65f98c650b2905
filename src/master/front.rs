//! What is behind each kind of listener: which server a request goes to.

use std::{
    convert::Infallible,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use bytes::Bytes;
use http::{Request, Response, StatusCode, header};
use http_body::{Frame, SizeHint};
use hyper::body::Incoming;
use prometheus_client::registry::Registry;
use tonic::service::Routes;
use tower::Service;

use super::{
    health::Readiness,
    listener::{Handler, Remote},
    mount,
};
use crate::http_metrics;

/// The etcd client listeners: gRPC, and etcd's HTTP pages.
#[derive(Clone)]
pub struct ClientFront {
    etcd: Routes,
    pages: MetricsFront,
}

impl ClientFront {
    pub fn new(etcd: Routes, pages: MetricsFront) -> Self {
        Self {
            etcd: etcd.prepare(),
            pages,
        }
    }
}

impl Handler for ClientFront {
    async fn handle(&self, request: Request<Incoming>, remote: Remote) -> Response<Body> {
        if !is_grpc(&request) {
            return self.pages.handle(request, remote).await;
        }
        if !self.pages.readiness.is_caught_up() {
            // Definitely not applied, so clients ask again or go elsewhere.
            return tonic::Status::unavailable("etcdserver: no leader")
                .into_http()
                .map(Body::Grpc);
        }
        match self.etcd.clone().call(request).await {
            Ok(response) => response.map(Body::Grpc),
            Err(never) => match never {},
        }
    }
}

/// The Kubernetes API's listeners. That this member should not be used is the process's to say, to anybody.
#[derive(Clone)]
pub struct ApiFront {
    router: axum::Router,
    readiness: Arc<Readiness>,
}

impl ApiFront {
    pub fn new(router: axum::Router, readiness: Arc<Readiness>) -> Self {
        Self { router, readiness }
    }
}

impl Handler for ApiFront {
    async fn handle(&self, mut request: Request<Incoming>, remote: Remote) -> Response<Body> {
        if request.uri().path() == "/readyz"
            && let Some(reasons) = self.readiness.unready_page(request.uri()).await
        {
            return reasons;
        }
        if !self.readiness.is_caught_up() {
            return unavailable();
        }
        mount::identify(request.extensions_mut(), &remote);
        let answer: Result<_, Infallible> =
            self.router.clone().call(request.map(axum::body::Body::new)).await;
        match answer {
            Ok(response) => response.map(Body::Http),
            Err(never) => match never {},
        }
    }
}

/// Health and metrics alone.
#[derive(Clone)]
pub struct MetricsFront {
    readiness: Arc<Readiness>,
    registry: Arc<Registry>,
}

impl MetricsFront {
    pub fn new(readiness: Arc<Readiness>, registry: Arc<Registry>) -> Self {
        Self { readiness, registry }
    }

    fn metrics(&self) -> Response<Body> {
        match http_metrics::render(&self.registry) {
            Ok(text) => page(StatusCode::OK, http_metrics::TEXT_TYPE, text),
            Err(error) => page(StatusCode::INTERNAL_SERVER_ERROR, TEXT, error.to_string()),
        }
    }
}

impl Handler for MetricsFront {
    async fn handle(&self, request: Request<Incoming>, _remote: Remote) -> Response<Body> {
        if request.uri().path() == "/metrics" {
            return self.metrics();
        }
        match self.readiness.etcd_page(request.method(), request.uri()).await {
            Some(page) => page,
            None => page(StatusCode::NOT_FOUND, TEXT, "404 page not found\n".to_owned()),
        }
    }
}

pub const TEXT: &str = "text/plain; charset=utf-8";
pub const JSON: &str = "application/json";

pub fn page(status: StatusCode, content_type: &'static str, text: String) -> Response<Body> {
    let mut response = Response::new(Body::Http(text.into()));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(
        header::CONTENT_TYPE,
        header::HeaderValue::from_static(content_type),
    );
    headers.insert(
        header::X_CONTENT_TYPE_OPTIONS,
        header::HeaderValue::from_static("nosniff"),
    );
    response
}

/// A `metav1.Status`; nothing was done, so clients may come again.
fn unavailable() -> Response<Body> {
    let status = serde_json::json!({
        "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "code": 503,
        "reason": "ServiceUnavailable", "message": "the master is catching up",
    });
    let mut response = page(StatusCode::SERVICE_UNAVAILABLE, JSON, status.to_string());
    response
        .headers_mut()
        .insert(header::RETRY_AFTER, header::HeaderValue::from_static("1"));
    response
}

fn is_grpc(request: &Request<Incoming>) -> bool {
    let content_type = request.headers().get(header::CONTENT_TYPE);
    content_type.is_some_and(|value| value.as_bytes().starts_with(b"application/grpc"))
}

/// Either server's body, without boxing it once more.
pub enum Body {
    Grpc(tonic::body::Body),
    Http(axum::body::Body),
}

impl http_body::Body for Body {
    type Data = Bytes;
    type Error = Box<dyn std::error::Error + Send + Sync>;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Self::Data>, Self::Error>>> {
        match self.get_mut() {
            Body::Grpc(body) => Pin::new(body).poll_frame(cx).map_err(Into::into),
            Body::Http(body) => Pin::new(body).poll_frame(cx).map_err(Into::into),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Body::Grpc(body) => body.is_end_stream(),
            Body::Http(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Body::Grpc(body) => body.size_hint(),
            Body::Http(body) => body.size_hint(),
        }
    }
}
