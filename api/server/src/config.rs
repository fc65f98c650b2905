//! What the API server needs to be told at start.

use std::{collections::HashMap, time::Duration};

use crate::authn::User;

#[derive(Debug, Clone)]
pub struct ApiConfig {
    /// kube-apiserver's `--max-requests-inflight` and `--max-mutating-requests-inflight`.
    pub max_requests_inflight: usize,
    pub max_mutating_requests_inflight: usize,
    /// Watches open at once; one more is refused.
    pub max_watches: usize,
    /// kube-apiserver's `--request-timeout`; watches are not under it.
    pub request_timeout: Duration,
    /// kube-apiserver's `--min-request-timeout`: a watch that names no timeout lasts this long, up to twice.
    pub min_watch_timeout: Duration,
    /// How long an event is kept.
    pub event_ttl: Duration,
    /// How often a watch that allows bookmarks gets one.
    pub bookmark_interval: Duration,
    /// Bearer tokens and whom they stand for.
    pub tokens: HashMap<String, User>,
    /// The network and prefix length that cluster IPs of services are taken from.
    pub service_cidr: (std::net::Ipv4Addr, u8),
}

impl Default for ApiConfig {
    fn default() -> Self {
        Self {
            max_requests_inflight: 400,
            max_mutating_requests_inflight: 200,
            max_watches: 20_000,
            request_timeout: Duration::from_secs(60),
            min_watch_timeout: Duration::from_secs(1800),
            event_ttl: Duration::from_secs(3600),
            bookmark_interval: Duration::from_secs(60),
            tokens: HashMap::new(),
            service_cidr: (std::net::Ipv4Addr::new(10, 96, 0, 0), 12),
        }
    }
}

/// The largest request body, in bytes.
pub const MAX_BODY_BYTES: usize = 3 * 1024 * 1024;
