//! Emptying deleted namespaces, then letting them go.
//!
//! Level-triggered: a change of a namespace that is being deleted, or below one, has it looked at again. Nothing
//! can be created in one (see `registry`), so that what is found empty stays empty. An object that cannot be deleted
//! keeps its own namespace, and is tried again after a while; everything else goes.

use std::{collections::BTreeSet, future::poll_fn, sync::Arc};

use barque_machinery::{metadata::Meta, status::Status};
use barque_store::{
    IndexTerm, KeyRange, Revision,
    watch::{Subscriber, WatchSpec},
};
use bytes::Bytes;
use futures_util::{StreamExt, stream};
use serde_json::json;

use super::Backoff;
use crate::{
    codec, errors,
    handlers::{DeleteOptions, delete_object},
    registry::{Change, Place, WriteOptions, kv_ref},
    resource::Resource,
    resources::{self, NAMESPACE_FINALIZER, RESOURCES},
    server::Server,
    storage, update,
};

/// Deletes under way at once, over all namespaces.
const CONCURRENCY: usize = 16;
/// What is taken from the hub at once.
const BATCH_BYTES: usize = 1 << 20;

/// Never returns.
pub async fn terminate_all(server: &Arc<Server>, fence_term: u64) {
    let mut pause = Backoff::default();
    loop {
        // Subscribed before looking, so that no change is missed in between.
        let mut changes = server.registry.storage().replica().store().hub().subscribe();
        follow(&mut changes, 0, &resources::namespaces().prefix(""));
        match terminate_found(server, fence_term, &mut changes).await {
            Ok(all_done) => {
                if all_done {
                    pause.reset();
                }
                let followed = tokio::select! {
                    followed = next_change(&mut changes) => followed,
                    () = pause.wait(), if !all_done => Ok(()),
                };
                if let Err(error) = followed {
                    tracing::warn!(%error, "could not follow the namespaces");
                    pause.wait().await;
                }
            }
            Err(status) => {
                tracing::warn!(%status, "could not empty the deleted namespaces");
                pause.wait().await;
            }
        }
    }
}

/// Looks at each namespace that is being deleted; those that must wait have their contents followed. `false` when
/// something went wrong with one of them, and not with the others.
async fn terminate_found(
    server: &Arc<Server>,
    fence_term: u64,
    changes: &mut Subscriber,
) -> Result<bool, Status> {
    let write = WriteOptions {
        dry_run: false,
        fence_term,
    };
    let mut watch_id = 0;
    let mut all_done = true;
    for name in terminating(server)? {
        for resource in contents() {
            watch_id += 1;
            follow(changes, watch_id, &resource.prefix(&name));
        }
        match terminate(server, &name, write).await {
            Err(status) if concerns_all(&status) => return Err(status),
            Err(status) => {
                tracing::warn!(namespace = name, %status, "could not finish a namespace's deletion");
                all_done = false;
            }
            Ok(()) => {}
        }
    }
    Ok(all_done)
}

/// The resources that lie in namespaces.
fn contents() -> impl Iterator<Item = &'static Resource> {
    RESOURCES.iter().copied().filter(|r| r.namespaced)
}

/// Deletes all that can be, and lets the namespace go once it is empty.
async fn terminate(server: &Arc<Server>, name: &str, write: WriteOptions) -> Result<(), Status> {
    let mut outcome = Ok(());
    for resource in contents() {
        let deleted = delete_all(server, resource, name, write).await;
        if deleted.as_ref().is_err_and(concerns_all) {
            return deleted;
        }
        outcome = outcome.and(deleted);
    }
    outcome?;
    if is_empty(server, name).await? {
        release(server, name, write).await?;
    }
    Ok(())
}

/// The cluster takes no writes now: what failed with one object would fail with the next.
fn concerns_all(status: &Status) -> bool {
    matches!(status.code, 429 | 503 | 504)
}

fn terminating(server: &Arc<Server>) -> Result<BTreeSet<String>, Status> {
    let resource = resources::namespaces();
    let term = IndexTerm {
        field: Bytes::from_static(b"f/status.phase"),
        value: Bytes::from_static(b"Terminating"),
    };
    let reader = server.registry.storage().reader();
    let keys = reader
        .keys_with_term(&term, &resource.prefix(""))
        .map_err(errors::from_read)?;
    let mut names = BTreeSet::new();
    for key in &keys {
        // The phase alone is no order to delete anything.
        let Some(kv) = server.registry.storage().get_local(key)? else {
            continue;
        };
        match codec::decode(kv_ref(&kv)) {
            Ok(namespace) if Meta::of(&namespace).is_deleting() => {
                names.extend(resource.split_key(key).map(|(_, name)| name.to_owned()));
            }
            Ok(_) => {}
            Err(status) => tracing::warn!(%status, "a namespace cannot be looked at"),
        }
    }
    Ok(names)
}

/// Deletes the namespace's objects of one resource; answers the first failure when all were tried.
async fn delete_all(
    server: &Arc<Server>,
    resource: &'static Resource,
    namespace: &str,
    write: WriteOptions,
) -> Result<(), Status> {
    let places = places(server, resource, namespace)?;
    let mut deletions = stream::iter(places)
        .map(|place| async move {
            delete_object(&server.registry, &place, &DeleteOptions::default(), write).await
        })
        .buffer_unordered(CONCURRENCY);
    let mut outcome = Ok(());
    while let Some(deleted) = deletions.next().await {
        match deleted {
            Err(status) if status.code == 404 => {}
            Err(status) if concerns_all(&status) => return Err(status),
            deleted => outcome = outcome.and(deleted.map(drop)),
        }
    }
    outcome
}

fn places(server: &Arc<Server>, resource: &'static Resource, namespace: &str) -> Result<Vec<Place>, Status> {
    let prefix = resource.prefix(namespace);
    let range = KeyRange {
        start: prefix.clone(),
        end: storage::prefix_end(&prefix),
    };
    let mut places = Vec::new();
    let reader = server.registry.storage().reader();
    reader
        .scan(&range, Revision(0), &mut |row| {
            if let Some((namespace, name)) = resource.split_key(row.key) {
                places.push(Place {
                    resource,
                    namespace: namespace.into(),
                    name: name.into(),
                });
            }
            std::ops::ControlFlow::Continue(())
        })
        .map_err(errors::from_read)?;
    Ok(places)
}

/// Behind a barrier: what was created before the namespace was marked is seen.
async fn is_empty(server: &Arc<Server>, namespace: &str) -> Result<bool, Status> {
    server.registry.storage().barrier().await?;
    for resource in contents() {
        if !places(server, resource, namespace)?.is_empty() {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Takes our finalizer off; the namespace goes when there is no other.
async fn release(server: &Arc<Server>, name: &str, write: WriteOptions) -> Result<(), Status> {
    let place = Place {
        resource: resources::namespaces(),
        namespace: String::new(),
        name: name.into(),
    };
    let result = server
        .registry
        .modify(&place, write, &mut |stored| {
            if !Meta::of(&stored.object).is_deleting() {
                return Ok(Change::Nothing);
            }
            let mut object = stored.object.clone();
            let kept: Vec<_> = object["spec"]["finalizers"]
                .as_array()
                .cloned()
                .unwrap_or_default();
            let kept: Vec<_> = kept.into_iter().filter(|f| f != NAMESPACE_FINALIZER).collect();
            object["spec"]["finalizers"] = json!(kept);
            let gone = update::is_gone(place.resource, &object);
            Ok(if gone { Change::Delete } else { Change::Put(object) })
        })
        .await;
    match result {
        Err(status) if status.code == 404 => Ok(()),
        result => result.map(drop),
    }
}

fn follow(changes: &mut Subscriber, id: i64, prefix: &Bytes) {
    let range = KeyRange {
        start: prefix.clone(),
        end: storage::prefix_end(prefix),
    };
    changes.add(WatchSpec {
        id,
        range,
        start: Revision(0),
        no_put: false,
        no_delete: false,
        prev_kv: false,
    });
}

/// Waits until anything changed that is followed. What it was does not matter.
async fn next_change(changes: &mut Subscriber) -> Result<(), barque_store::StoreError> {
    let mut deliveries = Vec::new();
    while deliveries.is_empty() {
        poll_fn(|cx| changes.poll_ready(cx)).await;
        changes.drain(BATCH_BYTES, &mut deliveries)?;
    }
    Ok(())
}
