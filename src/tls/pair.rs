//! A certificate and its key, as the files have them now: [`Pair`]. They are renewed while a member runs, and shown from
//! the next handshake on.

use std::{
    os::unix::fs::{MetadataExt, PermissionsExt},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use anyhow::{Context, bail};
use rustls::{
    SignatureScheme,
    client::ResolvesClientCert,
    server::{ClientHello, ResolvesServerCert},
    sign::CertifiedKey,
};
use rustls_pki_types::{PrivateKeyDer, pem::PemObject};

use super::{load_chain, provider};

/// However many handshakes there are, the files are looked at no more often than this.
const LOOK_EVERY: Duration = Duration::from_secs(1);

#[derive(Debug)]
pub struct Pair {
    cert: PathBuf,
    key: PathBuf,
    current: Mutex<Current>,
}

#[derive(Debug)]
struct Current {
    shown: Arc<CertifiedKey>,
    /// Of the files when they were last read, whether they could be used or not.
    stamps: [Stamp; 2],
    looked: Instant,
}

/// Changes when the file is written or replaced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stamp {
    inode: u64,
    bytes: u64,
    modified: (i64, i64),
}

impl Pair {
    pub fn load(cert: &Path, key: &Path) -> anyhow::Result<Arc<Pair>> {
        // Before they are read: what is written meanwhile is a change.
        let stamps = stamps(cert, key)?;
        let current = Current {
            shown: Arc::new(read(cert, key)?),
            stamps,
            looked: Instant::now(),
        };
        Ok(Arc::new(Pair {
            cert: cert.to_owned(),
            key: key.to_owned(),
            current: Mutex::new(current),
        }))
    }

    fn shown(&self) -> Arc<CertifiedKey> {
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        if current.looked.elapsed() >= LOOK_EVERY {
            current.looked = Instant::now();
            self.renew(&mut current);
        }
        current.shown.clone()
    }

    /// Files that cannot be used, as one of two that is new already, leave what was shown before.
    fn renew(&self, current: &mut Current) {
        let renewed = stamps(&self.cert, &self.key).and_then(|stamps| {
            if stamps == current.stamps {
                return Ok(false);
            }
            current.stamps = stamps;
            current.shown = Arc::new(read(&self.cert, &self.key)?);
            Ok(true)
        });
        match renewed {
            Ok(false) => {}
            Ok(true) => tracing::info!(cert = %self.cert.display(), "the certificate was read again"),
            Err(error) => tracing::warn!(
                cert = %self.cert.display(),
                error = %format!("{error:#}"),
                "the certificate cannot be read again; the one before is still used"
            ),
        }
    }
}

impl ResolvesServerCert for Pair {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.shown())
    }
}

impl ResolvesClientCert for Pair {
    fn resolve(&self, _: &[&[u8]], _: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        Some(self.shown())
    }

    fn has_certs(&self) -> bool {
        true
    }
}

fn stamps(cert: &Path, key: &Path) -> anyhow::Result<[Stamp; 2]> {
    Ok([stamp("certificate", cert)?, stamp("key", key)?])
}

fn stamp(what: &str, path: &Path) -> anyhow::Result<Stamp> {
    let metadata = std::fs::metadata(path).with_context(|| format!("read {what} {}", path.display()))?;
    Ok(Stamp {
        inode: metadata.ino(),
        bytes: metadata.len(),
        modified: (metadata.mtime(), metadata.mtime_nsec()),
    })
}

fn read(cert: &Path, key: &Path) -> anyhow::Result<CertifiedKey> {
    CertifiedKey::from_der(load_chain(cert)?, load_key(key)?, &provider()).with_context(|| {
        format!(
            "certificate {} and key {} do not go together",
            cert.display(),
            key.display()
        )
    })
}

/// A private key that everybody on the machine can read is no longer one.
fn load_key(path: &Path) -> anyhow::Result<PrivateKeyDer<'static>> {
    let metadata = std::fs::metadata(path).with_context(|| format!("read key {}", path.display()))?;
    let mode = metadata.permissions().mode() & 0o777;
    if mode & 0o007 != 0 {
        bail!(
            "key {} is open to everybody (mode {mode:04o}); chmod 600 it",
            path.display()
        );
    }
    let pem = std::fs::read(path).with_context(|| format!("read key {}", path.display()))?;
    PrivateKeyDer::from_pem_slice(&pem)
        .with_context(|| format!("{} is not a PEM private key", path.display()))
}
