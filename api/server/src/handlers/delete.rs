//! DELETE of one object: at once, after a grace period, or when its finalizers are done.

use std::sync::Arc;

use axum::body::Body;
use barque_machinery::{
    metadata::{self, Meta},
    status::{self, Status},
};
use http::{Response, StatusCode};
use serde_json::Value;
use time::OffsetDateTime;

use crate::{
    body,
    registry::{Change, Outcome, Place, Registry, Stored, WriteOptions, Written},
    request::ApiRequest,
    respond,
    server::Server,
    update,
};

/// `metav1.DeleteOptions`, from the body or the query.
#[derive(Debug, Clone, Default)]
pub struct DeleteOptions {
    pub grace_period_s: Option<i64>,
    pub uid: Option<String>,
    pub resource_version: Option<String>,
}

pub async fn delete(server: &Arc<Server>, mut request: ApiRequest) -> Result<Response<Body>, Status> {
    let mut write = request.write_options()?;
    let options = receive_options(&mut request, &mut write).await?;
    let place = request.place();
    let written = delete_object(&server.registry, &place, &options, write).await?;
    Ok(match written.outcome {
        Outcome::Deleted => {
            let status = status::deleted(&place.resource.group_resource(), &written.name, &written.uid);
            respond::json(StatusCode::OK, &status)
        }
        _ => respond::bytes(StatusCode::OK, written.body),
    })
}

/// Deletes, or marks as to be deleted, whatever the object still has to wait for.
pub async fn delete_object(
    registry: &Registry,
    place: &Place,
    options: &DeleteOptions,
    write: WriteOptions,
) -> Result<Written, Status> {
    if let Some(why) = place.resource.strategy.refuses_deletion(&place.name) {
        let resource = place.resource.group_resource();
        return Err(Status::forbidden(&resource, &place.name, why));
    }
    let now = registry.now();
    registry
        .modify(place, write, &mut |stored| decide(place, stored, options, now))
        .await
}

pub async fn receive_options(
    request: &mut ApiRequest,
    write: &mut WriteOptions,
) -> Result<DeleteOptions, Status> {
    let mut options = DeleteOptions {
        grace_period_s: request.query.number("gracePeriodSeconds")?,
        ..Default::default()
    };
    let bytes = request.read_body().await?;
    if bytes.is_empty() {
        return Ok(options);
    }
    let given = body::decode(body::content_type(&request.headers), &bytes)?.value;
    if let Some(seconds) = given["gracePeriodSeconds"].as_i64() {
        options.grace_period_s = Some(seconds);
    }
    let text = |value: &Value| value.as_str().map(str::to_owned);
    options.uid = text(&given["preconditions"]["uid"]);
    options.resource_version = text(&given["preconditions"]["resourceVersion"]);
    match given["propagationPolicy"].as_str() {
        // Dependents are collected in the background whatever was asked; there is nothing to wait for yet.
        None | Some("Background" | "Foreground" | "Orphan") => {}
        Some(other) => {
            return Err(Status::bad_request(format!(
                "invalid propagationPolicy: {other:?}"
            )));
        }
    }
    write.dry_run |= given["dryRun"]
        .as_array()
        .is_some_and(|list| list.iter().any(|v| v == "All"));
    Ok(options)
}

fn decide(
    place: &Place,
    stored: &Stored,
    options: &DeleteOptions,
    now: OffsetDateTime,
) -> Result<Change, Status> {
    check_preconditions(place, stored, options)?;
    let strategy = place.resource.strategy;
    let meta = Meta::of(&stored.object);
    let grace_s = strategy
        .grace_period_s(&stored.object, options.grace_period_s)
        .unwrap_or(0);
    if meta.is_deleting() {
        return Ok(shorten(place, stored, grace_s, now));
    }
    let has_finalizers = meta.finalizers().next().is_some();
    if grace_s == 0 && !has_finalizers && !strategy.holds_deletion(&stored.object) {
        return Ok(Change::Delete);
    }
    let mut object = stored.object.clone();
    mark(&mut object, grace_s, now);
    strategy.prepare_deletion(&mut object);
    if place.resource.has_generation {
        metadata::set(&mut object, "generation", (meta.generation() + 1).into());
    }
    Ok(Change::Put(object))
}

/// A second delete may only bring the end nearer.
fn shorten(place: &Place, stored: &Stored, grace_s: i64, now: OffsetDateTime) -> Change {
    let left_s = stored.object["metadata"]["deletionGracePeriodSeconds"]
        .as_i64()
        .unwrap_or(0);
    if grace_s >= left_s {
        return if update::is_gone(place.resource, &stored.object) {
            Change::Delete
        } else {
            Change::Nothing
        };
    }
    let mut object = stored.object.clone();
    mark(&mut object, grace_s, now);
    if update::is_gone(place.resource, &object) {
        Change::Delete
    } else {
        Change::Put(object)
    }
}

fn mark(object: &mut Value, grace_s: i64, now: OffsetDateTime) {
    let end = now.saturating_add(time::Duration::seconds(grace_s));
    metadata::set(object, "deletionTimestamp", metadata::timestamp(end).into());
    metadata::set(object, "deletionGracePeriodSeconds", grace_s.into());
}

fn check_preconditions(place: &Place, stored: &Stored, options: &DeleteOptions) -> Result<(), Status> {
    let meta = Meta::of(&stored.object);
    if let Some(uid) = options.uid.as_deref().filter(|uid| *uid != meta.uid()) {
        let is = meta.uid();
        return Err(place.conflict(&format!(
            "Precondition failed: UID in precondition: {uid}, UID in object meta: {is}"
        )));
    }
    let version = stored.kv.mod_revision.0.to_string();
    if let Some(asked) = options.resource_version.as_deref().filter(|v| *v != version) {
        return Err(place.conflict(&format!(
            "Precondition failed: ResourceVersion in precondition: {asked}, ResourceVersion in object meta: {version}"
        )));
    }
    Ok(())
}
