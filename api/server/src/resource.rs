//! What the generic registry has to know about one resource: its names, and a small strategy.

use barque_machinery::{
    field_error::FieldError,
    gvk::{GroupKind, GroupResource, GroupVersion},
};
use bytes::Bytes;
use serde_json::Value;

/// One served resource.
pub struct Resource {
    pub group_version: GroupVersion,
    pub plural: &'static str,
    pub singular: &'static str,
    pub kind: &'static str,
    pub short_names: &'static [&'static str],
    pub categories: &'static [&'static str],
    pub namespaced: bool,
    pub subresources: &'static [Subresource],
    /// Fields that a field selector may name, besides `metadata.name` and `metadata.namespace`.
    pub selectable: &'static [&'static str],
    /// Those of them that are kept as index terms; a selector by any other one decodes objects.
    pub indexed: &'static [&'static str],
    pub name_check: fn(&str) -> Option<String>,
    /// `metadata.generation` counts the changes of everything but metadata and status.
    pub has_generation: bool,
    /// A put of an object that does not exist makes it.
    pub create_on_update: bool,
    /// Kept for a while only, by a lease of the keyspace.
    pub expires: bool,
    pub strategy: &'static dyn Strategy,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Subresource {
    Status,
    Scale,
    Binding,
    Finalize,
}

impl Subresource {
    pub const fn name(self) -> &'static str {
        match self {
            Subresource::Status => "status",
            Subresource::Scale => "scale",
            Subresource::Binding => "binding",
            Subresource::Finalize => "finalize",
        }
    }

    pub const fn verbs(self) -> &'static [&'static str] {
        match self {
            Subresource::Status | Subresource::Scale => &["get", "patch", "update"],
            Subresource::Binding => &["create"],
            Subresource::Finalize => &["update"],
        }
    }
}

/// The verbs of the generic registry, in the order of discovery.
const VERBS: [&str; 8] = [
    "create",
    "delete",
    "deletecollection",
    "get",
    "list",
    "patch",
    "update",
    "watch",
];

/// Where the thin allocators of strategies get what they cannot compute.
pub struct Draw<'a> {
    pub random: &'a mut dyn FnMut() -> u32,
    pub service_cidr: (std::net::Ipv4Addr, u8),
}

/// What differs between resources. Every method works on the object alone: no I/O, no clock.
pub trait Strategy: Send + Sync {
    /// Fills in what the client left out; runs on create, update and patch.
    fn set_defaults(&self, _object: &mut Value) {}

    /// Clears or sets what a client may not choose at creation.
    fn prepare_create(&self, _object: &mut Value) {}

    fn prepare_update(&self, _new: &mut Value, _old: &Value) {}

    fn validate(&self, _object: &Value, _errors: &mut Vec<FieldError>) {}

    fn validate_update(&self, _new: &Value, _old: &Value, _errors: &mut Vec<FieldError>) {}

    /// `new` is the stored object with the status that a client sent.
    fn validate_status_update(&self, _new: &Value, _errors: &mut Vec<FieldError>) {}

    /// Chooses what the cluster gives out; called again with another draw when the choice was taken.
    /// `true` when something was chosen here, not by the client.
    fn allocate(&self, _object: &mut Value, _draw: &mut Draw<'_>) -> bool {
        false
    }

    /// Keys that this object alone may hold, written and removed in the object's own transactions.
    fn claims(&self, _object: &Value) -> Vec<Claim> {
        Vec::new()
    }

    /// Seconds between the request to delete and the removal; `None`: removed at once.
    fn grace_period_s(&self, _object: &Value, _asked_s: Option<i64>) -> Option<i64> {
        None
    }

    /// Whether something besides `metadata.finalizers` keeps a deleted object.
    fn holds_deletion(&self, _object: &Value) -> bool {
        false
    }

    /// Why the object of this name may never be deleted, whoever asks.
    fn refuses_deletion(&self, _name: &str) -> Option<&'static str> {
        None
    }

    /// Whether there is a delete of a whole collection.
    fn deletes_collections(&self) -> bool {
        true
    }

    /// Whether an update may leave out the version that it rests on, and then overwrites whatever is there.
    fn allows_unconditional_update(&self) -> bool {
        true
    }

    /// What a delete changes in an object that is kept.
    fn prepare_deletion(&self, _object: &mut Value) {}

    /// Whether a status at creation is kept (nodes report theirs then).
    fn keeps_status_on_create(&self) -> bool {
        false
    }
}

/// Something of which the cluster has only one, such as an address.
#[derive(Debug, Clone, PartialEq)]
pub struct Claim {
    pub key: Bytes,
    /// What to tell the client who asked for it when it is taken.
    pub taken: FieldError,
}

impl Resource {
    pub fn group_resource(&self) -> GroupResource {
        GroupResource::new(self.group_version.group, self.plural)
    }

    pub fn group_kind(&self) -> GroupKind {
        GroupKind {
            group: self.group_version.group.into(),
            kind: self.kind.into(),
        }
    }

    pub fn verbs(&self) -> Vec<&'static str> {
        let is_served = |verb: &&str| *verb != "deletecollection" || self.strategy.deletes_collections();
        VERBS.into_iter().filter(is_served).collect()
    }

    pub fn has(&self, subresource: Subresource) -> bool {
        self.subresources.contains(&subresource)
    }

    pub fn subresource(&self, name: &str) -> Option<Subresource> {
        self.subresources.iter().copied().find(|s| s.name() == name)
    }

    pub fn list_kind(&self) -> String {
        format!("{}List", self.kind)
    }

    /// All objects of the resource, or those of one namespace, lie below this.
    pub fn prefix(&self, namespace: &str) -> Bytes {
        match namespace {
            "" => format!("/registry/{}/", self.plural).into(),
            namespace => format!("/registry/{}/{namespace}/", self.plural).into(),
        }
    }

    pub fn key(&self, namespace: &str, name: &str) -> Bytes {
        match self.namespaced {
            true => format!("/registry/{}/{namespace}/{name}", self.plural).into(),
            false => format!("/registry/{}/{name}", self.plural).into(),
        }
    }

    /// Namespace (empty for cluster scope) and name in a key of this resource.
    pub fn split_key<'k>(&self, key: &'k [u8]) -> Option<(&'k str, &'k str)> {
        let text = std::str::from_utf8(key).ok()?;
        let rest = text
            .strip_prefix("/registry/")?
            .strip_prefix(self.plural)?
            .strip_prefix('/')?;
        match self.namespaced {
            true => rest.split_once('/'),
            false => Some(("", rest)),
        }
    }
}

/// The value of a field such as `spec.nodeName`, as field selectors compare it.
pub fn field_text(object: &Value, path: &str) -> String {
    let mut at = object;
    for segment in path.split('.') {
        at = &at[segment];
    }
    match at {
        Value::String(text) => text.clone(),
        Value::Bool(flag) => flag.to_string(),
        Value::Number(number) => number.to_string(),
        _ => String::new(),
    }
}
