//! How the lists of the built-in types are merged, after the patch strategies and merge keys that the
//! Kubernetes API declares for them.
//!
//! Only fields that differ from the rule, or that lead to such, are listed. The rule: objects merge, lists
//! are replaced.

/// A type of object, by its remarkable fields.
#[derive(Debug)]
pub struct Schema {
    fields: &'static [(&'static str, Field)],
}

#[derive(Debug, Clone, Copy)]
pub(super) enum Field {
    /// An object; merged.
    Object(&'static Schema),
    /// A list of objects, merged by the value of a field.
    ListBy(&'static str, &'static Schema),
    /// A list of primitives, merged as a set.
    Set,
}

impl Schema {
    pub(super) fn field(&self, name: &str) -> Option<Field> {
        self.fields
            .iter()
            .find(|(field, _)| *field == name)
            .map(|(_, field)| *field)
    }

    /// What an object below an unlisted field is: anything.
    pub(super) fn below(&self, name: &str) -> &'static Schema {
        match self.field(name) {
            Some(Field::Object(schema)) => schema,
            _ => &PLAIN,
        }
    }
}

/// The schema of a kind. Kinds that are not listed have metadata like all others.
pub fn of(group: &str, kind: &str) -> &'static Schema {
    match (group, kind) {
        ("", "Namespace") => &NAMESPACE,
        ("", "Node") => &NODE,
        ("", "Pod") => &POD,
        ("", "PodTemplate") => &POD_TEMPLATE_OBJECT,
        ("", "Service") => &SERVICE,
        ("", "ServiceAccount") => &SERVICE_ACCOUNT,
        ("apps", "Deployment" | "ReplicaSet" | "DaemonSet" | "StatefulSet") => &WORKLOAD,
        _ => &OBJECT,
    }
}

use Field::{ListBy, Object, Set};

const fn schema(fields: &'static [(&'static str, Field)]) -> Schema {
    Schema { fields }
}

static PLAIN: Schema = schema(&[]);

static METADATA: Schema = schema(&[("ownerReferences", ListBy("uid", &PLAIN)), ("finalizers", Set)]);

/// ConfigMap, Secret, Event, Lease and whatever else has no list that merges.
static OBJECT: Schema = schema(&[("metadata", Object(&METADATA))]);

static CONDITIONS: Schema = schema(&[("conditions", ListBy("type", &PLAIN))]);

static NAMESPACE: Schema = schema(&[("metadata", Object(&METADATA)), ("status", Object(&CONDITIONS))]);

static NODE: Schema = schema(&[
    ("metadata", Object(&METADATA)),
    ("spec", Object(&NODE_SPEC)),
    ("status", Object(&NODE_STATUS)),
]);
static NODE_SPEC: Schema = schema(&[("podCIDRs", Set)]);
static NODE_STATUS: Schema = schema(&[
    ("conditions", ListBy("type", &PLAIN)),
    ("addresses", ListBy("type", &PLAIN)),
]);

static SERVICE: Schema = schema(&[
    ("metadata", Object(&METADATA)),
    ("spec", Object(&SERVICE_SPEC)),
    ("status", Object(&CONDITIONS)),
]);
static SERVICE_SPEC: Schema = schema(&[("ports", ListBy("port", &PLAIN))]);

static SERVICE_ACCOUNT: Schema = schema(&[
    ("metadata", Object(&METADATA)),
    ("secrets", ListBy("name", &PLAIN)),
]);

static WORKLOAD: Schema = schema(&[
    ("metadata", Object(&METADATA)),
    ("spec", Object(&WORKLOAD_SPEC)),
    ("status", Object(&CONDITIONS)),
]);
static WORKLOAD_SPEC: Schema = schema(&[("template", Object(&POD_TEMPLATE))]);

static POD_TEMPLATE_OBJECT: Schema = schema(&[
    ("metadata", Object(&METADATA)),
    ("template", Object(&POD_TEMPLATE)),
]);
static POD_TEMPLATE: Schema = schema(&[("metadata", Object(&METADATA)), ("spec", Object(&POD_SPEC))]);

static POD: Schema = schema(&[
    ("metadata", Object(&METADATA)),
    ("spec", Object(&POD_SPEC)),
    ("status", Object(&POD_STATUS)),
]);

static POD_SPEC: Schema = schema(&[
    ("volumes", ListBy("name", &VOLUME)),
    ("initContainers", ListBy("name", &CONTAINER)),
    ("containers", ListBy("name", &CONTAINER)),
    ("ephemeralContainers", ListBy("name", &CONTAINER)),
    ("imagePullSecrets", ListBy("name", &PLAIN)),
    ("hostAliases", ListBy("ip", &PLAIN)),
    ("topologySpreadConstraints", ListBy("topologyKey", &PLAIN)),
    ("schedulingGates", ListBy("name", &PLAIN)),
    ("resourceClaims", ListBy("name", &PLAIN)),
]);

static CONTAINER: Schema = schema(&[
    ("ports", ListBy("containerPort", &PLAIN)),
    ("env", ListBy("name", &PLAIN)),
    ("volumeMounts", ListBy("mountPath", &PLAIN)),
    ("volumeDevices", ListBy("devicePath", &PLAIN)),
]);

static VOLUME: Schema = schema(&[("ephemeral", Object(&EPHEMERAL_VOLUME))]);
static EPHEMERAL_VOLUME: Schema = schema(&[("volumeClaimTemplate", Object(&OBJECT))]);

static POD_STATUS: Schema = schema(&[
    ("conditions", ListBy("type", &PLAIN)),
    ("hostIPs", ListBy("ip", &PLAIN)),
    ("podIPs", ListBy("ip", &PLAIN)),
    ("resourceClaimStatuses", ListBy("name", &PLAIN)),
]);
