//! The row of a node.

use std::collections::BTreeSet;

use serde_json::Value;
use time::OffsetDateTime;

use super::{
    Column, Layout, age,
    cells::{NONE, list_at, of_type, or, str_at, text},
    unconditional,
};

pub(super) static LAYOUT: Layout = Layout {
    columns: &[
        Column::name("The node's name."),
        Column::new(
            "Status",
            "string",
            "Whether the node is ready and takes new pods.",
        ),
        Column::new("Roles", "string", "The roles its labels name."),
        Column::age(),
        Column::new("Version", "string", "The version of its agent."),
        Column::new("Internal-IP", "string", "Its address within the cluster.").wide(),
        Column::new("External-IP", "string", "Its address for the world.").wide(),
        Column::new("OS-Image", "string", "Its operating system.").wide(),
        Column::new("Kernel-Version", "string", "Its kernel.").wide(),
        Column::new("Container-Runtime", "string", "What runs its containers.").wide(),
    ],
    cells,
    conditions: unconditional,
};

fn cells(node: &Value, now: OffsetDateTime) -> Vec<Value> {
    let info = |field: &str| or(str_at(node, &format!("/status/nodeInfo/{field}")), "<unknown>").into();
    vec![
        text(node, "/metadata/name"),
        status(node).into(),
        roles(node).into(),
        age(node, now),
        text(node, "/status/nodeInfo/kubeletVersion"),
        address(node, "InternalIP").into(),
        address(node, "ExternalIP").into(),
        info("osImage"),
        info("kernelVersion"),
        info("containerRuntimeVersion"),
    ]
}

fn status(node: &Value) -> String {
    let ready = of_type(list_at(node, "/status/conditions"), "Ready");
    let mut status = match ready.map(|condition| str_at(condition, "/status")) {
        None => "Unknown".to_owned(),
        Some("True") => "Ready".to_owned(),
        Some(_) => "NotReady".to_owned(),
    };
    if node["spec"]["unschedulable"] == true {
        status.push_str(",SchedulingDisabled");
    }
    status
}

fn roles(node: &Value) -> String {
    let mut roles = BTreeSet::new();
    for (label, value) in node["metadata"]["labels"].as_object().into_iter().flatten() {
        let role = match label.strip_prefix("node-role.kubernetes.io/") {
            Some(role) => role,
            None if label == "kubernetes.io/role" => value.as_str().unwrap_or(""),
            None => "",
        };
        if !role.is_empty() {
            roles.insert(role);
        }
    }
    or(&Vec::from_iter(roles).join(","), NONE)
}

fn address(node: &Value, kind: &str) -> String {
    let address = of_type(list_at(node, "/status/addresses"), kind);
    or(address.map_or("", |address| str_at(address, "/address")), NONE)
}
