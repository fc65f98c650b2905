//! The served resources: one small strategy each.

mod configmaps;
mod deployments;
mod events;
mod leases;
mod namespaces;
mod nodes;
mod pod_template;
mod pods;
mod replicasets;
mod secrets;
mod services;

use serde_json::{Map, Value, json};

use crate::resource::Resource;

/// Every resource of the generic registry, in the order of discovery.
pub static RESOURCES: [&Resource; 10] = [
    &configmaps::CONFIGMAPS,
    &events::EVENTS,
    &namespaces::NAMESPACES,
    &nodes::NODES,
    &pods::PODS,
    &secrets::SECRETS,
    &services::SERVICES,
    &deployments::DEPLOYMENTS,
    &replicasets::REPLICASETS,
    &leases::LEASES,
];

pub fn find(group: &str, version: &str, plural: &str) -> Option<&'static Resource> {
    RESOURCES
        .iter()
        .copied()
        .find(|r| r.plural == plural && r.group_version.group == group && r.group_version.version == version)
}

pub fn namespaces() -> &'static Resource {
    &namespaces::NAMESPACES
}

pub use namespaces::FINALIZER as NAMESPACE_FINALIZER;
pub use pods::bind as bind_pod;

/// The object at `field`, made when missing; `None` when something else is there.
fn object_at<'v>(parent: &'v mut Value, field: &str) -> Option<&'v mut Map<String, Value>> {
    let parent = parent.as_object_mut()?;
    let entry = parent.entry(field).or_insert_with(|| json!({}));
    if entry.is_null() {
        *entry = json!({});
    }
    entry.as_object_mut()
}

/// Sets a field that is missing, null, or the empty string, as typed defaulting does.
fn default(fields: &mut Map<String, Value>, field: &str, value: impl Into<Value>) {
    let missing = match fields.get(field) {
        None | Some(Value::Null) => true,
        Some(Value::String(text)) => text.is_empty(),
        Some(_) => false,
    };
    if missing {
        fields.insert(field.into(), value.into());
    }
}

/// The elements of an array field that are objects.
fn objects_at<'v>(parent: &'v mut Value, field: &str) -> impl Iterator<Item = &'v mut Map<String, Value>> {
    let items = parent.get_mut(field).and_then(Value::as_array_mut);
    items.into_iter().flatten().filter_map(Value::as_object_mut)
}

fn text<'v>(value: &'v Value, field: &str) -> &'v str {
    value[field].as_str().unwrap_or_default()
}

fn items<'v>(value: &'v Value, field: &str) -> impl Iterator<Item = &'v Value> + use<'v> {
    value[field].as_array().into_iter().flatten()
}
