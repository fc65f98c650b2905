//! The keyspace as it ought to be, derived from what was committed.
//!
//! [`Timeline`] knows the content at every revision, [`evaluate`] what a request does to it, [`Sightings`] when which
//! revision was known to whom, and [`Owners`] who made each revision. [`Evidence`] holds them together, so that every
//! check of one history derives them once.

mod compactions;
mod consistency;
mod evaluate;
mod evidence;
mod matching;
mod owners;
mod sightings;
mod timeline;

pub(crate) use compactions::Compactions;
pub(crate) use consistency::check as check_consistency;
pub(crate) use evaluate::{evaluate, same_changes};
pub(crate) use evidence::Evidence;
pub(crate) use owners::{Owner, Owners};
pub(crate) use sightings::Sightings;
pub(crate) use timeline::{Known, Timeline};
