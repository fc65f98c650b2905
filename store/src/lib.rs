//! The deterministic MVCC engine: commands in, responses and events out.
//!
//! It knows no network, no clock and no tasks. Writes enter through the one [`Applier`]; reads go through a
//! [`Reader`] taken from the [`Store`]; watches follow the [`watch::Hub`].

mod applier;
mod apply;
mod codec;
mod compaction;
mod counts;
mod damage;
mod error;
mod home;
mod keys;
pub mod kv;
mod live;
mod model;
mod mover;
mod overlay;
mod read;
mod reader;
mod response;
mod scrub;
mod state;
mod state_hash;
mod store;
#[cfg(test)]
mod test_support;
pub mod watch;

use barque_planted::on as planted;

pub use applier::{Applier, Checkpoint, Entry, EntryBody};
pub use error::{CommandError, ReadError, StoreError};
pub use model::{IndexTerm, KeyRange, KeyValue, LeaseId, LogPosition, Revision};
pub use reader::{RangeResult, Reader, RowTerms, ScanRow};
pub use response::{DeleteRangeResponse, LeaseGrantResponse, Outcome, PutResponse, Response, TxnResponse};
pub use scrub::{Scrub, Scrubbed};
pub use state_hash::Mark;
pub use store::{Head, Store, StoreConfig, StoreSizes};
