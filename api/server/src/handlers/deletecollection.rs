//! DELETE of a collection: each selected object by itself.

use std::sync::Arc;

use axum::body::Body;
use barque_machinery::{resource_version::ReadAt, status::Status};
use barque_store::{KeyRange, Reader, Revision};
use bytes::Bytes;
use futures_util::{StreamExt, TryStreamExt, stream};
use http::{Response, StatusCode};
use serde_json::json;

use super::{delete, list};
use crate::{
    errors,
    registry::{Place, kv_ref},
    request::ApiRequest,
    resource::Resource,
    respond,
    selection::{Selection, TermRef},
    server::Server,
};

/// Deletes under way at once.
const CONCURRENCY: usize = 16;

pub async fn delete_collection(
    server: &Arc<Server>,
    mut request: ApiRequest,
) -> Result<Response<Body>, Status> {
    let mut write = request.write_options()?;
    let query = &request.query;
    let selection = Selection::new(
        request.resource,
        query.get("labelSelector"),
        query.get("fieldSelector"),
    )?;
    let options = delete::receive_options(&mut request, &mut write).await?;
    let (reader, revision) = server.registry.storage().read_at(ReadAt::MostRecent).await?;
    let (_, range) = list::selected_range(&request, &selection);
    let resource = request.resource;
    let keys = selected_keys(reader, revision, resource, &selection, range)?;
    let options = &options;
    stream::iter(keys)
        .map(Ok)
        .try_for_each_concurrent(CONCURRENCY, |key| async move {
            let (namespace, name) = resource.split_key(&key).unwrap_or_default();
            let place = Place {
                resource,
                namespace: namespace.into(),
                name: name.into(),
            };
            match delete::delete_object(&server.registry, &place, options, write).await {
                // Somebody else was faster, which is as good.
                Err(status) if status.code == 404 => Ok(()),
                result => result.map(drop),
            }
        })
        .await?;
    let details = json!({ "kind": resource.plural, "group": resource.group_version.group });
    let status = json!({
        "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "details": details,
    });
    Ok(respond::json(StatusCode::OK, &status))
}

fn selected_keys(
    reader: Reader,
    revision: Revision,
    resource: &'static Resource,
    selection: &Selection,
    range: KeyRange,
) -> Result<Vec<Bytes>, Status> {
    let mut keys = Vec::new();
    reader
        .scan(&range, revision, &mut |row| {
            keys.push(Bytes::copy_from_slice(row.key));
            std::ops::ControlFlow::Continue(())
        })
        .map_err(errors::from_read)?;
    if selection.is_everything() {
        return Ok(keys);
    }
    let mut selected = Vec::new();
    for key in keys {
        let Some(kv) = reader.get(&key, revision).map_err(errors::from_read)? else {
            continue;
        };
        let terms: Vec<TermRef<'_>> = kv
            .terms
            .iter()
            .map(|t| (t.field.as_ref(), t.value.as_ref()))
            .collect();
        if selection.matches(resource, kv_ref(&kv), &terms)? {
            selected.push(key);
        }
    }
    Ok(selected)
}
