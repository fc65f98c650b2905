//! Peers over mutual TLS, and who is kept out by it.

use std::sync::Arc;

use barque_replica::{PeerTls, ReadBarrierError};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::{
    RootCertStore,
    pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer},
    server::WebPkiClientVerifier,
};

use crate::cluster::{Cluster, local, read, write, write_until_acknowledged};

struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
}

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Self {
            issuer: CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap(),
        }
    }

    fn roots(&self) -> RootCertStore {
        let mut roots = RootCertStore::empty();
        roots.add(self.issuer.der().clone()).unwrap();
        roots
    }

    fn peer(&self) -> PeerTls {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec!["127.0.0.1".into()]).unwrap();
        let chain = vec![params.signed_by(&key, &self.issuer).unwrap().der().clone()];
        let key = || PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(self.roots()), provider.clone())
            .build()
            .unwrap();
        let server = rustls::ServerConfig::builder_with_provider(provider.clone())
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_client_cert_verifier(verifier)
            .with_single_cert(chain.clone(), key())
            .unwrap();
        let client = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(self.roots())
            .with_client_auth_cert(chain, key())
            .unwrap();
        PeerTls {
            server: Arc::new(server),
            client: Arc::new(client),
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn peers_of_one_authority_form_a_cluster_and_others_stay_outside() {
    let mut cluster = Cluster::with_scheme(3, "https");
    let (ours, theirs) = (Authority::new(), Authority::new());
    cluster.tls = vec![Some(ours.peer()), Some(ours.peer()), Some(ours.peer())];
    cluster.start_all().await;
    write(cluster.replica(0), "a", "1").await.unwrap();
    assert_eq!(read(cluster.replica(1), "a").await.as_deref(), Some("1"));

    cluster.kill(2).await;
    write_until_acknowledged(cluster.replica(0), "b", "2").await;
    cluster.tls[2] = Some(theirs.peer());
    cluster.start(2).await;
    let outside = cluster.replica(2).read_barrier().await;
    assert!(matches!(outside, Err(ReadBarrierError::NoLeader)), "{outside:?}");
    assert!(cluster.replica(2).leadership().borrow().leader.is_none());
    assert_eq!(local(cluster.replica(2), "b"), None);

    cluster.kill(2).await;
    cluster.tls[2] = Some(ours.peer());
    cluster.start(2).await;
    cluster.ready(2).await;
    assert_eq!(read(cluster.replica(2), "b").await.as_deref(), Some("2"));
}
