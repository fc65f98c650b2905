//! What members say to each other over their own listener: sockets, links to peers, the service they call.

pub mod append;
pub mod certificate;
pub mod discovery;
pub mod lanes;
pub mod link;
pub mod listener;
pub mod network;
pub mod server;
pub mod snapshot_receive;
pub mod snapshot_send;
pub mod socket;

use std::{collections::HashSet, sync::Arc};

use parking_lot::Mutex;
use tonic::{Status, metadata::MetadataMap};

use crate::{
    identity::{self, KnownPeers, Wiped},
    types::Me,
};

pub const CLUSTER_ID: &str = "barque-cluster-id";
pub const FROM: &str = "barque-from";
pub const TO: &str = "barque-to";
pub const INCARNATION: &str = "barque-incarnation";

/// An AppendEntries holds about a megabyte, and one entry more.
pub const MAX_MESSAGE_BYTES: usize = 64 << 20;
/// The largest entry that surely fits one, with what else is in it.
pub const MAX_ENTRY_BYTES: usize = MAX_MESSAGE_BYTES - (4 << 20);

/// Decides who may talk to this member: the right cluster, the right addressee, the incarnation known.
#[derive(Debug, Clone)]
pub struct Gate {
    pub me: Me,
    pub known: Arc<KnownPeers>,
    /// Why this member must stop, as peers told it.
    pub stop: Arc<tokio::sync::watch::Sender<Option<String>>>,
    refused: Arc<Mutex<HashSet<String>>>,
    /// Members that this one has seen leave.
    removed: Arc<Mutex<HashSet<u64>>>,
}

/// Who calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Caller {
    pub member_id: u64,
    pub incarnation: u64,
}

impl Gate {
    pub fn new(me: Me, known: Arc<KnownPeers>) -> Self {
        known.bind(me.member_id, me.incarnation);
        let stop = Arc::new(tokio::sync::watch::Sender::new(None));
        Self {
            me,
            known,
            stop,
            refused: Arc::default(),
            removed: Arc::default(),
        }
    }

    /// The membership no longer holds these; their IDs never come back.
    pub fn remove(&self, members: impl IntoIterator<Item = u64>) {
        self.removed.lock().extend(members);
    }

    /// Stamps an outgoing call.
    pub fn stamp(&self, metadata: &mut MetadataMap, to: u64) {
        for (key, value) in [
            (CLUSTER_ID, self.me.cluster_id),
            (FROM, self.me.member_id),
            (TO, to),
            (INCARNATION, self.me.incarnation),
        ] {
            let value = format!("{value:x}")
                .parse()
                .expect("hexadecimal digits are valid metadata");
            metadata.insert(key, value);
        }
    }

    /// Stamps a reply, so that the caller knows whose answer it is.
    pub fn stamp_reply(&self, metadata: &mut MetadataMap) {
        let value = format!("{:x}", self.me.incarnation).parse();
        metadata.insert(INCARNATION, value.expect("hexadecimal digits are valid metadata"));
    }

    /// Who calls, if they may.
    pub fn admit(&self, metadata: &MetadataMap) -> Result<Caller, Status> {
        let from = number(metadata, FROM)?;
        let cluster = number(metadata, CLUSTER_ID)?;
        let to = number(metadata, TO)?;
        if cluster != self.me.cluster_id {
            let ours = self.me.cluster_id;
            return Err(self.refuse(format!(
                "member {from:x} is of cluster {cluster:x}, this is cluster {ours:x}"
            )));
        }
        if to != self.me.member_id {
            let me = self.me.member_id;
            return Err(self.refuse(format!(
                "member {from:x} looks for member {to:x}, this is member {me:x}"
            )));
        }
        let incarnation = number(metadata, INCARNATION)?;
        self.check_incarnation(from, incarnation)?;
        if self.removed.lock().contains(&from) {
            return Err(self.refuse(identity::removed(from)));
        }
        Ok(Caller {
            member_id: from,
            incarnation,
        })
    }

    /// Notes a member that asks before it belongs to anything, unless another incarnation of it is known; durable
    /// when this returns.
    pub fn introduce(&self, member_id: u64, incarnation: u64) -> std::io::Result<()> {
        if let Err(wiped) = self.known.check(member_id, incarnation)? {
            self.refuse(wiped.to_string());
        }
        Ok(())
    }

    /// Whether a reply comes from the peer that was called, and not from another data directory.
    pub fn admit_reply(&self, from: u64, metadata: &MetadataMap) -> Result<(), Status> {
        self.check_incarnation(from, number(metadata, INCARNATION)?)
    }

    fn check_incarnation(&self, member_id: u64, incarnation: u64) -> Result<(), Status> {
        match self.known.check(member_id, incarnation) {
            Ok(Ok(())) => Ok(()),
            Ok(Err(Wiped { member_id })) => Err(self.refuse(Wiped { member_id }.to_string())),
            Err(error) => Err(Status::internal(format!(
                "cannot remember member {member_id:x}: {error}"
            ))),
        }
    }

    fn refuse(&self, reason: String) -> Status {
        let mut refused = self.refused.lock();
        if refused.len() < 1000 && refused.insert(reason.clone()) {
            tracing::warn!(reason, "refused a peer");
        }
        Status::failed_precondition(reason)
    }

    /// A peer refused this member: if it says that our data was wiped, or that we are no member any more, this
    /// member stops.
    pub fn refused_by(&self, peer: u64, status: &Status) {
        if status.code() != tonic::Code::FailedPrecondition {
            return;
        }
        self.refuse(format!("refused by member {peer:x}: {}", status.message()));
        let me = self.me.member_id;
        let fatal = [identity::already_bootstrapped(me), identity::removed(me)];
        if let Some(reason) = fatal.into_iter().find(|reason| status.message() == reason) {
            self.stop.send_replace(Some(reason));
        }
    }
}

fn number(metadata: &MetadataMap, key: &str) -> Result<u64, Status> {
    let text = metadata.get(key).and_then(|value| value.to_str().ok());
    let value = text.and_then(|text| u64::from_str_radix(text, 16).ok());
    value.ok_or_else(|| Status::failed_precondition(format!("{key} is missing or not a number")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gate(dir: &std::path::Path, cluster_id: u64, member_id: u64, incarnation: u64) -> Gate {
        let me = Me {
            cluster_id,
            member_id,
            incarnation,
        };
        let dir = dir.join(format!("{member_id}-{incarnation}"));
        std::fs::create_dir_all(&dir).unwrap();
        Gate::new(me, Arc::new(KnownPeers::load(&dir).unwrap()))
    }

    fn refusal(server: &Gate, client: &Gate, to: u64) -> Option<String> {
        let mut metadata = MetadataMap::new();
        client.stamp(&mut metadata, to);
        server
            .admit(&metadata)
            .err()
            .map(|status| status.message().to_string())
    }

    #[test]
    fn only_the_right_peer_passes() {
        let dir = tempfile::tempdir().unwrap();
        let server = gate(dir.path(), 1, 10, 100);
        assert_eq!(refusal(&server, &gate(dir.path(), 1, 11, 101), 10), None);
        let text = refusal(&server, &gate(dir.path(), 2, 11, 101), 10).unwrap();
        assert!(text.contains("of cluster 2, this is cluster 1"), "{text}");
        let text = refusal(&server, &gate(dir.path(), 1, 11, 101), 12).unwrap();
        assert!(text.contains("looks for member c"), "{text}");
        let text = refusal(&server, &gate(dir.path(), 1, 11, 999), 10).unwrap();
        assert!(text.contains("member b has already been bootstrapped"), "{text}");
        assert!(server.admit(&MetadataMap::new()).is_err());
    }

    #[test]
    fn a_wiped_member_stops_when_it_is_told() {
        let dir = tempfile::tempdir().unwrap();
        let server = gate(dir.path(), 1, 10, 100);
        assert_eq!(refusal(&server, &gate(dir.path(), 1, 11, 101), 10), None);
        let wiped = gate(dir.path(), 1, 11, 999);
        let mut metadata = MetadataMap::new();
        wiped.stamp(&mut metadata, 10);
        let status = server.admit(&metadata).unwrap_err();
        wiped.refused_by(10, &status);
        assert!(
            wiped
                .stop
                .borrow()
                .as_ref()
                .unwrap()
                .contains("has already been bootstrapped")
        );
    }
}
