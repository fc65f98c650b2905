//! The API server: its state, its router, and the chain that every request goes through.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use axum::{Router, body::Body};
use barque_machinery::{gvk::GroupResource, status::Status};
use barque_replica::Replica;
use http::{Request, Response, StatusCode, request::Parts};
use time::OffsetDateTime;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    authn::{self, PeerCertificate, User},
    authz,
    background::{self, StartError},
    config::ApiConfig,
    discovery, handlers, health,
    inflight::{Admission, Inflight},
    metrics::ApiMetrics,
    openapi,
    query::Query,
    registry::Registry,
    request::ApiRequest,
    request_info::{RequestInfo, ResourceTarget, Target},
    resources, respond,
    storage::Storage,
    version,
};

/// A handle; cheap to clone.
#[derive(Clone)]
pub struct ApiServer {
    server: Arc<Server>,
    tasks: TaskTracker,
}

/// What handlers share.
pub struct Server {
    pub registry: Registry,
    pub config: ApiConfig,
    pub metrics: Arc<ApiMetrics>,
    pub shutdown: CancellationToken,
    inflight: Inflight,
    owns_prefix: AtomicBool,
}

impl ApiServer {
    pub fn new(replica: Replica, config: ApiConfig) -> Self {
        Self::with_clock(replica, config, Arc::new(OffsetDateTime::now_utc))
    }

    /// `now`: what creation timestamps and ages are taken from.
    pub fn with_clock(
        replica: Replica,
        config: ApiConfig,
        now: Arc<dyn Fn() -> OffsetDateTime + Send + Sync>,
    ) -> Self {
        let storage = Storage::new(replica, config.event_ttl);
        let server = Server {
            registry: Registry::new(storage, config.service_cidr, now),
            inflight: Inflight::new(&config),
            config,
            metrics: Arc::default(),
            shutdown: CancellationToken::new(),
            owns_prefix: AtomicBool::new(false),
        };
        Self {
            server: Arc::new(server),
            tasks: TaskTracker::new(),
        }
    }

    /// Serves everything of the Kubernetes API. The TLS acceptor adds a [`PeerCertificate`] to the extensions of
    /// requests whose client showed one.
    pub fn router(&self) -> Router {
        let server = self.server.clone();
        Router::new().fallback(move |request: Request<Body>| serve(server.clone(), request))
    }

    /// Claims the prefix, then starts the leader's chores. Until this has returned, requests are answered 503.
    /// While the cluster has no leader it goes on trying; another error means that the API must not be served.
    pub async fn run_background(&self) -> Result<(), StartError> {
        let mut pause = background::Backoff::default();
        loop {
            let claimed = tokio::select! {
                () = self.server.shutdown.cancelled() => return Ok(()),
                claimed = background::claim_prefix(self.server.registry.storage()) => claimed,
            };
            match claimed {
                Ok(()) => break,
                Err(StartError::Storage(status)) if matches!(status.code, 429 | 503 | 504) => {
                    pause.wait().await
                }
                Err(error) => return Err(error),
            }
        }
        self.server.owns_prefix.store(true, Ordering::Release);
        let replica = self.server.registry.storage().replica();
        let chores = background::lead(self.server.clone());
        self.tasks
            .spawn(replica.guarded("of the leader's chores", chores));
        Ok(())
    }

    /// Ends open watches and the chores, and waits for the chores.
    pub async fn shutdown(&self) {
        self.server.shutdown.cancel();
        self.tasks.close();
        self.tasks.wait().await;
    }

    pub fn is_ready(&self) -> bool {
        self.server.is_ready()
    }

    pub fn metrics(&self) -> &Arc<ApiMetrics> {
        &self.server.metrics
    }

    /// Watches open now.
    pub fn watches(&self) -> usize {
        self.server.inflight.watches()
    }
}

impl Server {
    pub fn is_ready(&self) -> bool {
        self.owns_prefix.load(Ordering::Acquire) && self.registry.storage().replica().is_ready()
    }

    pub fn has_leader(&self) -> bool {
        self.registry
            .storage()
            .replica()
            .leadership()
            .borrow()
            .leader
            .is_some()
    }
}

async fn serve(server: Arc<Server>, request: Request<Body>) -> Response<Body> {
    let response = match answer(&server, request).await {
        Ok(response) => response,
        Err(status) => {
            if status.code >= 500 {
                tracing::warn!(code = status.code, %status, "request failed");
            }
            respond::status(&status)
        }
    };
    server.metrics.count(response.status().as_u16());
    response
}

/// Who asks, may he, is there room; then the path's or the verb's handler.
async fn answer(server: &Arc<Server>, request: Request<Body>) -> Result<Response<Body>, Status> {
    let (parts, body) = request.into_parts();
    let query = Query::parse(&parts.uri)?;
    let info = RequestInfo::parse(&parts.method, parts.uri.path(), query.flag("watch"));
    let certificate = parts.extensions.get::<PeerCertificate>();
    let now = server.registry.now();
    let user = authn::authenticate(certificate, &parts.headers, &server.config.tokens, now)?;
    authz::authorize(&user, &info)?;
    let Target::Resource(target) = info.target.clone() else {
        return answer_path(server, &info.path, &parts, &query);
    };
    if !server.is_ready() {
        return Err(Status::service_unavailable("the API server is starting").retry_after(1));
    }
    let admission = server.inflight.admit(&info)?;
    let work = answer_resource(server, &info, target, user, query, parts, body, admission);
    if info.is_watch() {
        return work.await;
    }
    match tokio::time::timeout(server.config.request_timeout, work).await {
        Ok(result) => result,
        Err(_) => Err(Status::timeout(
            "request did not complete within the allotted timeout",
        )),
    }
}

fn answer_path(
    server: &Arc<Server>,
    path: &str,
    parts: &Parts,
    query: &Query,
) -> Result<Response<Body>, Status> {
    if !matches!(parts.method.as_str(), "GET" | "HEAD") {
        return Err(Status::method_not_allowed());
    }
    if path == "/version" || path == "/version/" {
        return Ok(respond::json(StatusCode::OK, &version::version_info()));
    }
    if let Some(response) = health::answer(server, path, query) {
        return Ok(response);
    }
    let found = discovery::answer(path, &parts.headers).or_else(|| openapi::answer(path, &parts.headers));
    found.unwrap_or_else(|| Err(Status::unknown_path()))
}

#[allow(
    clippy::too_many_arguments,
    reason = "the parts of one request, taken apart once"
)]
async fn answer_resource(
    server: &Arc<Server>,
    info: &RequestInfo,
    target: ResourceTarget,
    user: User,
    query: Query,
    parts: Parts,
    body: Body,
    admission: Admission,
) -> Result<Response<Body>, Status> {
    if discovery::is_review(&target.group, &target.version, &target.resource) {
        if info.verb != "create" {
            let resource = GroupResource::new(&target.group, &target.resource);
            return Err(Status::method_not_supported(&resource, info.verb));
        }
        return handlers::review(&target, &user, &parts.headers, body).await;
    }
    let resource = resources::find(&target.group, &target.version, &target.resource);
    let resource = resource.ok_or_else(Status::unknown_path)?;
    let in_namespace = !target.namespace.is_empty() && target.resource != "namespaces";
    if in_namespace && !resource.namespaced
        || (!target.name.is_empty() && resource.namespaced && !in_namespace)
    {
        return Err(Status::unknown_path());
    }
    let request = ApiRequest {
        target,
        resource,
        query,
        headers: parts.headers,
        body,
    };
    handlers::dispatch(server, request, info.verb, admission).await
}
