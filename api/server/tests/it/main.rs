//! The API over a real replica of one member, through its router.

mod api;
mod deleting;
mod kubectl;
mod listing;
mod requests;
mod serving;
mod watching;
mod writing;
