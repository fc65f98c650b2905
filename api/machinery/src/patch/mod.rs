//! The patches that the Kubernetes API takes: JSON patch, JSON merge patch, strategic merge patch.
//!
//! Pure functions from an object and a patch to the patched object; the object given is never half changed.
//! Nothing here validates the result: that is for whoever stores it.

mod directives;
mod index;
mod json_patch;
mod merge_patch;
mod order;
pub mod schema;
mod strategic;
#[cfg(test)]
mod strategic_tests;

use serde_json::Value;

pub use json_patch::MAX_OPERATIONS;
pub use schema::Schema;

use crate::status::{Status, StatusCause, StatusDetails};

/// Told apart by the request's media type.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PatchType {
    Json,
    Merge,
    StrategicMerge,
}

/// Why a patch was not applied, as kube-apiserver tells cases apart.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PatchError {
    /// The patch itself makes no sense.
    #[error("{0}")]
    Malformed(String),
    /// It makes sense, but not for this object: a path that is not there, a test that failed.
    #[error("{0}")]
    Inapplicable(String),
    #[error("The allowed maximum operations in a JSON patch is {MAX_OPERATIONS}, got {0}")]
    TooManyOperations(usize),
    /// What kube-apiserver answers with an internal error: a directive or merge key that is wrong.
    #[error("{0}")]
    Unmergeable(String),
}

impl PatchType {
    pub const MEDIA_TYPES: [&'static str; 3] = [
        "application/json-patch+json",
        "application/merge-patch+json",
        "application/strategic-merge-patch+json",
    ];

    /// Parameters such as `charset` must be cut off already.
    pub fn from_media_type(media_type: &str) -> Option<Self> {
        match media_type {
            "application/json-patch+json" => Some(Self::Json),
            "application/merge-patch+json" => Some(Self::Merge),
            "application/strategic-merge-patch+json" => Some(Self::StrategicMerge),
            _ => None,
        }
    }
}

/// `object` with `patch` applied; `schema` tells a strategic merge patch how lists are merged.
pub fn apply(
    patch_type: PatchType,
    object: &Value,
    patch: &[u8],
    schema: &'static Schema,
) -> Result<Value, PatchError> {
    match patch_type {
        PatchType::Json => json_patch::apply(object, patch),
        PatchType::Merge => merge_patch::apply(object, patch),
        PatchType::StrategicMerge => strategic::apply(object, patch, schema),
    }
}

impl From<PatchError> for Status {
    fn from(error: PatchError) -> Self {
        match error {
            PatchError::Malformed(text) => Status::bad_request(text),
            PatchError::TooManyOperations(_) => Status {
                code: 413,
                reason: "RequestEntityTooLarge",
                message: format!("Request entity is too large: {error}"),
                details: None,
                continue_token: None,
            },
            // kube-apiserver drops the text here; a cause tells more and breaks nobody.
            PatchError::Inapplicable(text) => Status {
                code: 422,
                reason: "Invalid",
                message: "the server rejected our request due to an error in our request".into(),
                details: Some(Box::new(StatusDetails {
                    causes: vec![StatusCause {
                        reason: String::new(),
                        message: text,
                        field: String::new(),
                    }],
                    ..StatusDetails::default()
                })),
                continue_token: None,
            },
            PatchError::Unmergeable(text) => Status {
                code: 500,
                reason: "",
                message: text,
                details: None,
                continue_token: None,
            },
        }
    }
}

/// How deeply objects and arrays may nest, the object itself included. Well below what the parser takes (127), so that
/// whatever was stored can be read again, by clients too, who get it with more around it.
pub const MAX_DEPTH: usize = 100;

/// How deeply arrays and objects nest in `value`: 0 for a scalar. Stops counting beyond the limit. Adds to
/// `visited` how many values were looked at.
fn depth(value: &Value, limit: usize, visited: &mut usize) -> usize {
    *visited += 1;
    let mut deepest = |values: &mut dyn Iterator<Item = &Value>| {
        1 + values
            .map(|value| depth(value, limit.saturating_sub(1), visited))
            .max()
            .unwrap_or(0)
    };
    match value {
        _ if limit == 0 => 0,
        Value::Array(items) => deepest(&mut items.iter()),
        Value::Object(fields) => deepest(&mut fields.values()),
        _ => 0,
    }
}
