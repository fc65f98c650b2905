//! The parts of a running member, as its peers and its own handle reach them.

use crate::{barrier::Barrier, keeper::Keeper, membership::Membership, types::Raft};

pub struct Running {
    pub raft: Raft,
    pub barrier: Barrier,
    pub keeper: Keeper,
    pub membership: Membership,
}
