//! What clients did and saw in one run: [`History`].
//!
//! A history is plain data. Times are microseconds since the run began, by the one clock of whoever recorded it (the
//! virtual clock of a simulation, the monotonic clock of a harness). Three things are asked of the traffic:
//!
//! - it begins with none of its keys in the store,
//! - every put writes a value that no other put writes (`client/sequence`),
//! - a lease id is granted at most once.

mod committed;
mod fault;
mod kubernetes;
mod member;
mod membership;
mod operation;
mod request;
mod response;
mod shape;
mod span;
mod watch;

use serde::{Deserialize, Serialize};

pub use committed::{Committed, CommittedRevision};
pub use fault::FaultRecord;
pub use kubernetes::{
    KubernetesCall, KubernetesError, KubernetesOutcome, KubernetesRecord, KubernetesType, KubernetesVerb,
    KubernetesWrite,
};
pub use member::{LeaderRecord, MemberState, WipedRecord};
pub use membership::{ChangeKind, MemberListing, MembershipChange};
pub use operation::{Operation, Outcome};
pub use request::{Compare, Relation, Request, Target};
pub use response::{Answer, KeyValue, Response};
pub use shape::{Order, Shape};
pub use span::KeySpan;
pub use watch::{EventKind, WatchEvent, WatchKind, WatchRecord, WatchResponse};

/// An MVCC revision, as etcd counts it: an empty store is at 1, and 0 says that there is none.
pub type Revision = i64;

/// Everything that was recorded in one run.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct History {
    pub seed: u64,
    /// What was started and how, for people.
    pub description: String,
    pub members: Vec<u32>,
    pub operations: Vec<Operation>,
    pub watches: Vec<WatchRecord>,
    /// Taken at any moments, at least once from each member at the end.
    pub states: Vec<MemberState>,
    pub faults: Vec<FaultRecord>,
    /// Kinds of fault that the run was asked for; see [`crate::counts`].
    pub requested_faults: Vec<String>,
    pub leaders: Vec<LeaderRecord>,
    pub wiped: Vec<WipedRecord>,
    pub changes: Vec<MembershipChange>,
    pub listings: Vec<MemberListing>,
    /// Every revision there was, as a watch that followed the whole run was told; what answers are compared with.
    pub committed: Option<Committed>,
    pub kubernetes: Vec<KubernetesRecord>,
    pub kubernetes_writes: Vec<KubernetesWrite>,
    pub kubernetes_errors: Vec<KubernetesError>,
    pub kubernetes_calls: Vec<KubernetesCall>,
    /// The keys that nobody but the recorded clients writes; `None`: all keys.
    pub scope: Option<KeySpan>,
    /// Members had so little room that writes may be refused.
    pub has_quota: bool,
    /// There were clients of the Kubernetes API; see [`crate::counts`].
    pub has_objects: bool,
    /// After the last call the members had longer than any lease lives, in good health, before `committed` was complete.
    pub outlived_leases: bool,
    /// How much sooner than by the recorder's clock a member's clock may see a lease end.
    pub clock_tolerance_us: u64,
    /// How long a fault is felt after its end, for [`crate::counts`]; `None`: five seconds.
    pub aftermath_us: Option<u64>,
}

impl History {
    /// From the first call to the last thing seen.
    pub fn bounds(&self) -> (u64, u64) {
        let calls = self.operations.iter().map(|operation| operation.call);
        let returns = self.operations.iter().filter_map(|operation| operation.ret);
        let objects = self
            .kubernetes_calls
            .iter()
            .flat_map(|call| [call.call, call.ret]);
        let faults = self.faults.iter().flat_map(|fault| [fault.from, fault.until]);
        let leaders = self.leaders.iter().map(|leader| leader.time);
        let seen = calls.chain(returns).chain(objects).chain(faults).chain(leaders);
        let (first, last) = seen.fold((u64::MAX, 0), |(first, last), time| {
            (first.min(time), last.max(time))
        });
        if first > last { (0, 0) } else { (first, last) }
    }

    /// Whether only the recorded clients write this key.
    pub fn in_scope(&self, key: &str) -> bool {
        self.scope.as_ref().is_none_or(|scope| scope.contains(key))
    }
}
