//! The rows of deployments and replica sets.

use serde_json::Value;
use time::OffsetDateTime;

use super::{
    Column, Layout, age,
    cells::{NONE, int_at, joined, list_at, or, str_at, text},
    unconditional,
};

const CONTAINERS: Column = Column::new("Containers", "string", "The names of its pods' containers.").wide();
const IMAGES: Column = Column::new("Images", "string", "The images of its pods' containers.").wide();
const SELECTOR: Column = Column::new("Selector", "string", "The labels of its pods.").wide();

pub(super) static DEPLOYMENT: Layout = Layout {
    columns: &[
        Column::name("The deployment's name."),
        Column::new("Ready", "string", "Pods ready, of pods wanted."),
        Column::new("Up-to-date", "string", "Pods made from the current template."),
        Column::new("Available", "string", "Pods ready for long enough."),
        Column::age(),
        CONTAINERS,
        IMAGES,
        SELECTOR,
    ],
    cells: deployment_cells,
    conditions: unconditional,
};

pub(super) static REPLICA_SET: Layout = Layout {
    columns: &[
        Column::name("The replica set's name."),
        Column::new("Desired", "integer", "Pods wanted."),
        Column::new("Current", "integer", "Pods there."),
        Column::new("Ready", "integer", "Pods ready."),
        Column::age(),
        CONTAINERS,
        IMAGES,
        SELECTOR,
    ],
    cells: replica_set_cells,
    conditions: unconditional,
};

fn deployment_cells(deployment: &Value, now: OffsetDateTime) -> Vec<Value> {
    let ready = format!(
        "{}/{}",
        int_at(deployment, "/status/readyReplicas"),
        desired(deployment)
    );
    let [containers, images] = template(deployment);
    vec![
        text(deployment, "/metadata/name"),
        ready.into(),
        int_at(deployment, "/status/updatedReplicas").into(),
        int_at(deployment, "/status/availableReplicas").into(),
        age(deployment, now),
        containers,
        images,
        selector(deployment).into(),
    ]
}

fn replica_set_cells(set: &Value, now: OffsetDateTime) -> Vec<Value> {
    let [containers, images] = template(set);
    vec![
        text(set, "/metadata/name"),
        desired(set).into(),
        int_at(set, "/status/replicas").into(),
        int_at(set, "/status/readyReplicas").into(),
        age(set, now),
        containers,
        images,
        or(&selector(set), NONE).into(),
    ]
}

/// One, when the object does not say.
fn desired(object: &Value) -> i64 {
    object
        .pointer("/spec/replicas")
        .and_then(Value::as_i64)
        .unwrap_or(1)
}

fn template(object: &Value) -> [Value; 2] {
    let containers = list_at(object, "/spec/template/spec/containers");
    [
        joined(containers, "name").into(),
        joined(containers, "image").into(),
    ]
}

/// `metav1.LabelSelector` as it is written in a query: by key.
fn selector(object: &Value) -> String {
    let mut requirements: Vec<(String, String)> = vec![];
    for (key, value) in object["spec"]["selector"]["matchLabels"]
        .as_object()
        .into_iter()
        .flatten()
    {
        requirements.push((key.clone(), format!("{key}={}", value.as_str().unwrap_or(""))));
    }
    for expression in list_at(object, "/spec/selector/matchExpressions") {
        let key = str_at(expression, "/key");
        let mut values: Vec<&str> = list_at(expression, "/values")
            .iter()
            .filter_map(Value::as_str)
            .collect();
        values.sort_unstable();
        let values = values.join(",");
        let written = match str_at(expression, "/operator") {
            "In" => format!("{key} in ({values})"),
            "NotIn" => format!("{key} notin ({values})"),
            "Exists" => key.to_owned(),
            "DoesNotExist" => format!("!{key}"),
            _ => return "<error>".into(),
        };
        requirements.push((key.to_owned(), written));
    }
    requirements.sort();
    Vec::from_iter(requirements.into_iter().map(|(_, written)| written)).join(",")
}
