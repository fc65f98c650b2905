//! GET of a collection with `watch`: what a request may ask for, and where its watch starts.

use std::{sync::Arc, time::Duration};

use axum::body::Body;
use barque_machinery::{field_error::FieldError, gvk::GroupKind, resource_version::ReadAt, status::Status};
use barque_store::{
    Revision,
    watch::{Subscriber, WatchSpec},
};
use http::{Response, StatusCode, header};
use rand::Rng;

use super::list;
use crate::{
    inflight::Admission,
    listing::{Form, ItemWriter, Lister, TimedView},
    negotiate,
    query::Query,
    request::ApiRequest,
    respond,
    selection::Selection,
    server::Server,
    tables::View,
    watching::{Start, WatchBody, WatchParts},
};

pub async fn watch(
    server: &Arc<Server>,
    request: ApiRequest,
    admission: Admission,
) -> Result<Response<Body>, Status> {
    let query = &request.query;
    let shape = negotiate::shape(&request.headers)?;
    let view = View::new(shape, request.resource, query, server.registry.now())?;
    let selection = Selection::new(
        request.resource,
        query.get("labelSelector"),
        query.get("fieldSelector"),
    )?;
    let start = WatchStart::of(query)?;
    let (_, range) = list::selected_range(&request, &selection);
    let storage = server.registry.storage();
    let mut subscriber = storage.replica().store().hub().subscribe();
    let start = match start {
        WatchStart::After(revision) => {
            let head = storage.replica().store().head();
            if revision < head.compact_revision.0 {
                let status = Status::too_old_resource_version(revision, head.compact_revision.0);
                return Ok(respond::bytes(
                    StatusCode::OK,
                    Body::from(crate::watching::error_frame(&status)),
                ));
            }
            // One that the cluster has not reached is waited for; the last one there is, for ever.
            subscribe(&mut subscriber, &range, Revision(revision.saturating_add(1)));
            Start::Events
        }
        WatchStart::State { at, wants_end_marker } => {
            let (reader, revision) = storage.read_at(at).await?;
            subscribe(&mut subscriber, &range, Revision(revision.0 + 1));
            let listed = TimedView::new(reader, revision, server.config.request_timeout);
            let lister = Lister::new(listed, request.resource, selection.clone(), range.clone(), 0)?;
            let writer = ItemWriter::new(view.clone(), Form::Frames);
            Start::State {
                lister: Box::new(lister),
                writer: Box::new(writer),
                wants_end_marker,
            }
        }
    };
    let body = WatchBody::new(WatchParts {
        subscriber,
        start,
        view,
        selection,
        bookmark_interval: query
            .flag("allowWatchBookmarks")
            .then_some(server.config.bookmark_interval),
        timeout: timeout(query, server.config.min_watch_timeout)?,
        now: server.registry.clock(),
        shutdown: server.shutdown.clone(),
        metrics: server.metrics.clone(),
        admission,
    });
    let mut response = respond::bytes(StatusCode::OK, Body::new(body));
    // Nothing on the way may hold frames back.
    response
        .headers_mut()
        .insert("x-accel-buffering", header::HeaderValue::from_static("no"));
    Ok(response)
}

const WATCH: i64 = 1;

fn subscribe(subscriber: &mut Subscriber, range: &barque_store::KeyRange, start: Revision) {
    let spec = WatchSpec {
        id: WATCH,
        range: range.clone(),
        start,
        no_put: false,
        no_delete: false,
        prev_kv: false,
    };
    subscriber.add(spec);
}

#[derive(Debug, PartialEq, Eq)]
enum WatchStart {
    /// The events after a revision that the client has seen.
    After(i64),
    /// What is there, as ADDED, and then the events.
    State { at: ReadAt, wants_end_marker: bool },
}

impl WatchStart {
    fn of(query: &Query) -> Result<Self, Status> {
        let text = query.get("resourceVersion");
        let version = barque_machinery::resource_version::parse(text)?;
        let version_match = query.get("resourceVersionMatch");
        if query.is_set("sendInitialEvents") {
            if version_match != "NotOlderThan" {
                return Err(forbidden(
                    "resourceVersionMatch",
                    "sendInitialEvents requires setting resourceVersionMatch to NotOlderThan",
                ));
            }
            if !query.flag("sendInitialEvents") {
                return Ok(match version {
                    0 => WatchStart::State {
                        at: ReadAt::Any,
                        wants_end_marker: false,
                    },
                    version => WatchStart::After(version),
                });
            }
            let at = match (text, version) {
                ("", _) => ReadAt::MostRecent,
                (_, 0) => ReadAt::Any,
                (_, version) => ReadAt::NotOlderThan(version),
            };
            return Ok(WatchStart::State {
                at,
                wants_end_marker: query.flag("allowWatchBookmarks"),
            });
        }
        if !version_match.is_empty() {
            return Err(forbidden(
                "resourceVersionMatch",
                "resourceVersionMatch is forbidden for watch unless sendInitialEvents is provided",
            ));
        }
        Ok(match (text, version) {
            ("", _) => WatchStart::State {
                at: ReadAt::MostRecent,
                wants_end_marker: false,
            },
            (_, 0) => WatchStart::State {
                at: ReadAt::Any,
                wants_end_marker: false,
            },
            (_, version) => WatchStart::After(version),
        })
    }
}

fn forbidden(field: &str, detail: &str) -> Status {
    let kind = GroupKind {
        group: "meta.k8s.io".into(),
        kind: "ListOptions".into(),
    };
    Status::invalid(&kind, "", &[FieldError::forbidden(field, detail)])
}

/// What the client asked for; else drawn, so that watches opened together do not end together.
fn timeout(query: &Query, min: Duration) -> Result<Duration, Status> {
    match query.number("timeoutSeconds")? {
        Some(seconds) if seconds > 0 => Ok(Duration::from_secs(seconds.unsigned_abs())),
        _ => Ok(min.mul_f64(1.0 + rand::rng().random::<f64>())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn where_watches_start() {
        let check = |query: &str, expect: Option<WatchStart>| {
            let uri: http::Uri = format!("/x?{query}").parse().unwrap();
            assert_eq!(
                WatchStart::of(&Query::parse(&uri).unwrap()).ok(),
                expect,
                "{query}"
            );
        };
        let state = |at, wants_end_marker| Some(WatchStart::State { at, wants_end_marker });
        check("", state(ReadAt::MostRecent, false));
        check("resourceVersion=0", state(ReadAt::Any, false));
        check("resourceVersion=7", Some(WatchStart::After(7)));
        check("resourceVersion=x", None);
        check("resourceVersion=7&resourceVersionMatch=NotOlderThan", None);
        check("sendInitialEvents=true", None);
        let list = "sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true";
        check(list, state(ReadAt::MostRecent, true));
        check(
            &format!("{list}&resourceVersion=9"),
            state(ReadAt::NotOlderThan(9), true),
        );
        check(
            "sendInitialEvents=false&resourceVersionMatch=NotOlderThan&resourceVersion=9",
            Some(WatchStart::After(9)),
        );
    }
}
