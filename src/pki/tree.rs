//! Where in a pki directory each certificate and key lies.
//!
//! ```text
//! DIR/{peer,etcd,kubernetes}/ca.{crt,key}   the authorities
//! DIR/masters/NAME/                         all that one master needs, to be copied to its host
//! DIR/users/NAME.{crt,key,kubeconfig}       Kubernetes clients
//! DIR/etcd-users/NAME.{crt,key}             etcd clients
//! ```

use std::path::{Path, PathBuf};

use super::Kind;

pub const ADMIN: &str = "admin";

#[derive(Debug, Clone)]
pub struct KeyPairPaths {
    pub cert: PathBuf,
    pub key: PathBuf,
}

impl KeyPairPaths {
    fn new(dir: &Path, name: &str) -> Self {
        Self {
            cert: dir.join(format!("{name}.crt")),
            key: dir.join(format!("{name}.key")),
        }
    }
}

#[derive(Debug, Clone)]
pub struct MasterPaths {
    pub dir: PathBuf,
    pub peer_ca: PathBuf,
    pub etcd_ca: PathBuf,
    pub kubernetes_ca: PathBuf,
    /// Server and client at once: a peer is both.
    pub peer: KeyPairPaths,
    pub etcd: KeyPairPaths,
    pub api: KeyPairPaths,
}

impl MasterPaths {
    pub fn of(dir: &Path) -> Self {
        Self {
            peer_ca: dir.join("peer-ca.crt"),
            etcd_ca: dir.join("etcd-ca.crt"),
            kubernetes_ca: dir.join("kubernetes-ca.crt"),
            peer: KeyPairPaths::new(dir, "peer"),
            etcd: KeyPairPaths::new(dir, "etcd"),
            api: KeyPairPaths::new(dir, "api"),
            dir: dir.to_owned(),
        }
    }
}

#[derive(Debug, Clone)]
pub struct Tree {
    dir: PathBuf,
}

impl Tree {
    pub fn new(dir: &Path) -> Self {
        Self { dir: dir.to_owned() }
    }

    pub fn dir(&self) -> &Path {
        &self.dir
    }

    pub fn authority(&self, kind: Kind) -> KeyPairPaths {
        KeyPairPaths::new(&self.dir.join(kind.directory()), "ca")
    }

    pub fn etcd_ca(&self) -> PathBuf {
        self.authority(Kind::Etcd).cert
    }

    pub fn kubernetes_ca(&self) -> PathBuf {
        self.authority(Kind::Kubernetes).cert
    }

    pub fn master(&self, name: &str) -> MasterPaths {
        MasterPaths::of(&self.dir.join("masters").join(name))
    }

    pub fn user(&self, name: &str) -> KeyPairPaths {
        KeyPairPaths::new(&self.dir.join("users"), name)
    }

    pub fn user_kubeconfig(&self, name: &str) -> PathBuf {
        self.dir.join("users").join(format!("{name}.kubeconfig"))
    }

    pub fn etcd_user(&self, name: &str) -> KeyPairPaths {
        KeyPairPaths::new(&self.dir.join("etcd-users"), name)
    }

    pub fn admin(&self) -> KeyPairPaths {
        self.user(ADMIN)
    }

    pub fn etcd_admin(&self) -> KeyPairPaths {
        self.etcd_user(ADMIN)
    }
}
