//! The objects that every cluster has from the start.

use std::sync::Arc;

use barque_machinery::status::Status;
use serde_json::json;

use crate::{registry::WriteOptions, resources, server::Server};

const NAMESPACES: [&str; 4] = ["default", "kube-system", "kube-public", "kube-node-lease"];

pub async fn ensure_namespaces(server: &Arc<Server>, fence_term: u64) -> Result<(), Status> {
    let resource = resources::namespaces();
    for name in NAMESPACES {
        if server
            .registry
            .storage()
            .get_local(&resource.key("", name))?
            .is_some()
        {
            continue;
        }
        let object = json!({ "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": name } });
        let options = WriteOptions {
            dry_run: false,
            fence_term,
        };
        match server.registry.create(resource, "", object, options).await {
            Err(status) if status.reason == "AlreadyExists" => {}
            result => drop(result?),
        }
    }
    Ok(())
}
