//! The API on a port of this machine by TLS, and kubeconfigs for it: who a client is, its certificate says.

use std::{net::SocketAddr, path::Path, sync::Arc};

use axum::{Router, body::Body};
use barque_apiserver::PeerCertificate;
use barque_chaos::cluster::{ClientCertificate, Kubectl};
use http::Request;
use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    server::conn::auto,
    service::TowerToHyperService,
};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use rustls::{
    RootCertStore, ServerConfig,
    pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer},
    server::WebPkiClientVerifier,
};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

pub struct Serving {
    address: SocketAddr,
    authority: CertifiedIssuer<'static, KeyPair>,
    accepting: tokio::task::JoinHandle<()>,
}

impl Drop for Serving {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

impl Serving {
    pub async fn start(router: Router) -> Self {
        let mut params = CertificateParams::new(Vec::new()).expect("parameters");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let authority =
            CertifiedIssuer::self_signed(params, KeyPair::generate().expect("a key")).expect("an authority");
        let acceptor = TlsAcceptor::from(Arc::new(server_config(&authority)));
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("an address");
        let accepting = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(acceptor.clone(), stream, router.clone()));
            }
        });
        Self {
            address,
            authority,
            accepting,
        }
    }

    /// kubectl with a certificate for `user` in `group`.
    pub fn kubectl(&self, dir: &Path, user: &str, group: &str) -> Kubectl {
        let key = KeyPair::generate().expect("a key");
        let mut params = CertificateParams::new(Vec::new()).expect("parameters");
        params.distinguished_name.push(DnType::CommonName, user);
        params.distinguished_name.push(DnType::OrganizationName, group);
        let certificate = params.signed_by(&key, &self.authority).expect("a certificate");
        let write = |name: &str, pem: String| {
            let path = dir.join(format!("{user}.{name}"));
            std::fs::write(&path, pem).expect("a file");
            path
        };
        let files = ClientCertificate {
            ca: write("ca.crt", self.authority.pem()),
            certificate: write("crt", certificate.pem()),
            key: write("key", key.serialize_pem()),
        };
        Kubectl::new(dir, user, &format!("https://{}", self.address), &files).expect("a kubeconfig")
    }
}

fn server_config(authority: &CertifiedIssuer<'static, KeyPair>) -> ServerConfig {
    let key = KeyPair::generate().expect("a key");
    let params = CertificateParams::new(vec!["127.0.0.1".into()]).expect("parameters");
    let certificate = params.signed_by(&key, authority).expect("a certificate");
    let mut roots = RootCertStore::empty();
    roots.add(authority.der().clone()).expect("a root");
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone());
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_client_cert_verifier(verifier.allow_unauthenticated().build().expect("a verifier"))
        .with_single_cert(
            vec![certificate.der().clone()],
            PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der())),
        )
        .expect("a configuration");
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    config
}

async fn serve(acceptor: TlsAcceptor, stream: TcpStream, router: Router) {
    let Ok(stream) = acceptor.accept(stream).await else {
        return;
    };
    let peer = stream
        .get_ref()
        .1
        .peer_certificates()
        .and_then(|chain| chain.first())
        .map(|c| c.to_vec());
    let router = router.layer(axum::middleware::map_request(
        move |mut request: Request<Body>| {
            if let Some(certificate) = peer.clone() {
                request.extensions_mut().insert(PeerCertificate(certificate));
            }
            std::future::ready(request)
        },
    ));
    let service = TowerToHyperService::new(router);
    // A client that hangs up is nothing to tell of.
    let _ = auto::Builder::new(TokioExecutor::new())
        .serve_connection(TokioIo::new(stream), service)
        .await;
}
