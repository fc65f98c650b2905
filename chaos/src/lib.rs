//! Clusters of real processes, the faults that break them, and the checks of what must hold.

pub mod cluster;
pub mod cutfs;
pub mod http;
pub mod lan;
