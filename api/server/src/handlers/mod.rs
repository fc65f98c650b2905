//! One handler per verb; which one answers a request.

mod bind;
mod create;
mod delete;
mod deletecollection;
mod get;
mod list;
mod patch;
mod review;
mod scale;
mod update;
mod watch;

use std::sync::Arc;

use axum::body::Body;
use barque_machinery::{gvk::GroupResource, status::Status};
use http::{Response, StatusCode};

pub use delete::{DeleteOptions, delete_object};

use crate::{
    inflight::Admission,
    registry::{Outcome, Written},
    request::ApiRequest,
    resource::{Resource, Subresource},
    respond,
    server::Server,
    update::Part,
};

/// Answers a request to a resource of the generic registry. `admission` is held until the answer is sent.
pub async fn dispatch(
    server: &Arc<Server>,
    request: ApiRequest,
    verb: &str,
    admission: Admission,
) -> Result<Response<Body>, Status> {
    let subresource = match request.target.subresource.as_str() {
        "" => None,
        name => Some(
            request
                .resource
                .subresource(name)
                .ok_or_else(Status::unknown_path)?,
        ),
    };
    match (verb, subresource) {
        ("get", None | Some(Subresource::Status)) => get::get(server, request).await,
        ("list", None) => list::list(server, request, admission).await,
        ("watch", None) => watch::watch(server, request, admission).await,
        ("create", None) if request.target.name.is_empty() => create::create(server, request).await,
        ("update", None) => update::update(server, request, Part::Main).await,
        ("update", Some(Subresource::Status)) => update::update(server, request, Part::Status).await,
        ("update", Some(Subresource::Finalize)) => update::finalize(server, request).await,
        ("patch", None) => patch::patch(server, request, Part::Main).await,
        ("patch", Some(Subresource::Status)) => patch::patch(server, request, Part::Status).await,
        ("delete", None) => delete::delete(server, request).await,
        ("deletecollection", None) if !request.resource.strategy.deletes_collections() => {
            Err(Status::method_not_allowed())
        }
        ("deletecollection", None) => deletecollection::delete_collection(server, request).await,
        ("get", Some(Subresource::Scale)) => scale::get(server, request).await,
        ("update", Some(Subresource::Scale)) => scale::update(server, request).await,
        ("patch", Some(Subresource::Scale)) => scale::patch(server, request).await,
        ("create", Some(Subresource::Binding)) => bind::bind(server, request).await,
        ("", _) => Err(Status::method_not_allowed()),
        _ => Err(Status::method_not_supported(
            &group_resource(request.resource),
            verb,
        )),
    }
}

/// Answers the questions about oneself, which are no stored objects.
pub use review::review;

fn group_resource(resource: &Resource) -> GroupResource {
    resource.group_resource()
}

/// The answer to a write: the object, as it now is or last was.
fn answer(written: Written, warnings: &[String]) -> Response<Body> {
    let code = if written.outcome == Outcome::Created {
        StatusCode::CREATED
    } else {
        StatusCode::OK
    };
    let mut response = respond::bytes(code, written.body);
    respond::add_warnings(&mut response, warnings);
    response
}
