//! The parts of a running member, as its peers and its own handle reach them.

use barque_store::Store;

use crate::{
    barrier::Barrier,
    keeper::Keeper,
    membership::Membership,
    oversight::{condemned::Condemned, scrub::Scrubber},
    types::Raft,
};

pub struct Running {
    pub raft: Raft,
    pub barrier: Barrier,
    pub keeper: Keeper,
    pub membership: Membership,
    pub store: Store,
    pub scrubber: Scrubber,
    pub condemned: Condemned,
}
