//! The store from outside: commands in, outcomes, reads and events out, on both engines.

mod compaction;
mod contract;
mod directory;
mod exit;
mod generate;
mod leases;
mod model;
mod properties;
mod support;
mod watching;
