//! A certificate authority: made once, opened to sign. ECDSA on P-256 throughout.

use std::path::Path;

use anyhow::{Context, bail};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose,
};
use time::{Duration, OffsetDateTime};

use super::KeyPairPaths;
use crate::files;

/// Hosts' clocks differ: a certificate is valid from a little before it was made.
const CLOCK_SKEW: Duration = Duration::minutes(5);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Peer,
    Etcd,
    Kubernetes,
}

impl Kind {
    pub const ALL: [Kind; 3] = [Kind::Peer, Kind::Etcd, Kind::Kubernetes];

    pub fn directory(self) -> &'static str {
        match self {
            Kind::Peer => "peer",
            Kind::Etcd => "etcd",
            Kind::Kubernetes => "kubernetes",
        }
    }

    fn common_name(self) -> &'static str {
        match self {
            Kind::Peer => "barque peer CA",
            Kind::Etcd => "barque etcd CA",
            Kind::Kubernetes => "barque kubernetes CA",
        }
    }
}

#[derive(Debug, Clone, Copy)]
pub struct Lifetime(Duration);

impl Lifetime {
    pub fn days(days: u32) -> Self {
        Self(Duration::days(days.into()))
    }

    pub fn years(years: u32) -> Self {
        Self(Duration::days(i64::from(years) * 3653 / 10))
    }

    pub fn apply(self, params: &mut CertificateParams) {
        let now = OffsetDateTime::now_utc();
        params.not_before = now - CLOCK_SKEW;
        params.not_after = now + self.0;
    }
}

pub fn create(kind: Kind, paths: &KeyPairPaths, lifetime: Lifetime, force: bool) -> anyhow::Result<()> {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params
        .distinguished_name
        .push(DnType::CommonName, kind.common_name());
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![
        KeyUsagePurpose::KeyCertSign,
        KeyUsagePurpose::CrlSign,
        KeyUsagePurpose::DigitalSignature,
    ];
    lifetime.apply(&mut params);
    let key = generate_key()?;
    let cert = params.self_signed(&key).context("sign a CA certificate")?;
    write_pair(paths, &cert.pem(), &key.serialize_pem(), force)
}

/// Opens an authority for signing; its key must be here.
pub fn open(paths: &KeyPairPaths) -> anyhow::Result<Issuer<'static, KeyPair>> {
    let read = |path: &Path| {
        std::fs::read_to_string(path).with_context(|| {
            format!(
                "read {} (is this a directory of `barque pki init`?)",
                path.display()
            )
        })
    };
    let key = KeyPair::from_pem(&read(&paths.key)?)
        .with_context(|| format!("{} is not a PEM private key", paths.key.display()))?;
    Issuer::from_ca_cert_pem(&read(&paths.cert)?, key)
        .with_context(|| format!("{} is not a CA certificate", paths.cert.display()))
}

pub fn generate_key() -> anyhow::Result<KeyPair> {
    KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).context("generate a key")
}

/// Both or neither: a certificate without its key helps nobody.
pub fn write_pair(paths: &KeyPairPaths, cert_pem: &str, key_pem: &str, force: bool) -> anyhow::Result<()> {
    if let Some(dir) = paths.cert.parent() {
        files::make_private_dir(dir)?;
    }
    for path in [&paths.cert, &paths.key] {
        if !force && path.exists() {
            bail!("{} exists already (--force replaces it)", path.display());
        }
    }
    files::write_new(&paths.key, files::PRIVATE, force, key_pem.as_bytes())?;
    files::write_new(&paths.cert, files::PUBLIC, force, cert_pem.as_bytes())
}

/// Whether a certificate is missing, unreadable or ends within `days`.
pub fn expires_within(cert: &Path, days: u32) -> bool {
    let Ok(pem) = std::fs::read(cert) else { return true };
    let Ok((_, pem)) = x509_parser::pem::parse_x509_pem(&pem) else {
        return true;
    };
    let Ok(parsed) = pem.parse_x509() else { return true };
    let horizon = OffsetDateTime::now_utc() + Duration::days(days.into());
    parsed.validity().not_after.timestamp() < horizon.unix_timestamp()
}
