//! The parts of a running member, as its peers and its own handle reach them.

use std::{fs::File, sync::OnceLock};

use barque_store::Store;

use crate::{
    barrier::Barrier,
    keeper::Keeper,
    log_store::LogStore,
    membership::Membership,
    oversight::{condemned::Condemned, scrub::Scrubber},
    types::Raft,
};

pub struct Running {
    pub raft: Raft,
    /// To compare with what a leader sends.
    pub log: LogStore,
    pub barrier: Barrier,
    pub keeper: Keeper,
    pub membership: Membership,
    pub store: Store,
    pub scrubber: Scrubber,
    pub condemned: Condemned,
    /// The data directory, as long as anybody reaches the member.
    pub locked: OnceLock<File>,
}

impl Running {
    pub fn keep_locked(&self, locked: File) {
        // Set once, by the start of the member.
        drop(self.locked.set(locked));
    }
}
