//! An API server over a single-member replica, called through its router; and watches opened on it.

use std::{net::TcpListener, path::Path, sync::Arc, time::Duration};

use axum::{Router, body::Body};
use barque_apiserver::{ApiConfig, ApiServer, User};
use barque_replica::{MemberConfig, RealHost, Replica, ReplicaConfig, WalConfig};
use barque_store::StoreConfig;
use http::{HeaderMap, Method, Request, StatusCode};
use http_body_util::BodyExt;
use serde_json::{Value, json};
use tempfile::TempDir;
use tower::Service;

pub struct Api {
    pub server: ApiServer,
    pub replica: Replica,
    router: Router,
    _dir: TempDir,
}

pub struct Answer {
    pub code: StatusCode,
    pub headers: HeaderMap,
    pub body: Value,
}

impl Api {
    /// A fresh cluster of one, with its first namespaces.
    pub async fn start() -> Self {
        Self::start_with(ApiConfig::default()).await
    }

    pub async fn start_with(mut config: ApiConfig) -> Self {
        let dir = TempDir::new().expect("a temporary directory");
        let replica = start_replica(dir.path()).await;
        for (token, groups) in [("root", vec!["system:masters"]), ("jane", vec![])] {
            let groups = groups.into_iter().map(str::to_owned).collect();
            config.tokens.insert(
                token.into(),
                User {
                    name: token.into(),
                    groups,
                },
            );
        }
        let server = ApiServer::new(replica.clone(), config);
        server.run_background().await.expect("the prefix is free");
        let api = Self {
            router: server.router(),
            server,
            replica,
            _dir: dir,
        };
        api.wait_for_namespace("kube-node-lease").await;
        api
    }

    pub fn router(&self) -> Router {
        self.router.clone()
    }

    async fn wait_for_namespace(&self, name: &str) {
        let mut watch = self.watch("/api/v1/namespaces?watch=true").await;
        while watch.next().await["object"]["metadata"]["name"] != name {}
    }

    pub async fn get(&self, path: &str) -> Answer {
        self.send(Method::GET, path, &[], None).await
    }

    pub async fn post(&self, path: &str, body: Value) -> Answer {
        self.send(Method::POST, path, &[], Some(body.to_string())).await
    }

    pub async fn put(&self, path: &str, body: Value) -> Answer {
        self.send(Method::PUT, path, &[], Some(body.to_string())).await
    }

    pub async fn delete(&self, path: &str) -> Answer {
        self.send(Method::DELETE, path, &[], None).await
    }

    /// `kind`: `json`, `merge`, `strategic-merge`.
    pub async fn patch(&self, path: &str, kind: &str, body: Value) -> Answer {
        let content_type = format!("application/{kind}-patch+json");
        self.send(
            Method::PATCH,
            path,
            &[("content-type", &content_type)],
            Some(body.to_string()),
        )
        .await
    }

    pub async fn send(
        &self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: Option<String>,
    ) -> Answer {
        let body = Body::from(body.unwrap_or_default());
        answer_of(self.response(method, path, headers, body).await).await
    }

    pub async fn post_bytes(&self, path: &str, content_type: &str, body: Vec<u8>) -> Answer {
        let headers = [("content-type", content_type)];
        answer_of(self.response(Method::POST, path, &headers, body.into()).await).await
    }

    async fn response(
        &self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: Body,
    ) -> http::Response<Body> {
        let mut request = Request::builder().method(method).uri(path);
        if !headers.iter().any(|(name, _)| *name == "authorization") {
            request = request.header("authorization", "Bearer root");
        }
        for (name, value) in headers.iter().filter(|(_, value)| !value.is_empty()) {
            request = request.header(*name, *value);
        }
        let request = request.body(body).expect("a request");
        self.router
            .clone()
            .call(request)
            .await
            .expect("routers do not fail")
    }

    pub async fn watch(&self, path: &str) -> Watch {
        self.watch_with(path, &[]).await
    }

    pub async fn watch_with(&self, path: &str, headers: &[(&str, &str)]) -> Watch {
        let response = self.response(Method::GET, path, headers, Body::empty()).await;
        assert_eq!(response.status(), StatusCode::OK, "{path}");
        Watch {
            body: response.into_body(),
            buffer: Vec::new(),
        }
    }

    pub async fn create_config_map(&self, name: &str, labels: Value) -> Value {
        let object = json!({ "metadata": { "name": name, "labels": labels }, "data": { "k": "v" } });
        let answer = self.post("/api/v1/namespaces/default/configmaps", object).await;
        assert_eq!(answer.code, StatusCode::CREATED, "{}", answer.body);
        answer.body
    }
}

async fn answer_of(response: http::Response<Body>) -> Answer {
    let (parts, body) = response.into_parts();
    let bytes = body.collect().await.expect("a whole body").to_bytes();
    let text = String::from_utf8_lossy(&bytes).into_owned();
    let body = serde_json::from_slice(&bytes).unwrap_or(Value::String(text));
    Answer {
        code: parts.status,
        headers: parts.headers,
        body,
    }
}

pub async fn start_replica(dir: &Path) -> Replica {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let url = format!("http://{}", listener.local_addr().expect("an address"));
    let config = ReplicaConfig {
        name: "m0".into(),
        data_dir: dir.to_owned(),
        store: StoreConfig {
            dir: dir.join("state"),
            ring_bytes: 8 << 20,
            block_cache_bytes: 32 << 20,
            quota_backend_bytes: 0,
        },
        log: WalConfig::default(),
        host: Arc::new(RealHost),
        initial_cluster: vec![MemberConfig {
            name: "m0".into(),
            peer_urls: vec![url],
        }],
        initial_cluster_token: "test".into(),
        new_cluster: true,
        advertise_client_urls: Vec::new(),
        peer_listeners: vec![listener],
        tls: None,
        heartbeat_interval: Duration::from_millis(100),
        election_timeout: Duration::from_millis(1000),
        snapshot_entries: 100_000,
        snapshot_bytes: 1 << 30,
        snapshot_bytes_per_second: 0,
        max_batch_bytes: 4 << 20,
        request_timeout: Duration::from_secs(20),
        scrub_every: Duration::ZERO,
        lease_checkpoint_interval: barque_replica::LEASE_CHECKPOINT_INTERVAL,
    };
    Replica::start(config).await.expect("a replica")
}

/// A watch's frames, one by one.
pub struct Watch {
    body: Body,
    buffer: Vec<u8>,
}

impl Watch {
    pub async fn next(&mut self) -> Value {
        self.try_next().await.expect("the watch goes on")
    }

    /// `None`: the watch has ended.
    pub async fn try_next(&mut self) -> Option<Value> {
        loop {
            if let Some(end) = self.buffer.iter().position(|b| *b == b'\n') {
                let line: Vec<u8> = self.buffer.drain(..=end).collect();
                return Some(serde_json::from_slice(&line).expect("a frame is JSON"));
            }
            let frame = self.body.frame().await?.expect("a frame");
            if let Ok(data) = frame.into_data() {
                self.buffer.extend_from_slice(&data);
            }
        }
    }

    /// Type, name and resourceVersion of the next frame.
    pub async fn event(&mut self) -> (String, String, i64) {
        let frame = self.next().await;
        let text = |v: &Value| v.as_str().unwrap_or_default().to_owned();
        let metadata = &frame["object"]["metadata"];
        (
            text(&frame["type"]),
            text(&metadata["name"]),
            version(&frame["object"]),
        )
    }
}

pub fn version(object: &Value) -> i64 {
    object["metadata"]["resourceVersion"]
        .as_str()
        .and_then(|v| v.parse().ok())
        .unwrap_or(0)
}

pub fn pod(name: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": { "name": name, "labels": { "app": "web" } },
        "spec": { "containers": [{ "name": "c", "image": "i:1" }] },
    })
}
