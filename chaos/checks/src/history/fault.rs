//! A fault that was done to the members: [`FaultRecord`].

use serde::{Deserialize, Serialize};

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct FaultRecord {
    pub kind: String,
    pub members: Vec<u32>,
    pub from: u64,
    /// When it was over; of a fault without length, `from`.
    pub until: u64,
    /// The proof that it happened, as the members showed it; `None`: it was asked for and nothing was seen of it.
    pub observed: Option<String>,
}
