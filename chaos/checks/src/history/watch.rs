//! What one watch was told: [`WatchRecord`].

use std::fmt;

use serde::{Deserialize, Serialize};

use super::{KeySpan, KeyValue, Revision};

/// A watch from its creation to its end. A watch that is created again after a lost connection is a new record.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct WatchRecord {
    /// Of this record in the history; not what the server calls the watch.
    pub id: u64,
    pub client: u32,
    pub member: u32,
    /// `from` and `to` as in [`KeySpan`].
    pub from: String,
    pub to: String,
    /// 0: what comes after the creation.
    pub start_revision: Revision,
    pub no_put: bool,
    pub no_delete: bool,
    pub prev_kv: bool,
    /// Whether the watch asked for large responses in pieces.
    pub fragment: bool,
    pub responses: Vec<WatchResponse>,
    /// The last revision that the watch before this one had delivered in full.
    pub resumed_from: Option<Revision>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WatchResponse {
    pub time: u64,
    pub header_revision: Revision,
    pub kind: WatchKind,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum WatchKind {
    Created,
    Events {
        events: Vec<WatchEvent>,
        /// The response goes on in the next one.
        fragment: bool,
    },
    /// Every event up to the header's revision was delivered before.
    Progress,
    Cancelled {
        /// Above 0: the watch needed what was compacted.
        compact_revision: Revision,
        reason: String,
    },
}

/// A change of one key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WatchEvent {
    /// The revision of the change.
    pub revision: Revision,
    /// 0 for a delete, as the three that follow are 0 or empty.
    pub create_revision: Revision,
    pub version: i64,
    pub key: String,
    pub kind: EventKind,
    pub value: String,
    pub lease: i64,
    /// The key as it was one revision before, if that was asked for and is known.
    pub prev_kv: Option<KeyValue>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum EventKind {
    Put,
    Delete,
}

impl WatchRecord {
    pub fn span(&self) -> KeySpan {
        KeySpan::new(&self.from, &self.to)
    }

    /// Whether it asked for changes of this kind to this key.
    pub fn wants(&self, event: &WatchEvent) -> bool {
        let dropped = match event.kind {
            EventKind::Put => self.no_put,
            EventKind::Delete => self.no_delete,
        };
        !dropped && self.span().contains(&event.key)
    }
}

impl WatchResponse {
    /// The newest revision that it speaks of.
    pub fn newest(&self) -> Revision {
        match &self.kind {
            WatchKind::Events { events, .. } => {
                let told = events.iter().map(|event| event.revision).max();
                self.header_revision.max(told.unwrap_or(0))
            }
            _ => self.header_revision,
        }
    }
}

impl WatchEvent {
    pub fn put(kv: &KeyValue) -> WatchEvent {
        WatchEvent {
            revision: kv.mod_revision,
            create_revision: kv.create_revision,
            version: kv.version,
            key: kv.key.clone(),
            kind: EventKind::Put,
            value: kv.value.clone(),
            lease: kv.lease,
            prev_kv: None,
        }
    }

    pub fn delete(key: impl Into<String>, revision: Revision) -> WatchEvent {
        WatchEvent {
            revision,
            create_revision: 0,
            version: 0,
            key: key.into(),
            kind: EventKind::Delete,
            value: String::new(),
            lease: 0,
            prev_kv: None,
        }
    }

    /// The version that a put leaves behind; `None` for a delete.
    pub fn key_value(&self) -> Option<KeyValue> {
        (self.kind == EventKind::Put).then(|| KeyValue {
            key: self.key.clone(),
            value: self.value.clone(),
            create_revision: self.create_revision,
            mod_revision: self.revision,
            version: self.version,
            lease: self.lease,
        })
    }

    /// Whether both tell of the same change, whatever they know of what was before.
    pub fn is_same_change(&self, other: &WatchEvent) -> bool {
        self.revision == other.revision
            && self.key == other.key
            && self.kind == other.kind
            && (self.kind == EventKind::Delete || self.has_same_version(other))
    }

    fn has_same_version(&self, other: &WatchEvent) -> bool {
        self.value == other.value
            && self.create_revision == other.create_revision
            && self.version == other.version
            && self.lease == other.lease
    }
}

impl fmt::Display for WatchEvent {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.key_value() {
            Some(kv) => write!(out, "put {kv}"),
            None => write!(out, "delete {} (mod {})", self.key, self.revision),
        }
    }
}
