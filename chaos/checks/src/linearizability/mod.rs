//! Whether clients could tell the store from one that does one thing at a time.
//!
//! Two independent judges: [`values`] searches an order that explains the answers and trusts no revision;
//! [`revisions`] takes the order that the revisions claim and checks every answer against it. [`serializable`] looks at
//! the reads that members answer alone.

mod answers;
pub(crate) mod revisions;
pub(crate) mod serializable;
pub(crate) mod values;

use crate::{history::History, model::Evidence, verdict::Check};

/// By values alone: Wing and Gong's search with Lowe's memory, per key and per group of keys that txns and ranges tie
/// together.
pub fn by_values(history: &History) -> Check {
    values::check(&Evidence::new(history))
}

/// Exactly, by the revisions that the answers carry and the list of what was committed.
pub fn by_revision(history: &History) -> Check {
    revisions::check(&Evidence::new(history))
}

/// Serializable reads: never back in time on one member, and true of some state.
pub fn serializable_reads(history: &History) -> Check {
    serializable::check(&Evidence::new(history))
}
