//! Who this member is: IDs derived at bootstrap, and the file that keeps them.
//!
//! As in etcd a member's ID is a hash of its peer URLs and the cluster's token, the cluster's ID a hash of the
//! first members' IDs. Besides, a member draws a random *incarnation* when its data directory is made, and a member
//! whose data was wiped comes back with another. The membership says which one is right as soon as the member has
//! told it; until then peers go by the first one that they saw. The file also counts the starts of the data directory,
//! by which peers tell it from an older copy of itself: see [`crate::known_peers`].

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
};

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use sha2::{Digest, Sha256};

use crate::{
    MemberConfig, ReplicaConfig, StartError,
    known_peers::{KnownPeers, LIVES},
    refusal::REPLACE_UNKNOWN,
    sealed::{self, Found},
    types::Start,
};

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

/// The content of `member/identity.json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Identity {
    #[serde(with = "sealed::hex")]
    pub cluster_id: u64,
    #[serde(with = "sealed::hex")]
    pub member_id: u64,
    #[serde(with = "sealed::hex")]
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
    /// How many times the data directory was started, the life under way included.
    #[serde(default)]
    pub starts: u64,
    /// The last of them, the one under way included, by which peers tell it from a copy that was started as often.
    #[serde(default)]
    pub lives: Vec<Start>,
    /// Why it never starts again: it lost what it had promised.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retired: Option<String>,
}

impl Identity {
    pub fn new(cluster_id: u64, member_id: u64, config: &ReplicaConfig) -> Self {
        let incarnation = rand::random::<u64>().max(1);
        Self {
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
            starts: 0,
            lives: Vec::new(),
            retired: None,
        }
    }

    /// A life begins.
    pub fn count_start(&mut self) {
        self.starts += 1;
        self.lives.push(Start {
            number: self.starts,
            life: rand::random(),
        });
        let surplus = self.lives.len().saturating_sub(LIVES);
        self.lives.drain(..surplus);
    }

    /// The life under way.
    pub fn life(&self) -> Option<Start> {
        self.lives.last().copied()
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
        let found: Option<Found<Self>> = sealed::load(&Self::path(member_dir), of_format_1)
            .map_err(|error| StartError::Identity(not_readable(&error)))?;
        Ok(found.map(Found::into_inner))
    }

    pub fn save(&self, member_dir: &Path) -> io::Result<()> {
        sealed::save(&Self::path(member_dir), self)
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

    pub fn path(member_dir: &Path) -> PathBuf {
        member_dir.join("identity.json")
    }
}

/// A copy from before the last start is refused by the other members, as its count of starts is too low.
fn not_readable(error: &io::Error) -> String {
    format!("{error}; nothing was changed: put it back as it was since the last start, {REPLACE_UNKNOWN}")
}

fn of_format_1(value: Value) -> Option<Map<String, Value>> {
    match value {
        Value::Object(mut fields) => {
            fields.remove("format_version");
            Some(fields)
        }
        _ => None,
    }
}

/// The identity of a member that runs, and its file: changed by several tasks, one at a time.
#[derive(Clone)]
pub struct KeptIdentity {
    member_dir: Arc<PathBuf>,
    identity: Arc<Mutex<Identity>>,
}

impl KeptIdentity {
    pub fn new(identity: Identity, member_dir: PathBuf) -> Self {
        Self {
            member_dir: Arc::new(member_dir),
            identity: Arc::new(Mutex::new(identity)),
        }
    }

    pub fn get(&self) -> Identity {
        self.identity.lock().clone()
    }

    /// The change is durable when this returns, and not made at all after an error.
    pub fn change(&self, change: impl FnOnce(&mut Identity)) -> io::Result<()> {
        let mut identity = self.identity.lock();
        let mut changed = identity.clone();
        change(&mut changed);
        changed.save(&self.member_dir)?;
        *identity = changed;
        Ok(())
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
        let error = Identity::load(dir.path()).unwrap_err().to_string();
        assert!(error.contains("identity.json: damaged"), "{error}");
    }

    #[test]
    fn a_changed_digit_of_an_id_is_found() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("identity.json");
        Identity::new(0xaaaa, 0xbbbb, &example())
            .save(dir.path())
            .unwrap();
        let whole = fs::read_to_string(&path).unwrap();
        for (digit, other) in [
            ("aaaa", "aaab"),
            ("bbbb", "bbba"),
            ("\"starts\": 0", "\"starts\": 1"),
        ] {
            assert!(whole.contains(digit), "{whole}");
            fs::write(&path, whole.replace(digit, other)).unwrap();
            let error = Identity::load(dir.path()).unwrap_err().to_string();
            assert!(
                error.contains("identity.json: damaged: its checksum is"),
                "{error}"
            );
        }
    }

    #[test]
    fn an_identity_of_format_1_is_taken_over() {
        let dir = tempfile::tempdir().unwrap();
        let old = r#"{"format_version":1,"cluster_id":"a","member_id":"b","incarnation":"c","name":"m0","has_log":true}"#;
        fs::write(dir.path().join("identity.json"), old).unwrap();
        let identity = Identity::load(dir.path()).unwrap().unwrap();
        assert_eq!((identity.incarnation, identity.starts), (0xc, 0));
        identity.save(dir.path()).unwrap();
        assert_eq!(Identity::load(dir.path()).unwrap(), Some(identity));
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
        KnownPeers::create(dir.path()).unwrap();
        founder.save(dir.path()).unwrap();
        Identity::forget(dir.path()).unwrap();
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
        Identity::forget(dir.path()).unwrap();
    }
}
