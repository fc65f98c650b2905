//! The parts of a running member, as its peers and its own handle reach them.

use std::{fs::File, sync::OnceLock};

use crate::{barrier::Barrier, keeper::Keeper, log_store::LogStore, membership::Membership, types::Raft};

pub struct Running {
    pub raft: Raft,
    /// To compare with what a leader sends.
    pub log: LogStore,
    pub barrier: Barrier,
    pub keeper: Keeper,
    pub membership: Membership,
    /// The data directory, as long as anybody reaches the member.
    pub locked: OnceLock<File>,
}

impl Running {
    pub fn keep_locked(&self, locked: File) {
        // Set once, by the start of the member.
        drop(self.locked.set(locked));
    }
}
