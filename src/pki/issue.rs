//! What the authorities issue: a master's three serving certificates, and clients' certificates.

use std::{net::IpAddr, path::Path};

use anyhow::{Context, bail};
use rcgen::{
    CertificateParams, DistinguishedName, DnType, DnValue, ExtendedKeyUsagePurpose, KeyUsagePurpose, SanType,
};

use super::{
    KeyPairPaths, Kind, Lifetime, MasterPaths, Tree,
    authority::{self, write_pair},
};
use crate::files;

/// Under these a client inside the cluster expects the API.
const API_NAMES: [&str; 4] = [
    "kubernetes",
    "kubernetes.default",
    "kubernetes.default.svc",
    "kubernetes.default.svc.cluster.local",
];

/// rcgen keeps one value per attribute type; the two spellings of the type "organization" make two.
const GROUPS_MAX: usize = 2;

fn organization_types() -> [DnType; GROUPS_MAX] {
    [DnType::OrganizationName, DnType::CustomDnType(vec![2, 5, 4, 10])]
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Host {
    Ip(IpAddr),
    Dns(String),
}

impl Host {
    pub fn parse(text: &str) -> anyhow::Result<Host> {
        if let Ok(ip) = text.parse() {
            return Ok(Host::Ip(ip));
        }
        let label_is_fine = |label: &str| {
            (1..=63).contains(&label.len())
                && label
                    .bytes()
                    .all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'*')
        };
        if text.len() > 253 || !text.split('.').all(label_is_fine) {
            bail!("--host {text}: neither an IP address nor a DNS name");
        }
        Ok(Host::Dns(text.to_owned()))
    }

    fn san(&self) -> anyhow::Result<SanType> {
        Ok(match self {
            Host::Ip(ip) => SanType::IpAddress(*ip),
            Host::Dns(name) => SanType::DnsName(name.as_str().try_into().context("a DNS name")?),
        })
    }
}

struct Leaf<'a> {
    common_name: &'a str,
    groups: &'a [String],
    hosts: &'a [Host],
    usages: &'a [ExtendedKeyUsagePurpose],
    lifetime: Lifetime,
}

/// Fills `DIR/masters/NAME`: the three authorities' certificates, and a key pair for each listener.
pub fn issue_master(
    tree: &Tree,
    name: &str,
    hosts: &[Host],
    lifetime: Lifetime,
    force: bool,
) -> anyhow::Result<MasterPaths> {
    use ExtendedKeyUsagePurpose::{ClientAuth, ServerAuth};
    check_file_name(name)?;
    let paths = tree.master(name);
    let api_hosts: Vec<Host> = hosts
        .iter()
        .cloned()
        .chain(API_NAMES.map(|name| Host::Dns(name.to_owned())))
        .collect();
    let leaf = |hosts, usages| Leaf {
        common_name: name,
        groups: &[],
        hosts,
        usages,
        lifetime,
    };
    sign(
        tree,
        Kind::Peer,
        leaf(hosts, &[ServerAuth, ClientAuth]),
        &paths.peer,
        force,
    )?;
    sign(tree, Kind::Etcd, leaf(hosts, &[ServerAuth]), &paths.etcd, force)?;
    sign(
        tree,
        Kind::Kubernetes,
        leaf(&api_hosts, &[ServerAuth]),
        &paths.api,
        force,
    )?;
    copy_public(&tree.authority(Kind::Peer).cert, &paths.peer_ca)?;
    copy_public(&tree.authority(Kind::Etcd).cert, &paths.etcd_ca)?;
    copy_public(&tree.authority(Kind::Kubernetes).cert, &paths.kubernetes_ca)?;
    Ok(paths)
}

/// A Kubernetes client: the common name is the user, each organisation a group.
pub fn issue_user(
    tree: &Tree,
    name: &str,
    groups: &[String],
    lifetime: Lifetime,
    force: bool,
) -> anyhow::Result<KeyPairPaths> {
    check_file_name(name)?;
    if groups.len() > GROUPS_MAX {
        bail!(
            "a certificate carries at most {GROUPS_MAX} groups here, {} are asked for",
            groups.len()
        );
    }
    let paths = tree.user(name);
    let usages = &[ExtendedKeyUsagePurpose::ClientAuth];
    sign(
        tree,
        Kind::Kubernetes,
        Leaf {
            common_name: name,
            groups,
            hosts: &[],
            usages,
            lifetime,
        },
        &paths,
        force,
    )?;
    Ok(paths)
}

pub fn issue_etcd_user(
    tree: &Tree,
    name: &str,
    lifetime: Lifetime,
    force: bool,
) -> anyhow::Result<KeyPairPaths> {
    check_file_name(name)?;
    let paths = tree.etcd_user(name);
    let usages = &[ExtendedKeyUsagePurpose::ClientAuth];
    let leaf = Leaf {
        common_name: name,
        groups: &[],
        hosts: &[],
        usages,
        lifetime,
    };
    sign(tree, Kind::Etcd, leaf, &paths, force)?;
    Ok(paths)
}

fn sign(tree: &Tree, kind: Kind, leaf: Leaf<'_>, paths: &KeyPairPaths, force: bool) -> anyhow::Result<()> {
    let issuer = authority::open(&tree.authority(kind))?;
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    for (group, organization) in leaf.groups.iter().zip(organization_types()) {
        params
            .distinguished_name
            .push(organization, DnValue::Utf8String(group.clone()));
    }
    params.distinguished_name.push(
        DnType::CommonName,
        DnValue::Utf8String(leaf.common_name.to_owned()),
    );
    params.subject_alt_names = leaf.hosts.iter().map(Host::san).collect::<anyhow::Result<_>>()?;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = leaf.usages.to_vec();
    params.use_authority_key_identifier_extension = true;
    leaf.lifetime.apply(&mut params);
    let key = authority::generate_key()?;
    let cert = params.signed_by(&key, &issuer).context("sign a certificate")?;
    write_pair(paths, &cert.pem(), &key.serialize_pem(), force)
}

/// The authority's own certificate is no secret, and the same at every issue.
fn copy_public(from: &Path, to: &Path) -> anyhow::Result<()> {
    let content = std::fs::read(from).with_context(|| format!("read {}", from.display()))?;
    files::replace(to, files::PUBLIC, &content)
}

fn check_file_name(name: &str) -> anyhow::Result<()> {
    let fine = !name.is_empty() && name.len() <= 200 && !name.starts_with('.') && !name.contains(['/', '\0']);
    if !fine {
        bail!("\"{name}\" cannot be the name of a certificate's file");
    }
    Ok(())
}
