//! POST to a pod's binding: the scheduler's decision.

use std::sync::Arc;

use axum::body::Body;
use barque_machinery::{
    field_error::FieldError,
    gvk::{GroupKind, GroupResource},
    metadata::Meta,
    status::Status,
};
use http::{Response, StatusCode};
use serde_json::json;

use crate::{
    registry::{self, Change},
    request::ApiRequest,
    resources, respond,
    server::Server,
    update,
};

pub async fn bind(server: &Arc<Server>, mut request: ApiRequest) -> Result<Response<Body>, Status> {
    let options = request.write_options()?;
    let binding = request.receive_kind("", "v1", "Binding").await?.object;
    let place = request.place();
    let name = Meta::of(&binding).name();
    if !name.is_empty() && name != place.name {
        return Err(Status::bad_request(format!(
            "the name of the object ({name}) does not match the name on the URL ({})",
            place.name
        )));
    }
    let node = binding["target"]["name"].as_str().unwrap_or_default().to_owned();
    if node.is_empty() {
        let kind = GroupKind {
            group: String::new(),
            kind: "Binding".into(),
        };
        return Err(Status::invalid(
            &kind,
            &place.name,
            &[FieldError::required("target.name", "")],
        ));
    }
    let now = server.registry.timestamp();
    server
        .registry
        .modify(&place, options, &mut |stored| {
            // The scheduler may have decided on a pod that is gone, and another one has its name.
            update::check_uid(&place, &binding, stored)?;
            registry::check_version(&place, &binding, stored)?;
            let mut pod = stored.object.clone();
            let bound = resources::bind_pod(&mut pod, &node, &binding["metadata"]["annotations"], &now);
            bound.map_err(|why| {
                Status::conflict(&GroupResource::new("", "pods/binding"), &place.name, &why)
            })?;
            Ok(Change::Put(pod))
        })
        .await?;
    let status =
        json!({ "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "code": 201 });
    Ok(respond::json(StatusCode::CREATED, &status))
}
