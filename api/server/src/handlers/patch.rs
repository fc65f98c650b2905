//! PATCH of an object or its status: JSON patch, merge patch, strategic merge patch.
//!
//! The patch is applied to what is stored and the result goes the way of an update; after a conflict it is
//! applied again to what is stored then.

use std::sync::Arc;

use axum::body::Body;
use barque_machinery::{
    field_error::FieldError,
    gvk::GroupKind,
    patch::{self, PatchType},
    status::Status,
};
use bytes::Bytes;
use http::Response;
use serde_json::Value;

use super::answer;
use crate::{
    body,
    registry::Place,
    request::{ApiRequest, Strictness, problems},
    schema::{self, schemas},
    server::Server,
    update::{self, Part},
};

pub async fn patch(
    server: &Arc<Server>,
    mut request: ApiRequest,
    part: Part,
) -> Result<Response<Body>, Status> {
    let options = request.write_options()?;
    let patch = ReceivedPatch::receive(&mut request).await?;
    let place = request.place();
    let version = place.resource.group_version;
    let schema = schema::definition_name(version.group, version.version, place.resource.kind);
    let mut warnings = Vec::new();
    let written = server
        .registry
        .modify(&place, options, &mut |stored| {
            let (patched, found) = patch.apply(&place, &stored.object, &schema)?;
            warnings = found;
            update::decide(&place, stored, patched, part)
        })
        .await?;
    Ok(answer(written, &warnings))
}

/// A patch as a client sent it.
pub struct ReceivedPatch {
    kind: PatchType,
    bytes: Bytes,
    duplicates: Vec<String>,
    strictness: Strictness,
}

impl ReceivedPatch {
    pub async fn receive(request: &mut ApiRequest) -> Result<Self, Status> {
        let kind = PatchType::from_media_type(body::content_type(&request.headers));
        let kind = kind.ok_or_else(|| Status::unsupported_media_type(&PatchType::MEDIA_TYPES.join(", ")))?;
        let bytes = request.read_body().await?;
        let duplicates = match kind {
            PatchType::Json => Vec::new(),
            PatchType::Merge | PatchType::StrategicMerge => body::decode_json(&bytes)?.duplicates,
        };
        Ok(Self {
            kind,
            bytes,
            duplicates,
            strictness: Strictness::of(&request.query)?,
        })
    }

    /// The patched object in the form of the definition `schema`, and warnings.
    pub fn apply(
        &self,
        place: &Place,
        current: &Value,
        schema: &str,
    ) -> Result<(Value, Vec<String>), Status> {
        let merging = patch::schema::of(place.resource.group_version.group, place.resource.kind);
        let mut patched = patch::apply(self.kind, current, &self.bytes, merging)?;
        let unknown = schemas()
            .normalize(schema, &mut patched)
            .map_err(|why| self.unfit(why))?;
        let found = problems(&self.duplicates, &unknown);
        let warnings = self.strictness.judge(found).map_err(|why| self.unfit(why))?;
        if patched["kind"] != current["kind"] || patched["apiVersion"] != current["apiVersion"] {
            return Err(Status::bad_request("a patch may not change apiVersion or kind"));
        }
        Ok((patched, warnings))
    }

    /// The patch can be read, but what it makes cannot stand.
    fn unfit(&self, why: String) -> Status {
        let text = String::from_utf8_lossy(&self.bytes).into_owned();
        let nothing = GroupKind {
            group: String::new(),
            kind: String::new(),
        };
        let mut status = Status::invalid(&nothing, "", &[FieldError::invalid("patch", text, why)]);
        status.message = status.message.trim_start().to_owned();
        status
    }
}
