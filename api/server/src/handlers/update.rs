//! PUT of an object, its status, or a namespace's finalizers.

use std::sync::Arc;

use axum::body::Body;
use barque_machinery::{metadata, status::Status};
use http::Response;

use super::answer;
use crate::{
    registry::{self, Change},
    request::ApiRequest,
    server::Server,
    update::{self, Part},
};

pub async fn update(
    server: &Arc<Server>,
    mut request: ApiRequest,
    part: Part,
) -> Result<Response<Body>, Status> {
    let options = request.write_options()?;
    let received = request.receive().await?;
    let place = request.place();
    let object = received.object;
    let result = server
        .registry
        .modify(&place, options, &mut |stored| {
            update::decide(&place, stored, object.clone(), part)
        })
        .await;
    let written = match result {
        Err(status) if status.code == 404 && request.resource.create_on_update && part == Part::Main => {
            let mut object = object;
            if metadata::Meta::of(&object).name() != place.name {
                return Err(Status::bad_request(
                    "the name of the object does not match the name on the URL",
                ));
            }
            update::check_uid_of_none(&place, &object)?;
            metadata::set_text(&mut object, "resourceVersion", "");
            server
                .registry
                .create(request.resource, &place.namespace, object, options)
                .await?
        }
        result => result?,
    };
    Ok(answer(written, &received.warnings))
}

/// Sets `spec.finalizers` of a namespace; one that is deleted and waits for nothing more goes.
pub async fn finalize(server: &Arc<Server>, mut request: ApiRequest) -> Result<Response<Body>, Status> {
    let options = request.write_options()?;
    let received = request.receive().await?;
    let place = request.place();
    let wanted = received.object["spec"]["finalizers"].clone();
    let written = server
        .registry
        .modify(&place, options, &mut |stored| {
            registry::check_version(&place, &received.object, stored)?;
            let mut object = stored.object.clone();
            object["spec"]["finalizers"] = wanted.clone();
            let gone = update::is_gone(place.resource, &object);
            Ok(if gone { Change::Delete } else { Change::Put(object) })
        })
        .await?;
    Ok(answer(written, &received.warnings))
}
