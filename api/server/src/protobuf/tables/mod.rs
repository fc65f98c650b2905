//! Field numbers and JSON names of the messages that a request's body may hold, by what they belong to.

mod containers;
mod core;
mod groups;
mod meta;
mod pods;
mod volumes;

pub const TABLES: &[&str] = &[
    meta::TABLE,
    core::TABLE,
    pods::TABLE,
    containers::TABLE,
    volumes::TABLE,
    groups::TABLE,
];
