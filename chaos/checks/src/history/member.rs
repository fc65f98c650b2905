//! What a member says about itself: [`MemberState`], [`LeaderRecord`]; and one that lost its data: [`WipedRecord`].

use serde::{Deserialize, Serialize};

use super::Revision;

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct MemberState {
    pub member: u32,
    pub revision: Revision,
    pub compact_revision: Revision,
    /// The index of the last applied log entry; 0: not told.
    pub applied: u64,
    /// Of the content up to `hash_revision`.
    pub hash: u64,
    /// 0: no hash was taken.
    pub hash_revision: Revision,
}

/// A member saying that it leads.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeaderRecord {
    pub time: u64,
    pub term: u64,
    pub member: u32,
}

/// A member that was started without its data, or without what was written last, as if nothing had happened.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct WipedRecord {
    pub member: u32,
    pub from: u64,
    pub until: u64,
    /// Whether it served clients in that time.
    pub served: bool,
    /// It had some data: an earlier copy, or what was found out to be less than it had acknowledged.
    pub has_older_copy: bool,
}
