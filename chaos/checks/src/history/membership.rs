//! Changes of the membership, and what was listed: [`MembershipChange`], [`MemberListing`].

use serde::{Deserialize, Serialize};

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum ChangeKind {
    Added,
    Updated,
    Removed,
}

/// A change that was asked for. Each is of a member of its own, or made by whoever made the one before.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MembershipChange {
    pub call: u64,
    /// When it was acknowledged; `None`: never.
    pub ret: Option<u64>,
    /// The member's ID; 0: one that was to be added, and nobody said which ID it has.
    pub id: u64,
    pub kind: ChangeKind,
    /// Its peer URLs from then on; none of one that is removed.
    pub urls: Vec<String>,
}

impl MembershipChange {
    /// Asked for, and not acknowledged yet.
    pub fn new(id: u64, kind: ChangeKind, urls: Vec<String>) -> MembershipChange {
        MembershipChange {
            call: 0,
            ret: None,
            id,
            kind,
            urls,
        }
    }
}

/// All members with their peer URLs, as a linearizable read told them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemberListing {
    pub call: u64,
    pub ret: u64,
    pub members: Vec<(u64, Vec<String>)>,
}
