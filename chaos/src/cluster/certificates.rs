//! The certificates of a test's cluster, made by `barque pki`: [`Pki`].

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, bail};

use super::{Host, barque_binary};

/// Files in PEM: what a client presents and whom it trusts.
#[derive(Debug, Clone)]
pub struct ClientCertificate {
    pub ca: PathBuf,
    pub certificate: PathBuf,
    pub key: PathBuf,
}

/// A directory made by `barque pki init` and `barque pki issue`.
pub struct Pki {
    dir: PathBuf,
}

impl Pki {
    /// Authorities, an administrator's certificates, and a set for every member: for 127.0.0.1, and its own address
    /// where it has one.
    pub fn create(dir: &Path, members: usize, hosts: &[Host]) -> anyhow::Result<Pki> {
        let dir = dir.join("pki");
        let pki = Pki { dir };
        pki.run(&["init"])?;
        for number in 1..=members {
            let name = format!("m{number}");
            let mut arguments = vec![
                "issue",
                "--master",
                &name,
                "--host",
                "127.0.0.1",
                "--host",
                "localhost",
            ];
            let address = hosts.get(number - 1).map(|host| host.address.to_string());
            arguments.extend(address.iter().flat_map(|address| ["--host", address]));
            pki.run(&arguments)?;
        }
        Ok(pki)
    }

    pub fn etcd_client(&self) -> ClientCertificate {
        self.client("etcd", "etcd-users")
    }

    pub fn kubernetes_admin(&self) -> ClientCertificate {
        self.client("kubernetes", "users")
    }

    pub(super) fn member_flags(&self, index: usize, _api: bool) -> Vec<String> {
        let dir = self.dir.join("masters").join(format!("m{}", index + 1));
        vec![format!("--pki-dir={}", dir.display())]
    }

    fn client(&self, authority: &str, users: &str) -> ClientCertificate {
        ClientCertificate {
            ca: self.dir.join(authority).join("ca.crt"),
            certificate: self.dir.join(users).join("admin.crt"),
            key: self.dir.join(users).join("admin.key"),
        }
    }

    fn run(&self, arguments: &[&str]) -> anyhow::Result<()> {
        let output = Command::new(barque_binary()?)
            .arg("pki")
            .args(arguments)
            .arg("--dir")
            .arg(&self.dir)
            .output()
            .context("running barque pki")?;
        if !output.status.success() {
            bail!(
                "barque pki {arguments:?}: {}",
                String::from_utf8_lossy(&output.stderr)
            );
        }
        Ok(())
    }
}
