//! Kubernetes API machinery: object metadata, selectors, quantities, patches, Status.
//!
//! Objects are `serde_json::Value` here: typed decoding would drop the fields that this program does not know.
//! Nothing in this crate does I/O, reads a clock or draws random numbers; callers hand those in.

pub mod continue_token;
pub mod counters;
pub mod field_error;
pub mod gvk;
pub mod metadata;
pub mod name;
pub mod patch;
pub mod quantity;
pub mod resource_version;
pub mod selector;
pub mod status;
pub mod table;
