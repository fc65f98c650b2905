//! GET of one object.

use std::sync::Arc;

use axum::body::Body;
use barque_machinery::{resource_version, status::Status};
use http::{Response, StatusCode};

use crate::{
    codec, errors,
    negotiate::{self, Shape},
    registry::kv_ref,
    request::ApiRequest,
    respond,
    server::Server,
    tables::View,
};

pub async fn get(server: &Arc<Server>, request: ApiRequest) -> Result<Response<Body>, Status> {
    let shape = negotiate::shape(&request.headers)?;
    let at = resource_version::for_get(request.query.get("resourceVersion"))?;
    let place = request.place();
    let (reader, revision) = server.registry.storage().read_at(at).await?;
    let kv = reader
        .get(&place.key(), revision)
        .map_err(errors::from_read)?
        .ok_or_else(|| place.not_found())?;
    if shape == Shape::Object {
        return Ok(respond::bytes(StatusCode::OK, codec::spliced(kv_ref(&kv))?));
    }
    let view = View::new(shape, request.resource, &request.query, server.registry.now())?;
    Ok(respond::json(StatusCode::OK, &view.one(kv_ref(&kv), view.now())?))
}
