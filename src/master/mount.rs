//! The two faces of the keyspace over one replica: the one file that knows both servers.

use barque_apiserver::{ApiConfig, ApiServer, PeerCertificate, User};
use barque_etcd::{EtcdConfig, EtcdServer};
use barque_replica::Replica;

use super::{config::Config, listener::Remote, tokens::Holder};

/// The keys of the Kubernetes API. Through the etcd API they are read only, unless a flag says otherwise.
const API_PREFIX: &[u8] = b"/registry/";

/// The etcd v3 services.
pub fn etcd(replica: &Replica, config: &Config) -> EtcdServer {
    let api_owns_its_keys = config.api.as_ref().is_some_and(|api| !api.allow_etcd_writes);
    let config = EtcdConfig {
        max_txn_ops: config.limits.max_txn_ops,
        max_request_bytes: config.limits.max_request_bytes,
        watch_progress_notify_interval: config.limits.watch_progress_notify_interval,
        election_timeout: config.election_timeout,
        quota_backend_bytes: config.limits.quota_backend_bytes,
        protected_prefix: api_owns_its_keys.then(|| API_PREFIX.into()),
        ..EtcdConfig::default()
    };
    EtcdServer::new(replica.clone(), config)
}

/// The Kubernetes API, when it is on.
pub fn api(replica: &Replica, config: &Config) -> Option<ApiServer> {
    let api = config.api.as_ref()?;
    let user = |holder: &Holder| User {
        name: holder.name.clone(),
        groups: holder.groups.clone(),
    };
    let config = ApiConfig {
        tokens: api
            .tokens
            .iter()
            .map(|(token, holder)| (token.clone(), user(holder)))
            .collect(),
        ..ApiConfig::default()
    };
    Some(ApiServer::new(replica.clone(), config))
}

/// What the Kubernetes API learns of the connection that a request came on.
pub fn identify(extensions: &mut http::Extensions, remote: &Remote) {
    if let Some(certificate) = &remote.certificate {
        extensions.insert(PeerCertificate(certificate.to_vec()));
    }
}
