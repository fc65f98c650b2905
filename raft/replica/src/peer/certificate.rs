//! Whose certificate it is: one member's may not speak as another.
//!
//! The authority of the peers says that a certificate is a peer's, not which one's. That is told by what it carries:
//! the member's name (as common name or DNS name, as `barque pki` issues it), or a host of the member's peer URLs, as
//! the certificates of etcd clusters have it, for one member or for all of them at once. Where members share a host
//! their names decide. With m1 and m2 on 10.0.0.1 and m3 on 10.0.0.3:
//!
//! ```text
//! CN=m1,   SAN 10.0.0.1             m1: yes, by name   m2: no, it is m1's    m3: no
//! CN=etcd, SAN 10.0.0.1             m1: yes, by host   m2: yes, by host      m3: no
//! CN=m1,   SAN 10.0.0.1, 10.0.0.3   m1: yes, by name   m2: no, it is m1's    m3: yes, by host
//! ```
//!
//! A member that the membership does not hold has neither name nor host to compare with: it is judged by the
//! [`super::Gate`] alone.

use std::{collections::BTreeMap, sync::Arc};

use barque_entrance::Ticket;
use parking_lot::{Mutex, RwLock};
use rustls::{
    client::verify_server_name,
    pki_types::{CertificateDer, ServerName},
    server::ParsedCertificate,
};
use x509_parser::{
    extensions::GeneralName,
    prelude::{FromDer, X509Certificate},
};

use super::link::Address;
use crate::types::Node;

/// A peer's certificate, verified by the listener.
#[derive(Debug)]
pub struct Certificate {
    der: CertificateDer<'static>,
    /// Common names and DNS names.
    names: Vec<String>,
}

impl Certificate {
    pub fn read(der: &CertificateDer<'_>) -> Self {
        let names = X509Certificate::from_der(der).map_or_else(|_| Vec::new(), |(_, read)| names(&read));
        Self {
            der: der.clone().into_owned(),
            names,
        }
    }

    fn carries(&self, name: &str) -> bool {
        !name.is_empty() && self.names.iter().any(|own| own == name)
    }

    /// Wildcards and addresses included, as a client of that host would see it.
    fn covers(&self, host: &str) -> bool {
        let (Ok(name), Ok(parsed)) = (ServerName::try_from(host), ParsedCertificate::try_from(&self.der))
        else {
            return false;
        };
        verify_server_name(&parsed, &name).is_ok()
    }
}

fn names(certificate: &X509Certificate<'_>) -> Vec<String> {
    let common = certificate.subject().iter_common_name();
    let common = common.filter_map(|name| name.as_str().ok());
    let alternative = certificate.subject_alternative_name().ok().flatten();
    let alternative = alternative.map(|names| names.value.general_names.as_slice());
    let dns = alternative
        .unwrap_or_default()
        .iter()
        .filter_map(|name| match name {
            GeneralName::DNSName(name) => Some(*name),
            _ => None,
        });
    common.chain(dns).map(str::to_owned).collect()
}

/// What a connection has shown of its other end; cheap to clone.
#[derive(Debug, Clone)]
pub struct Shown(Arc<Connection>);

#[derive(Debug)]
struct Connection {
    ticket: Ticket,
    /// `None`: a plain connection.
    certificate: Option<Certificate>,
    /// For whom it was found to be right, and by which version of the membership.
    found: Mutex<Option<(u64, u64)>>,
}

impl Shown {
    pub fn new(ticket: Ticket, certificate: Option<Certificate>) -> Self {
        Self(Arc::new(Connection {
            ticket,
            certificate,
            found: Mutex::new(None),
        }))
    }

    /// Its first call was admitted.
    pub fn settle(&self) {
        self.0.ticket.settle();
    }
}

/// The members by name and host, as the membership has them; cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Holders(Arc<RwLock<Listed>>);

#[derive(Debug, Default)]
struct Listed {
    version: u64,
    members: BTreeMap<u64, Holder>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Holder {
    name: String,
    hosts: Vec<String>,
}

impl Holder {
    fn of(name: &str, peer_urls: &[String]) -> Self {
        let host = |url: &String| Address::parse(url).ok().map(|address| address.host().to_owned());
        Self {
            name: name.to_owned(),
            hosts: peer_urls.iter().filter_map(host).collect(),
        }
    }
}

impl Holders {
    pub fn list<'a>(&self, members: impl Iterator<Item = (u64, &'a Node)>) {
        let members = members
            .map(|(id, node)| (id, Holder::of(&node.name, &node.peer_urls)))
            .collect();
        let mut listed = self.0.write();
        if listed.members != members {
            listed.version += 1;
            listed.members = members;
        }
    }

    /// Why the connection may not speak as this member. To be asked before anything that the caller says of itself is
    /// believed, or remembered.
    pub fn check(&self, shown: Option<&Shown>, member_id: u64) -> Result<(), String> {
        let Some((connection, certificate)) =
            shown.and_then(|shown| Some((&shown.0, shown.0.certificate.as_ref()?)))
        else {
            return Ok(());
        };
        let listed = self.0.read();
        let found = Some((member_id, listed.version));
        if *connection.found.lock() == found {
            return Ok(());
        }
        listed.judge(certificate, member_id)?;
        *connection.found.lock() = found;
        Ok(())
    }

    /// Why whoever shows this certificate is not this member.
    pub fn check_certificate(&self, certificate: &Certificate, member_id: u64) -> Result<(), String> {
        self.0.read().judge(certificate, member_id)
    }
}

impl Listed {
    /// Why the certificate is not the member's.
    fn judge(&self, certificate: &Certificate, member_id: u64) -> Result<(), String> {
        let Some(member) = self.members.get(&member_id) else {
            return Ok(());
        };
        if certificate.carries(&member.name) {
            return Ok(());
        }
        let covered = |host: &&String| certificate.covers(host);
        let hosts: Vec<&String> = member.hosts.iter().filter(covered).collect();
        if hosts.is_empty() {
            return Err(format!(
                "the certificate of member {member_id:x} carries neither its name \"{}\" nor a host of its peer URLs \
                 ({}): issue one that does",
                member.name,
                member.hosts.join(",")
            ));
        }
        match self.whose_name(certificate, &hosts) {
            // It has not told its name yet, so the certificate cannot be asked for it.
            _ if member.name.is_empty() => Ok(()),
            None => Ok(()),
            Some(other) => Err(format!(
                "member {member_id:x} (\"{}\") shows the certificate of \"{}\", which has the same host: issue one \
                 with its own name",
                member.name, other.name
            )),
        }
    }

    /// The member whose name the certificate carries, if the hosts may be there for that one's sake.
    fn whose_name(&self, certificate: &Certificate, hosts: &[&String]) -> Option<&Holder> {
        let explains = |other: &&Holder| {
            certificate.carries(&other.name) && hosts.iter().all(|host| other.hosts.contains(host))
        };
        self.members.values().find(explains)
    }
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, DnType, KeyPair};

    use super::*;

    fn certificate(common_name: &str, alternative: &[&str]) -> Certificate {
        let names: Vec<String> = alternative.iter().map(|name| name.to_string()).collect();
        let mut params = CertificateParams::new(names).unwrap();
        params.distinguished_name.push(DnType::CommonName, common_name);
        let key = KeyPair::generate().unwrap();
        Certificate::read(params.self_signed(&key).unwrap().der())
    }

    /// m1 and m2 on one machine, m3 on another, m4 added there and not started yet; m5 has a name in its URL.
    fn listed() -> Listed {
        let member = |(id, name, url): &(u64, &str, &str)| (*id, Holder::of(name, &[url.to_string()]));
        let members = [
            (1, "m1", "https://10.0.0.1:2380"),
            (2, "m2", "https://10.0.0.1:2480"),
            (3, "m3", "https://10.0.0.3:2380"),
            (4, "", "https://10.0.0.3:2480"),
            (5, "m5", "https://m5.peers.example:2380"),
        ];
        Listed {
            version: 1,
            members: members.iter().map(member).collect(),
        }
    }

    #[track_caller]
    fn check(common_name: &str, alternative: &[&str], passes_as: &[u64]) {
        let (listed, certificate) = (listed(), certificate(common_name, alternative));
        let passes: Vec<u64> = (1..=5)
            .filter(|id| listed.judge(&certificate, *id).is_ok())
            .collect();
        assert_eq!(passes, passes_as, "CN={common_name} {alternative:?}");
    }

    #[test]
    fn each_member_speaks_for_itself() {
        check("m1", &["10.0.0.1"], &[1]);
        check("m2", &["10.0.0.1"], &[2]);
        check("m3", &["10.0.0.3"], &[3, 4]);
        check("m4", &["10.0.0.3"], &[3, 4]);
        check("m5", &["m5.peers.example"], &[5]);
        // The name alone is enough, wherever the member is.
        check("m3", &["10.9.9.9"], &[3]);
        check("stranger", &["m3"], &[3]);
    }

    #[test]
    fn one_for_all_hosts_speaks_for_all_of_them() {
        check(
            "etcd",
            &["10.0.0.1", "10.0.0.3", "*.peers.example"],
            &[1, 2, 3, 4, 5],
        );
        check("etcd", &["m1", "m2", "10.0.0.1"], &[1, 2]);
        // The first member's name on a certificate for all machines: elsewhere the host is there on purpose.
        check("m1", &["10.0.0.1", "10.0.0.3", "m5.peers.example"], &[1, 3, 4, 5]);
    }

    #[test]
    fn a_stranger_speaks_for_nobody() {
        check("m9", &["10.9.9.9", "other.example"], &[]);
        check("", &[], &[]);
    }

    #[test]
    fn who_is_not_listed_is_not_judged_here() {
        assert_eq!(listed().judge(&certificate("m1", &["10.0.0.1"]), 6), Ok(()));
        assert_eq!(
            Listed::default().judge(&certificate("m1", &["10.0.0.1"]), 1),
            Ok(())
        );
    }

    #[test]
    fn a_refusal_says_what_to_do() {
        let error = listed().judge(&certificate("m1", &["10.0.0.1"]), 2).unwrap_err();
        assert!(error.contains("shows the certificate of \"m1\""), "{error}");
        let error = listed().judge(&certificate("m9", &["10.9.9.9"]), 2).unwrap_err();
        assert!(error.contains("carries neither its name \"m2\""), "{error}");
    }
}
