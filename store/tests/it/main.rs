//! The store from outside: commands in, outcomes, reads and events out, on both engines.

mod compaction;
mod contract;
mod directory;
mod exit;
mod generate;
mod leases;
mod marks;
mod model;
mod properties;
mod scrub;
mod support;
mod watching;
