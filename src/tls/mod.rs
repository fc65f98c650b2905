//! rustls configurations from certificate and key files; every refusal names the file.

mod pair;

use std::{path::Path, sync::Arc};

use anyhow::{Context, bail};
use rustls::{
    ClientConfig, RootCertStore, ServerConfig,
    crypto::CryptoProvider,
    server::{WebPkiClientVerifier, danger::ClientCertVerifier},
};
use rustls_pki_types::{CertificateDer, pem::PemObject};

use pair::Pair;

/// Whether a server asks its clients for certificates.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClientCertificates<'a> {
    Ignored,
    /// Checked when there is one; who comes without stays anonymous.
    Optional(&'a Path),
    Required(&'a Path),
}

pub const ALPN: [&[u8]; 2] = [b"h2", b"http/1.1"];

pub fn server(cert: &Path, key: &Path, clients: ClientCertificates<'_>) -> anyhow::Result<Arc<ServerConfig>> {
    let pair = Pair::load(cert, key)?;
    let builder = ServerConfig::builder_with_provider(provider()).with_safe_default_protocol_versions()?;
    let builder = match client_verifier(clients)? {
        Some(verifier) => builder.with_client_cert_verifier(verifier),
        None => builder.with_no_client_auth(),
    };
    let mut config = builder.with_cert_resolver(pair);
    config.alpn_protocols = ALPN.iter().map(|name| name.to_vec()).collect();
    Ok(Arc::new(config))
}

/// A client that trusts `ca` alone and shows `pair` when asked.
pub fn client(ca: &Path, pair: Option<(&Path, &Path)>, alpn: &[&[u8]]) -> anyhow::Result<Arc<ClientConfig>> {
    let builder = ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots(ca)?);
    let mut config = match pair {
        Some((cert, key)) => builder.with_client_cert_resolver(Pair::load(cert, key)?),
        None => builder.with_no_client_auth(),
    };
    config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
    Ok(Arc::new(config))
}

pub fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

pub fn roots(ca: &Path) -> anyhow::Result<RootCertStore> {
    let mut store = RootCertStore::empty();
    for certificate in load_chain(ca)? {
        store
            .add(certificate)
            .with_context(|| format!("{} is not a usable CA certificate", ca.display()))?;
    }
    Ok(store)
}

fn client_verifier(clients: ClientCertificates<'_>) -> anyhow::Result<Option<Arc<dyn ClientCertVerifier>>> {
    let (ca, required) = match clients {
        ClientCertificates::Ignored => return Ok(None),
        ClientCertificates::Optional(ca) => (ca, false),
        ClientCertificates::Required(ca) => (ca, true),
    };
    let mut builder = WebPkiClientVerifier::builder_with_provider(Arc::new(roots(ca)?), provider());
    if !required {
        builder = builder.allow_unauthenticated();
    }
    Ok(Some(builder.build()?))
}

fn load_chain(path: &Path) -> anyhow::Result<Vec<CertificateDer<'static>>> {
    let pem = std::fs::read(path).with_context(|| format!("read certificate {}", path.display()))?;
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&pem).collect();
    let chain = chain.with_context(|| format!("{} is not a PEM certificate", path.display()))?;
    if chain.is_empty() {
        bail!("{} holds no certificate", path.display());
    }
    Ok(chain)
}
