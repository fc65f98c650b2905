//! `meta.k8s.io/v1` Table: what `kubectl get` prints, computed by the server.
//!
//! Columns are fixed by kind, cells computed from the object as JSON. Columns of priority 1 are those of
//! `-o wide`. Kinds without columns of their own get name and creation time. Texts are Kubernetes' where
//! people and scripts read them: statuses, ages, `<none>`.

mod cells;
mod duration;
mod event;
mod node;
mod pod;
mod service;
mod workload;

use serde_json::{Value, json};
use time::OffsetDateTime;

pub use duration::human_duration;

use cells::{age, age_of, count, text};

/// What of each object goes along with its row.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum IncludeObject {
    None,
    #[default]
    Metadata,
    Object,
}

impl IncludeObject {
    /// The query parameter `includeObject`; empty when absent. `None`: no such value.
    pub fn parse(text: &str) -> Option<Self> {
        match text {
            "" | "Metadata" => Some(Self::Metadata),
            "None" => Some(Self::None),
            "Object" => Some(Self::Object),
            _ => None,
        }
    }
}

/// The columns of a kind and how an object fills them.
pub struct Layout {
    columns: &'static [Column],
    cells: fn(&Value, OffsetDateTime) -> Vec<Value>,
    conditions: fn(&Value) -> Option<Value>,
}

pub(crate) struct Column {
    name: &'static str,
    kind: &'static str,
    format: &'static str,
    priority: i32,
    description: &'static str,
}

/// The layout of a kind.
pub fn layout(group: &str, kind: &str) -> &'static Layout {
    match (group, kind) {
        ("", "Pod") => &pod::LAYOUT,
        ("", "Node") => &node::LAYOUT,
        ("", "Service") => &service::LAYOUT,
        ("", "Event") | ("events.k8s.io", "Event") => &event::LAYOUT,
        ("", "Namespace") => &NAMESPACE,
        ("", "ConfigMap") => &CONFIG_MAP,
        ("", "Secret") => &SECRET,
        ("coordination.k8s.io", "Lease") => &LEASE,
        ("apps", "Deployment") => &workload::DEPLOYMENT,
        ("apps", "ReplicaSet") => &workload::REPLICA_SET,
        _ => &PLAIN,
    }
}

impl Layout {
    /// `columnDefinitions`.
    pub fn columns(&self) -> Value {
        self.columns.iter().map(Column::definition).collect()
    }

    /// One element of `rows`.
    pub fn row(&self, object: &Value, now: OffsetDateTime, include: IncludeObject) -> Value {
        let mut row = json!({"cells": (self.cells)(object, now)});
        if let Some(conditions) = (self.conditions)(object) {
            row["conditions"] = conditions;
        }
        match include {
            IncludeObject::None => {}
            IncludeObject::Metadata => row["object"] = partial_metadata(object),
            IncludeObject::Object => row["object"] = object.clone(),
        }
        row
    }

    /// A whole table; `list_metadata` is the list's, or an object with its `resourceVersion`. In a watch the
    /// columns go along with the first event alone.
    pub fn table(&self, list_metadata: Value, rows: Vec<Value>, with_columns: bool) -> Value {
        let columns = if with_columns { self.columns() } else { Value::Null };
        json!({
            "kind": "Table",
            "apiVersion": "meta.k8s.io/v1",
            "metadata": list_metadata,
            "columnDefinitions": columns,
            "rows": rows,
        })
    }
}

impl Column {
    const fn new(name: &'static str, kind: &'static str, description: &'static str) -> Self {
        Self {
            name,
            kind,
            format: "",
            priority: 0,
            description,
        }
    }

    const fn name(description: &'static str) -> Self {
        Self {
            format: "name",
            ..Self::new("Name", "string", description)
        }
    }

    const fn age() -> Self {
        Self::new("Age", "string", "Time since the object was created.")
    }

    /// Shown with `-o wide`.
    const fn wide(self) -> Self {
        Self { priority: 1, ..self }
    }

    fn definition(&self) -> Value {
        json!({
            "name": self.name,
            "type": self.kind,
            "format": self.format,
            "description": self.description,
            "priority": self.priority,
        })
    }
}

fn partial_metadata(object: &Value) -> Value {
    json!({
        "kind": "PartialObjectMetadata",
        "apiVersion": "meta.k8s.io/v1",
        "metadata": object["metadata"],
    })
}

fn unconditional(_: &Value) -> Option<Value> {
    None
}

static NAMESPACE: Layout = Layout {
    columns: &[
        Column::name("The namespace's name."),
        Column::new(
            "Status",
            "string",
            "Whether the namespace is active or going away.",
        ),
        Column::age(),
    ],
    cells: |object, now| {
        vec![
            text(object, "/metadata/name"),
            text(object, "/status/phase"),
            age(object, now),
        ]
    },
    conditions: unconditional,
};

static CONFIG_MAP: Layout = Layout {
    columns: &[
        Column::name("The config map's name."),
        Column::new("Data", "string", "How many entries it has, binary ones included."),
        Column::age(),
    ],
    cells: |object, now| {
        let entries = count(object, "/data") + count(object, "/binaryData");
        vec![text(object, "/metadata/name"), entries.into(), age(object, now)]
    },
    conditions: unconditional,
};

static SECRET: Layout = Layout {
    columns: &[
        Column::name("The secret's name."),
        Column::new("Type", "string", "What the secret is for."),
        Column::new("Data", "string", "How many entries it has."),
        Column::age(),
    ],
    cells: |object, now| {
        let entries = count(object, "/data");
        vec![
            text(object, "/metadata/name"),
            text(object, "/type"),
            entries.into(),
            age(object, now),
        ]
    },
    conditions: unconditional,
};

static LEASE: Layout = Layout {
    columns: &[
        Column::name("The lease's name."),
        Column::new("Holder", "string", "Who holds the lease."),
        Column::age(),
    ],
    cells: |object, now| {
        vec![
            text(object, "/metadata/name"),
            text(object, "/spec/holderIdentity"),
            age(object, now),
        ]
    },
    conditions: unconditional,
};

static PLAIN: Layout = Layout {
    columns: &[
        Column::name("The object's name."),
        Column::new("Created At", "date", "When the object was created."),
    ],
    cells: |object, _| {
        vec![
            text(object, "/metadata/name"),
            text(object, "/metadata/creationTimestamp"),
        ]
    },
    conditions: unconditional,
};

#[cfg(test)]
mod tests;
