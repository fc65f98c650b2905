//! What must hold of a history that clients recorded, whatever was done to the members meanwhile.
//!
//! A [`history::History`] is plain data, from a simulation with a virtual clock or from real processes, ours or another
//! etcd's. [`verdict::check_all`] looks at it from all sides; [`report`] shows what was found. Everything here is pure
//! and deterministic: no I/O, no clock, no tasks.

pub mod availability;
pub mod counts;
pub mod history;
pub mod kubernetes;
pub mod leases;
pub mod linearizability;
pub mod members;
pub mod membership;
pub mod minimal;
mod model;
pub mod report;
pub mod space;
pub mod verdict;
pub mod watches;

pub use history::History;
pub use verdict::{Check, Findings, Verdict, Violation, check_all, overall};
