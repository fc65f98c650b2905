//! The scale subresource: `autoscaling/v1` Scale in front of `spec.replicas`.

use std::sync::Arc;

use axum::body::Body;
use barque_machinery::{metadata::Meta, resource_version, status::Status};
use http::{Response, StatusCode};
use serde_json::{Value, json};

use super::patch::ReceivedPatch;
use crate::{
    codec, errors,
    registry::{Change, Place, Stored, kv_ref},
    request::ApiRequest,
    respond,
    server::Server,
    update::{self, Part},
};

const SCALE: &str = "io.k8s.api.autoscaling.v1.Scale";

pub async fn get(server: &Arc<Server>, request: ApiRequest) -> Result<Response<Body>, Status> {
    let at = resource_version::for_get(request.query.get("resourceVersion"))?;
    let place = request.place();
    let (reader, revision) = server.registry.storage().read_at(at).await?;
    let kv = reader
        .get(&place.key(), revision)
        .map_err(errors::from_read)?
        .ok_or_else(|| place.not_found())?;
    Ok(respond::json(
        StatusCode::OK,
        &scale_of(&codec::decode(kv_ref(&kv))?),
    ))
}

pub async fn update(server: &Arc<Server>, mut request: ApiRequest) -> Result<Response<Body>, Status> {
    let options = request.write_options()?;
    let received = request.receive_kind("autoscaling", "v1", "Scale").await?;
    let place = request.place();
    let wanted = received.object;
    let mut decide = |stored: &Stored| scaled(&place, stored, &wanted);
    let written = server.registry.modify(&place, options, &mut decide).await?;
    answer(&written.body)
}

pub async fn patch(server: &Arc<Server>, mut request: ApiRequest) -> Result<Response<Body>, Status> {
    let options = request.write_options()?;
    let patch = ReceivedPatch::receive(&mut request).await?;
    let place = request.place();
    let mut decide = |stored: &Stored| {
        let (wanted, _) = patch.apply(&place, &scale_of(&stored.object), SCALE)?;
        scaled(&place, stored, &wanted)
    };
    let written = server.registry.modify(&place, options, &mut decide).await?;
    answer(&written.body)
}

fn scaled(place: &Place, stored: &Stored, scale: &Value) -> Result<Change, Status> {
    let mut object = stored.object.clone();
    object["metadata"]["resourceVersion"] = scale["metadata"]["resourceVersion"].clone();
    object["spec"]["replicas"] = scale["spec"]["replicas"].as_i64().unwrap_or(0).into();
    update::decide(place, stored, object, Part::Main)
}

fn scale_of(object: &Value) -> Value {
    let meta = Meta::of(object);
    let labels = object["spec"]["selector"]["matchLabels"].as_object();
    let selector: Vec<String> = labels
        .into_iter()
        .flatten()
        .map(|(k, v)| format!("{k}={}", v.as_str().unwrap_or_default()))
        .collect();
    json!({
        "kind": "Scale", "apiVersion": "autoscaling/v1",
        "metadata": {
            "name": meta.name(), "namespace": meta.namespace(), "uid": meta.uid(),
            "resourceVersion": meta.resource_version(), "creationTimestamp": meta.text("creationTimestamp"),
        },
        "spec": { "replicas": object["spec"]["replicas"].as_i64().unwrap_or(0) },
        "status": {
            "replicas": object["status"]["replicas"].as_i64().unwrap_or(0),
            "selector": selector.join(","),
        },
    })
}

fn answer(body: &[u8]) -> Result<Response<Body>, Status> {
    let object: Value = serde_json::from_slice(body).map_err(Status::internal)?;
    Ok(respond::json(StatusCode::OK, &scale_of(&object)))
}
