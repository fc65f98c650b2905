//! The openraft types of this crate: what an entry, a member and a vote are to Raft.
//!
//! Standard Raft: one leader per term, so a log id is (term, index). Nothing in here leaves the crate.

use std::fmt;

use bytes::Bytes;
use openraft::{RaftTypeConfig, impls::leader_id_std, raft::responder::Responder};
use serde::{Deserialize, Serialize};

use crate::{sealed::hex, state_machine::StateMachine};

/// Ties openraft's parameters to ours.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct TypeConfig;

impl RaftTypeConfig for TypeConfig {
    type D = Commands;
    type R = ();
    type NodeId = u64;
    type Node = Node;
    type Term = u64;
    type LeaderId = leader_id_std::LeaderId<u64, u64>;
    type Vote = openraft::impls::Vote<Self::LeaderId>;
    type Payload = openraft::EntryPayload<Commands, u64, Node>;
    type Entry = openraft::Entry<<Self::LeaderId as openraft::vote::RaftLeaderId>::Committed, Self::Payload>;
    type AsyncRuntime = openraft_rt_tokio::TokioRuntime;
    type Responder<T>
        = Callback<T>
    where
        T: openraft::OptionalSend + 'static;
    type Batch<T>
        = openraft::impls::InlineBatch<T>
    where
        T: openraft::OptionalSend + 'static;
    type ErrorSource = openraft::impls::BoxedErrorSource;
}

pub type Raft = openraft::Raft<TypeConfig, StateMachine>;
pub type Fatal = openraft::errors::Fatal<TypeConfig>;
pub type LeaderId = <TypeConfig as RaftTypeConfig>::LeaderId;
pub type Vote = <TypeConfig as RaftTypeConfig>::Vote;
pub type LogId = openraft::alias::LogIdOf<TypeConfig>;
pub type Entry = <TypeConfig as RaftTypeConfig>::Entry;
pub type Membership = openraft::Membership<u64, Node>;
pub type StoredMembership = openraft::alias::StoredMembershipOf<TypeConfig>;
pub type SnapshotMeta = openraft::alias::SnapshotMetaOf<TypeConfig>;
pub type Snapshot = openraft::alias::SnapshotOf<TypeConfig, crate::snapshot::SnapshotData>;

pub fn log_id(term: u64, index: u64) -> LogId {
    LogId::new_term_index(term, index)
}

/// An encoded `CommandBatch`. Raft never looks inside.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Commands(pub Bytes);

impl fmt::Debug for Commands {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "batch of {} bytes", self.0.len())
    }
}

impl fmt::Display for Commands {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

/// What the membership says of a member.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Node {
    pub name: String,
    pub peer_urls: Vec<String>,
    pub client_urls: Vec<String>,
    /// The one data directory that may speak under the member's ID; 0: the member has not told it yet.
    pub incarnation: u64,
    /// Added in order to vote: the leader makes it a voter by itself once it has caught up.
    pub to_vote: bool,
}

/// Told what became of a local proposal; dropping it says nothing.
pub struct Callback<T>(pub Box<dyn FnOnce(T) + Send>);

impl<T: Send + 'static> Responder<TypeConfig, T> for Callback<T> {
    fn on_complete(self, result: T) {
        (self.0)(result)
    }
}

/// One life of a member: the how-manieth of its data directory, and a random number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Start {
    pub number: u64,
    #[serde(with = "hex")]
    pub life: u64,
}

/// What every part of a running member knows of itself.
#[derive(Debug, Clone, Copy)]
pub struct Me {
    pub cluster_id: u64,
    pub member_id: u64,
    pub incarnation: u64,
    pub start: Start,
}
