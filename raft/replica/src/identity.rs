//! Who this member is: IDs derived at bootstrap, and the file that keeps them.
//!
//! As in etcd a member's ID is a hash of its peer URLs and the cluster's token, the cluster's ID a hash of the
//! first members' IDs. Besides, a member draws a random *incarnation* when its data directory is made, and a member
//! whose data was wiped comes back with another. The membership says which one is right as soon as the member has
//! told it; until then peers go by the first one that they saw.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::{self, Write},
    path::{Path, PathBuf},
};

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::{MemberConfig, ReplicaConfig, StartError, data_dir::make_private_dir, planted};

const FORMAT_VERSION: u32 = 1;

fn first_u64(hash: impl AsRef<[u8]>) -> u64 {
    let bytes: [u8; 8] = hash.as_ref()[..8]
        .try_into()
        .expect("a hash is longer than 8 bytes");
    // 0 means "none" on the wire.
    u64::from_be_bytes(bytes).max(1)
}

pub fn member_id(peer_urls: &[String], token: &str) -> u64 {
    let mut urls: Vec<&str> = peer_urls.iter().map(String::as_str).collect();
    urls.sort_unstable();
    let mut hash = Sha256::new();
    urls.iter().for_each(|url| hash.update(url));
    hash.update(token);
    first_u64(hash.finalize())
}

pub fn cluster_id(members: &[MemberConfig], token: &str) -> u64 {
    let mut ids: Vec<u64> = members
        .iter()
        .map(|member| member_id(&member.peer_urls, token))
        .collect();
    ids.sort_unstable();
    let mut hash = Sha256::new();
    ids.iter().for_each(|id| hash.update(id.to_be_bytes()));
    first_u64(hash.finalize())
}

fn peer_urls(config: &ReplicaConfig) -> impl Iterator<Item = &str> {
    config
        .initial_cluster
        .iter()
        .flat_map(|member| &member.peer_urls)
        .map(String::as_str)
}

/// An ID as humans see it, and as it stands in files: JSON numbers do not hold 64 bits.
mod hex {
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    pub fn serialize<S: Serializer>(id: &u64, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&format!("{id:x}"))
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
        let text = String::deserialize(deserializer)?;
        u64::from_str_radix(&text, 16).map_err(D::Error::custom)
    }
}

/// The content of `member/identity.json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Identity {
    pub format_version: u32,
    #[serde(with = "hex")]
    pub cluster_id: u64,
    #[serde(with = "hex")]
    pub member_id: u64,
    #[serde(with = "hex")]
    pub incarnation: u64,
    pub name: String,
    /// What the member was first started with, by which a data directory of another cluster is told. `None` and
    /// empty in directories of before these were kept.
    #[serde(default)]
    pub initial_cluster_token: Option<String>,
    #[serde(default)]
    pub initial_peer_urls: Vec<String>,
    /// First started with `--initial-cluster-state new`: such a member writes the first membership.
    #[serde(default)]
    pub founder: bool,
    /// Every other member of the initial cluster has noted this incarnation and knew no other. Before that a founder
    /// takes no part in anything.
    #[serde(default)]
    pub admitted: bool,
    /// The log has been written to: from then on an empty log means lost data.
    pub has_log: bool,
}

impl Identity {
    pub fn new(cluster_id: u64, member_id: u64, config: &ReplicaConfig) -> Self {
        let incarnation = rand::random::<u64>().max(1);
        Self {
            format_version: FORMAT_VERSION,
            cluster_id,
            member_id,
            incarnation,
            name: config.name.clone(),
            initial_cluster_token: Some(config.initial_cluster_token.clone()),
            initial_peer_urls: peer_urls(config).map(str::to_owned).collect(),
            founder: config.new_cluster,
            // Who joins is bound to this incarnation by the log, before it may vote.
            admitted: !config.new_cluster,
            has_log: false,
        }
    }

    /// May take part in Raft.
    pub fn is_admitted(&self) -> bool {
        self.admitted || self.has_log
    }

    /// Refuses to go on with the data of another member or cluster. Members come and go, so `--initial-cluster`
    /// may have changed since; but this member is in both the old and the new one.
    pub fn check_is_of(&self, config: &ReplicaConfig) -> Result<(), StartError> {
        let belongs = |to: String| {
            let dir = config.data_dir.display();
            Err(StartError::Identity(format!(
                "data directory {dir} belongs to {to}"
            )))
        };
        if self.name != config.name {
            return belongs(format!("member \"{}\", not to \"{}\"", self.name, config.name));
        }
        if let Some(token) = self
            .initial_cluster_token
            .as_ref()
            .filter(|token| **token != config.initial_cluster_token)
        {
            return belongs(format!(
                "another cluster: its --initial-cluster-token is \"{token}\", not \"{}\"",
                config.initial_cluster_token
            ));
        }
        let known = |url: &str| self.initial_peer_urls.iter().any(|known| known == url);
        if !self.initial_peer_urls.is_empty() && !peer_urls(config).any(known) {
            return belongs(format!(
                "another cluster: that of {}",
                self.initial_peer_urls.join(",")
            ));
        }
        Ok(())
    }

    pub fn load(member_dir: &Path) -> Result<Option<Self>, StartError> {
        let path = Self::path(member_dir);
        let identity: Option<Self> = load_json(&path).map_err(|e| StartError::Identity(e.to_string()))?;
        match &identity {
            Some(other) if other.format_version != FORMAT_VERSION => Err(StartError::Identity(format!(
                "{}: format version {} is not known to this program",
                path.display(),
                other.format_version
            ))),
            _ => Ok(identity),
        }
    }

    pub fn save(&self, member_dir: &Path) -> io::Result<()> {
        make_private_dir(member_dir)?;
        save_json(&Self::path(member_dir), self)
    }

    /// Of a member that was refused before it took part in anything: the directory is as good as empty again.
    pub fn forget(member_dir: &Path) -> io::Result<()> {
        for path in [Self::path(member_dir), KnownPeers::path(member_dir)] {
            match fs::remove_file(path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        Ok(())
    }

    fn path(member_dir: &Path) -> PathBuf {
        member_dir.join("identity.json")
    }
}

fn load_json<T: for<'de> Deserialize<'de>>(path: &Path) -> io::Result<Option<T>> {
    let named = |error: &dyn std::fmt::Display| io::Error::other(format!("{}: {error}", path.display()));
    match fs::read(path) {
        Ok(bytes) => serde_json::from_slice(&bytes).map(Some).map_err(|e| named(&e)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(named(&error)),
    }
}

/// Whole or not at all, also across a power cut.
fn save_json<T: Serialize>(path: &Path, value: &T) -> io::Result<()> {
    let new = path.with_extension("new");
    let mut file = File::create(&new)?;
    file.write_all(&serde_json::to_vec_pretty(value).map_err(io::Error::other)?)?;
    if planted("identity-not-synced") {
        return fs::rename(&new, path);
    }
    file.sync_all()?;
    fs::rename(&new, path)?;
    let dir = path
        .parent()
        .ok_or_else(|| io::Error::other("a file without a directory"))?;
    File::open(dir)?.sync_all()
}

/// Which incarnation is the right one of each member: what the membership says, or else the first one seen, which is
/// durable before it counts.
///
/// IDs never come back: one that is added anew gets another ID. So what the membership says of an ID stays true.
#[derive(Debug)]
pub struct KnownPeers {
    path: PathBuf,
    seen: Mutex<BTreeMap<u64, u64>>,
    bound: Mutex<BTreeMap<u64, u64>>,
}

/// Members of which the incarnation is remembered. Far more than a cluster ever has.
const KNOWN_MAX: usize = 1000;

#[derive(Serialize, Deserialize)]
struct KnownPeer {
    #[serde(with = "hex")]
    member_id: u64,
    #[serde(with = "hex")]
    incarnation: u64,
}

/// A member that came back with another data directory under its old ID.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Wiped {
    pub member_id: u64,
}

impl std::fmt::Display for Wiped {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", already_bootstrapped(self.member_id))
    }
}

/// What a member is told that is no longer one.
pub fn removed(member_id: u64) -> String {
    format!("member {member_id:x} has been permanently removed from the cluster")
}

/// What a wiped member is told, and how it is replaced.
pub fn already_bootstrapped(member_id: u64) -> String {
    format!(
        "member {member_id:x} has already been bootstrapped; its data is gone, so it may not vote under this ID \
         again: run `etcdctl member remove {member_id:x}` and `etcdctl member add`, then start it with an empty \
         data directory and --initial-cluster-state existing"
    )
}

impl KnownPeers {
    pub fn load(member_dir: &Path) -> io::Result<Self> {
        let path = Self::path(member_dir);
        let peers: Vec<KnownPeer> = load_json(&path)?.unwrap_or_default();
        let seen = peers
            .into_iter()
            .map(|peer| (peer.member_id, peer.incarnation))
            .collect();
        Ok(Self {
            path,
            seen: Mutex::new(seen),
            bound: Mutex::default(),
        })
    }

    fn path(member_dir: &Path) -> PathBuf {
        member_dir.join("peers.json")
    }

    pub fn incarnation_of(&self, member_id: u64) -> Option<u64> {
        let bound = self.bound.lock().get(&member_id).copied();
        bound.or_else(|| self.seen.lock().get(&member_id).copied())
    }

    /// The membership says so. It need not be remembered here: the log does.
    pub fn bind(&self, member_id: u64, incarnation: u64) {
        if incarnation != 0 {
            self.bound.lock().insert(member_id, incarnation);
        }
    }

    /// Remembers a member at first sight; afterwards only the same incarnation passes.
    pub fn check(&self, member_id: u64, incarnation: u64) -> io::Result<Result<(), Wiped>> {
        let verdict = |known: u64| match known == incarnation || planted("wiped-voter-votes") {
            true => Ok(()),
            false => Err(Wiped { member_id }),
        };
        if let Some(bound) = self.bound.lock().get(&member_id) {
            return Ok(verdict(*bound));
        }
        let mut seen = self.seen.lock();
        if let Some(known) = seen.get(&member_id) {
            return Ok(verdict(*known));
        }
        if seen.len() >= KNOWN_MAX {
            return Err(io::Error::other(format!("{KNOWN_MAX} members are known already")));
        }
        let mut grown = seen.clone();
        grown.insert(member_id, incarnation);
        self.save(&grown)?;
        *seen = grown;
        Ok(Ok(()))
    }

    fn save(&self, seen: &BTreeMap<u64, u64>) -> io::Result<()> {
        let peer = |(member_id, incarnation): (&u64, &u64)| KnownPeer {
            member_id: *member_id,
            incarnation: *incarnation,
        };
        save_json(&self.path, &seen.iter().map(peer).collect::<Vec<_>>())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::tests::example;

    fn urls(urls: &[&str]) -> Vec<String> {
        urls.iter().map(|url| url.to_string()).collect()
    }

    #[test]
    fn ids_depend_on_urls_and_token_only() {
        let id = member_id(&urls(&["http://a:1", "http://b:2"]), "t");
        assert_eq!(id, member_id(&urls(&["http://b:2", "http://a:1"]), "t"));
        assert_ne!(id, member_id(&urls(&["http://a:1"]), "t"));
        assert_ne!(id, member_id(&urls(&["http://a:1", "http://b:2"]), "u"));
        let member = |name: &str, url: &str| MemberConfig {
            name: name.into(),
            peer_urls: urls(&[url]),
        };
        let (a, b) = (member("a", "http://a:1"), member("b", "http://b:2"));
        assert_eq!(
            cluster_id(&[a.clone(), b.clone()], "t"),
            cluster_id(&[b, member("x", "http://a:1")], "t")
        );
        let alone = [a];
        assert_ne!(cluster_id(&alone, "t"), cluster_id(&alone, "u"));
    }

    #[test]
    fn an_identity_is_read_back() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(Identity::load(dir.path()).unwrap(), None);
        let identity = Identity::new(u64::MAX, 7, &example());
        identity.save(dir.path()).unwrap();
        assert_eq!(Identity::load(dir.path()).unwrap(), Some(identity));
        fs::write(dir.path().join("identity.json"), "{").unwrap();
        assert!(Identity::load(dir.path()).is_err());
    }

    #[test]
    fn the_data_of_another_member_or_cluster_is_refused() {
        let cluster = |names: &[&str]| -> Vec<MemberConfig> {
            let member = |name: &&str| MemberConfig {
                name: name.to_string(),
                peer_urls: urls(&[&format!("http://{name}:1")]),
            };
            names.iter().map(member).collect()
        };
        let first = ReplicaConfig {
            initial_cluster: cluster(&["m0", "m1", "m2"]),
            ..example()
        };
        let identity = Identity::new(1, 2, &first);
        let later = ReplicaConfig {
            initial_cluster: cluster(&["m0", "m7"]),
            ..example()
        };
        assert!(identity.check_is_of(&first).is_ok() && identity.check_is_of(&later).is_ok());
        let others = [
            (
                ReplicaConfig {
                    name: "m1".into(),
                    ..example()
                },
                "member \"m0\", not to \"m1\"",
            ),
            (
                ReplicaConfig {
                    initial_cluster_token: "t".into(),
                    ..example()
                },
                "not \"t\"",
            ),
            (
                ReplicaConfig {
                    initial_cluster: cluster(&["x0", "x1"]),
                    ..example()
                },
                "that of http://m0:1",
            ),
        ];
        for (config, why) in others {
            let error = identity.check_is_of(&config).unwrap_err().to_string();
            assert!(error.contains(why), "{error}");
        }
    }

    #[test]
    fn a_second_incarnation_is_refused_after_a_restart_too() {
        let dir = tempfile::tempdir().unwrap();
        let known = KnownPeers::load(dir.path()).unwrap();
        assert_eq!(known.check(1, 10).unwrap(), Ok(()));
        assert_eq!(known.check(1, 10).unwrap(), Ok(()));
        let known = KnownPeers::load(dir.path()).unwrap();
        assert_eq!(known.check(1, 11).unwrap(), Err(Wiped { member_id: 1 }));
        assert_eq!(known.check(1, 10).unwrap(), Ok(()));
    }

    #[test]
    fn the_membership_wins_over_what_was_seen_first() {
        let dir = tempfile::tempdir().unwrap();
        let known = KnownPeers::load(dir.path()).unwrap();
        assert_eq!(known.check(1, 10).unwrap(), Ok(()));
        known.bind(1, 0);
        assert_eq!(known.incarnation_of(1), Some(10));
        known.bind(1, 11);
        known.bind(2, 20);
        assert_eq!(
            (known.incarnation_of(1), known.incarnation_of(2)),
            (Some(11), Some(20))
        );
        assert_eq!(known.check(1, 10).unwrap(), Err(Wiped { member_id: 1 }));
        assert_eq!(known.check(1, 11).unwrap(), Ok(()));
        assert_eq!(known.check(2, 21).unwrap(), Err(Wiped { member_id: 2 }));
    }

    #[test]
    fn who_cannot_be_remembered_is_not_known() {
        let dir = tempfile::tempdir().unwrap();
        let known = KnownPeers::load(&dir.path().join("missing")).unwrap();
        assert!(known.check(1, 10).is_err());
        assert_eq!(known.incarnation_of(1), None);
        assert!(known.check(1, 10).is_err());
    }

    #[test]
    fn a_founder_takes_part_once_it_is_admitted_and_a_refused_one_leaves_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let founder = Identity::new(1, 2, &example());
        assert!(founder.founder && !founder.is_admitted());
        let joins = ReplicaConfig {
            new_cluster: false,
            ..example()
        };
        let joined = Identity::new(1, 2, &joins);
        assert!(!joined.founder && joined.is_admitted());
        founder.save(dir.path()).unwrap();
        let known = KnownPeers::load(dir.path()).unwrap();
        assert_eq!(known.check(1, 10).unwrap(), Ok(()));
        Identity::forget(dir.path()).unwrap();
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
        Identity::forget(dir.path()).unwrap();
    }
}
