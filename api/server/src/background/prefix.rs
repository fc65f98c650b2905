//! The marker key that makes the prefix this API server's own.

use barque_machinery::status::Status;
use barque_proto::command::{Compare, Put, Txn, compare};
use bytes::Bytes;

use super::StartError;
use crate::storage::{self, PREFIX, Storage};

const MARKER: &str = "/registry/.barque";
const FORMAT: u32 = 1;

/// Makes sure that everything under the prefix was written by this program: finds the marker, or writes it in a
/// transaction that holds only while the prefix is empty.
pub async fn claim_prefix(storage: &Storage) -> Result<(), StartError> {
    storage.barrier().await?;
    if let Some(marker) = storage.get_local(MARKER.as_bytes())? {
        return check(&marker.value);
    }
    let key = Bytes::from_static(MARKER.as_bytes());
    let value = Bytes::from(format!("{{\"format\":{FORMAT}}}"));
    let nothing_there = Compare {
        result: compare::Result::Equal as i32,
        key: Bytes::from_static(PREFIX.as_bytes()),
        range_end: storage::prefix_end(PREFIX.as_bytes()).unwrap_or_default(),
        target: Some(compare::Target::CreateRevision(0)),
    };
    let txn = Txn {
        compare: vec![nothing_there],
        success: vec![storage::put(Put {
            key: key.clone(),
            value,
            ..Default::default()
        })],
        failure: vec![storage::get(&key)],
    };
    let response = storage.txn(txn, 0).await?;
    if response.succeeded {
        return Ok(());
    }
    match storage::found(&response, 0)? {
        // Another member was faster.
        Some(marker) => check(&marker.value),
        None => Err(StartError::ForeignPrefix),
    }
}

fn check(value: &[u8]) -> Result<(), StartError> {
    let found = serde_json::from_slice::<serde_json::Value>(value)
        .map_err(|e| StartError::Storage(Status::internal(format!("the marker cannot be read: {e}"))))?;
    if found["format"] == FORMAT {
        return Ok(());
    }
    Err(StartError::Format {
        found: found["format"].to_string(),
        known: FORMAT,
    })
}
