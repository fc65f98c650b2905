//! What members say to each other over their own listener: sockets, links to peers, the service they call.

pub mod acknowledged;
pub mod agreement;
pub mod append;
pub mod certificate;
pub mod discovery;
pub mod introduction;
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
use tonic::{
    Status,
    metadata::{AsciiMetadataValue, MetadataMap},
};

use crate::{
    known_peers::{KnownPeers, Told, parse_start, past},
    refusal::{Refusal, Why},
    types::{Me, Start},
};

pub const CLUSTER_ID: &str = "barque-cluster-id";
pub const FROM: &str = "barque-from";
pub const TO: &str = "barque-to";
pub const INCARNATION: &str = "barque-incarnation";
/// Number and life of the start, in hexadecimal with a dash between.
pub const START: &str = "barque-start";
/// The last lives of the sender's data directory.
const PAST: &str = "barque-past";
/// On a refusal: the member that it names must stop.
const STOP: &str = "barque-stop";

/// An AppendEntries holds about a megabyte, and one entry more.
pub const MAX_MESSAGE_BYTES: usize = 64 << 20;
/// The largest entry that surely fits one, with what else is in it.
pub const MAX_ENTRY_BYTES: usize = MAX_MESSAGE_BYTES - (4 << 20);

/// Decides who may talk to this member: the right cluster, the right addressee, the incarnation known.
#[derive(Debug, Clone)]
pub struct Gate {
    pub me: Me,
    pub known: Arc<KnownPeers>,
    /// Why this member must stop.
    stop: Arc<tokio::sync::watch::Sender<Option<Stop>>>,
    /// This member's last lives, as they are shown.
    past: AsciiMetadataValue,
    /// Why peers were refused, each logged once.
    refused: Arc<Mutex<HashSet<String>>>,
}

/// Why a member must stop.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stop {
    pub reason: String,
    /// It must never start again either.
    pub for_good: bool,
}

impl From<Refusal> for Stop {
    fn from(refusal: Refusal) -> Self {
        Self {
            reason: refusal.to_string(),
            for_good: refusal.why.is_for_good(),
        }
    }
}

/// Distinct reasons for refusals that are logged in a member's life.
const REASONS_LOGGED: usize = 1000;

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
            past: AsciiMetadataValue::from_static(""),
            refused: Arc::default(),
        }
    }

    /// Shows these lives to peers.
    pub fn with_past(mut self, lives: &[Start]) -> Self {
        let past = past(lives).parse();
        self.past = past.expect("hexadecimal digits, dashes and commas are valid metadata");
        self
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
        self.stamp_start(metadata);
    }

    /// Stamps a reply, so that the caller knows whose answer it is.
    pub fn stamp_reply(&self, metadata: &mut MetadataMap) {
        let value = format!("{:x}", self.me.incarnation).parse();
        metadata.insert(INCARNATION, value.expect("hexadecimal digits are valid metadata"));
        self.stamp_start(metadata);
    }

    fn stamp_start(&self, metadata: &mut MetadataMap) {
        let Start { number, life } = self.me.start;
        let value = format!("{number:x}-{life:x}").parse();
        metadata.insert(
            START,
            value.expect("hexadecimal digits and a dash are valid metadata"),
        );
        metadata.insert(PAST, self.past.clone());
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
        let told = told(metadata)?;
        self.check(from, told)?;
        let incarnation = told.incarnation;
        Ok(Caller {
            member_id: from,
            incarnation,
        })
    }

    /// Notes a member that asks before it belongs to anything, unless another incarnation of it is known; durable
    /// when this returns.
    pub fn introduce(&self, member_id: u64, incarnation: u64) -> std::io::Result<()> {
        let told = Told {
            incarnation,
            start: None,
            past: "",
        };
        if let Err(refusal) = self.known.check(member_id, told)? {
            self.refuse(refusal.to_string());
        }
        Ok(())
    }

    /// Whether a reply comes from the peer that was called, and not from another data directory.
    pub fn admit_reply(&self, from: u64, metadata: &MetadataMap) -> Result<(), Status> {
        self.check(from, told(metadata)?)
    }

    fn check(&self, member_id: u64, told: Told) -> Result<(), Status> {
        match self.known.check(member_id, told) {
            Ok(Ok(())) => Ok(()),
            Ok(Err(refusal)) => Err(self.refuse_for(refusal)),
            Err(error) => Err(Status::internal(format!(
                "cannot remember member {member_id:x}: {error}"
            ))),
        }
    }

    fn refuse(&self, reason: String) -> Status {
        let mut refused = self.refused.lock();
        if refused.len() < REASONS_LOGGED && refused.insert(reason.clone()) {
            tracing::warn!(reason, "refused a peer");
        }
        Status::failed_precondition(reason)
    }

    /// Tells the member that it must stop, and whether it may ever come back.
    pub fn refuse_for(&self, refusal: Refusal) -> Status {
        let mut status = self.refuse(refusal.to_string());
        let end = match refusal.why.is_for_good() {
            true => "for-good",
            false => "now",
        };
        let value = format!("{:x} {end}", refusal.member_id).parse();
        status.metadata_mut().insert(
            STOP,
            value.expect("hexadecimal digits and a word are valid metadata"),
        );
        status
    }

    pub fn is_stopping(&self) -> bool {
        self.stop.borrow().is_some()
    }

    /// Why this member must stop, when it must.
    pub fn stopping(&self) -> tokio::sync::watch::Receiver<Option<Stop>> {
        self.stop.subscribe()
    }

    /// A peer has lost entries that it had acknowledged to this member while it leads. Its acknowledgements count no
    /// more, here and after a restart.
    pub fn lost_entries(&self, member_id: u64, acknowledged: u64, missing: u64) -> Status {
        match self.known.note_lost(member_id, acknowledged, missing) {
            Ok(refusal) => {
                tracing::error!("{refusal}");
                self.refuse_for(refusal)
            }
            Err(error) => Status::internal(format!("cannot remember member {member_id:x}: {error}")),
        }
    }

    /// A peer refused this member: if it says that this member has lost its data, or is none any more, this member
    /// stops.
    pub fn refused_by(&self, peer: u64, status: &Status) {
        if status.code() != tonic::Code::FailedPrecondition {
            return;
        }
        self.refuse(format!("refused by member {peer:x}: {}", status.message()));
        let me = format!("{:x}", self.me.member_id);
        let told = status.metadata().get(STOP).and_then(|value| value.to_str().ok());
        if let Some((_, end)) = told
            .and_then(|told| told.split_once(' '))
            .filter(|(id, _)| *id == me)
        {
            self.stop_for(Stop {
                reason: status.message().to_owned(),
                for_good: end == "for-good",
            });
        }
    }

    /// This member cannot go on. Whether nobody had said so before: the first reason stays.
    pub fn stop(&self, reason: String) -> bool {
        self.stop_for(Stop {
            reason,
            for_good: false,
        })
    }

    fn stop_for(&self, stop: Stop) -> bool {
        self.stop.send_if_modified(|stopping| {
            let is_first = stopping.is_none();
            stopping.get_or_insert(stop);
            is_first
        })
    }

    /// Another data directory speaks under this member's ID.
    pub fn stop_as_wiped(&self) {
        let refusal = Refusal {
            member_id: self.me.member_id,
            why: Why::Wiped,
        };
        self.stop_for(refusal.into());
    }
}

/// What a call or a reply says of the life that sent it.
fn told(metadata: &MetadataMap) -> Result<Told<'_>, Status> {
    let incarnation = number(metadata, INCARNATION)?;
    let Some(value) = metadata.get(START) else {
        return Ok(Told {
            incarnation,
            start: None,
            past: "",
        });
    };
    let start = value.to_str().ok().and_then(parse_start);
    let start = start.ok_or_else(|| Status::failed_precondition(format!("{START} is not two numbers")))?;
    Ok(Told {
        incarnation,
        start: Some(start),
        past: metadata
            .get(PAST)
            .and_then(|past| past.to_str().ok())
            .unwrap_or(""),
    })
}

fn number(metadata: &MetadataMap, key: &str) -> Result<u64, Status> {
    let text = metadata.get(key).and_then(|value| value.to_str().ok());
    let value = text.and_then(|text| u64::from_str_radix(text, 16).ok());
    value.ok_or_else(|| Status::failed_precondition(format!("{key} is missing or not a number")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gate(dir: &std::path::Path, cluster_id: u64, member_id: u64, incarnation: u64, start: u64) -> Gate {
        let me = Me {
            cluster_id,
            member_id,
            incarnation,
            start: Start {
                number: start,
                life: 7,
            },
        };
        let dir = dir.join(format!("{member_id}-{incarnation}"));
        std::fs::create_dir_all(&dir).unwrap();
        KnownPeers::create(&dir).unwrap();
        let known = KnownPeers::load(&dir, false).unwrap().unwrap();
        known.expect([10, 11]);
        Gate::new(me, Arc::new(known))
    }

    fn call(server: &Gate, client: &Gate, to: u64) -> Result<Caller, Status> {
        let mut metadata = MetadataMap::new();
        client.stamp(&mut metadata, to);
        server.admit(&metadata)
    }

    fn refusal(server: &Gate, client: &Gate, to: u64) -> Option<String> {
        call(server, client, to)
            .err()
            .map(|status| status.message().to_string())
    }

    #[test]
    fn only_the_right_peer_passes() {
        let dir = tempfile::tempdir().unwrap();
        let server = gate(dir.path(), 1, 10, 100, 1);
        assert_eq!(refusal(&server, &gate(dir.path(), 1, 11, 101, 2), 10), None);
        let text = refusal(&server, &gate(dir.path(), 2, 11, 101, 2), 10).unwrap();
        assert!(text.contains("of cluster 2, this is cluster 1"), "{text}");
        let text = refusal(&server, &gate(dir.path(), 1, 11, 101, 2), 12).unwrap();
        assert!(text.contains("looks for member c"), "{text}");
        let text = refusal(&server, &gate(dir.path(), 1, 11, 999, 2), 10).unwrap();
        assert!(text.contains("member b has already been bootstrapped"), "{text}");
        let text = refusal(&server, &gate(dir.path(), 1, 11, 101, 1), 10).unwrap();
        assert!(
            text.contains("member b runs on an older copy of its data"),
            "{text}"
        );
        assert!(server.admit(&MetadataMap::new()).is_err());
    }

    #[test]
    fn a_start_that_is_not_two_numbers_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let (server, client) = (gate(dir.path(), 1, 10, 100, 1), gate(dir.path(), 1, 11, 101, 1));
        for bad in ["", "1", "-", "1-", "x-1", "1-2-3"] {
            let mut metadata = MetadataMap::new();
            client.stamp(&mut metadata, 10);
            metadata.insert(START, bad.parse().unwrap());
            assert!(server.admit(&metadata).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_member_that_lost_its_data_stops_when_it_is_told() {
        let dir = tempfile::tempdir().unwrap();
        let server = gate(dir.path(), 1, 10, 100, 1);
        assert_eq!(refusal(&server, &gate(dir.path(), 1, 11, 101, 2), 10), None);
        for (incarnation, start, text, for_good) in [
            (999, 2, "has already been bootstrapped", false),
            (101, 1, "an older copy", true),
        ] {
            let told = gate(dir.path(), 1, 11, incarnation, start);
            let status = call(&server, &told, 10).unwrap_err();
            // Of somebody else it says nothing.
            let bystander = gate(dir.path(), 1, 12, 102, 1);
            bystander.refused_by(10, &status);
            assert_eq!(*bystander.stop.borrow(), None);
            told.refused_by(10, &status);
            let stop = told.stop.borrow().clone().unwrap();
            assert!(stop.reason.contains(text), "{}", stop.reason);
            assert_eq!(stop.for_good, for_good);
        }
    }

    #[test]
    fn who_lost_entries_is_answered_and_believed_no_more() {
        let dir = tempfile::tempdir().unwrap();
        let (server, client) = (gate(dir.path(), 1, 10, 100, 1), gate(dir.path(), 1, 11, 101, 1));
        let mut reply = MetadataMap::new();
        client.stamp_reply(&mut reply);
        assert!(server.admit_reply(11, &reply).is_ok());
        let status = server.lost_entries(11, 9, 7);
        assert!(
            status.message().contains("up to 9, and entry 7"),
            "{}",
            status.message()
        );
        assert!(server.admit_reply(11, &reply).is_err());
        client.refused_by(10, &call(&server, &client, 10).unwrap_err());
        assert!(client.stop.borrow().as_ref().unwrap().for_good);
    }
}
