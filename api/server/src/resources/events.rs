//! Events of core/v1: kept for a while only.

use barque_machinery::{field_error::FieldError, gvk::GroupVersion, metadata::Meta, name};
use serde_json::Value;

use super::text;
use crate::resource::{Resource, Strategy};

pub static EVENTS: Resource = Resource {
    group_version: GroupVersion::new("", "v1"),
    plural: "events",
    singular: "event",
    kind: "Event",
    short_names: &["ev"],
    categories: &[],
    namespaced: true,
    subresources: &[],
    selectable: &[
        "involvedObject.kind",
        "involvedObject.namespace",
        "involvedObject.name",
        "involvedObject.uid",
        "involvedObject.apiVersion",
        "involvedObject.resourceVersion",
        "involvedObject.fieldPath",
        "reason",
        "reportingComponent",
        "source",
        "type",
    ],
    indexed: &[
        "involvedObject.kind",
        "involvedObject.name",
        "involvedObject.uid",
        "involvedObject.namespace",
    ],
    name_check: name::dns1123_subdomain,
    has_generation: false,
    create_on_update: true,
    expires: true,
    strategy: &Events,
};

struct Events;

impl Strategy for Events {
    fn validate(&self, object: &Value, errors: &mut Vec<FieldError>) {
        let involved = text(&object["involvedObject"], "namespace");
        let namespace = Meta::of(object).namespace();
        // What is about something outside all namespaces lies in default.
        let fits = if involved.is_empty() {
            matches!(namespace, "default" | "kube-system")
        } else {
            involved == namespace
        };
        if !fits {
            let detail = "does not match event.namespace";
            errors.push(FieldError::invalid("involvedObject.namespace", involved, detail));
        }
    }
}
