//! POST to a collection.

use std::sync::Arc;

use axum::body::Body;
use barque_machinery::status::Status;
use http::Response;

use super::answer;
use crate::{request::ApiRequest, server::Server};

pub async fn create(server: &Arc<Server>, mut request: ApiRequest) -> Result<Response<Body>, Status> {
    if request.resource.namespaced && request.target.namespace.is_empty() {
        return Err(Status::method_not_allowed());
    }
    let options = request.write_options()?;
    let received = request.receive().await?;
    let namespace = request.place().namespace;
    let written = server
        .registry
        .create(request.resource, &namespace, received.object, options)
        .await?;
    Ok(answer(written, &received.warnings))
}
