//! The store from outside: commands in, outcomes, reads and events out, on both engines.

mod compaction;
mod contract;
mod damage;
mod directory;
mod exit;
mod files;
mod generate;
mod leases;
mod marks;
mod model;
mod power;
mod properties;
mod scrub;
mod support;
mod verify;
mod watching;
