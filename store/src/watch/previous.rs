//! The version of a key before a change: in the event while it is small, left in the store when it is not.
//!
//! Few watchers ask for it, and one deletion may end versions of hundreds of MiB. What is left in the store is read
//! for the first watcher that asks ([`Subscriber::previous`](super::Subscriber::previous), or a drain for those whose
//! [`WatchSpec`](super::WatchSpec) says so) and kept in the event for the others.
//!
//! Small ones are kept because reading them costs more than their bytes: every update of a Kubernetes object is
//! judged by what it was before, by each watcher with a selector.

use std::sync::OnceLock;

use crate::{KeyValue, keys::Version};

/// The largest row that an event carries along.
const INLINE_BYTES: usize = 4 << 10;

/// The version of a key before the revision that changed it.
#[derive(Debug, Clone, Default)]
pub struct Previous(Kept);

#[derive(Debug, Clone, Default)]
enum Kept {
    /// The key was created, or the version is compacted.
    #[default]
    Nowhere,
    Inline(KeyValue),
    Stored(Stored),
}

#[derive(Debug, Clone)]
struct Stored {
    version: Version,
    /// Of its row; 0: not known.
    bytes: usize,
    /// `None` in it: compacted by the time it was read.
    read: OnceLock<Option<Box<KeyValue>>>,
}

impl Previous {
    pub const NONE: Previous = Previous(Kept::Nowhere);

    /// Carried along, whatever its size.
    pub fn inline(kv: KeyValue) -> Self {
        Self(Kept::Inline(kv))
    }

    /// Left where it is.
    pub(crate) fn stored(version: Version, bytes: usize) -> Self {
        Self(Kept::Stored(Stored {
            version,
            bytes,
            read: OnceLock::new(),
        }))
    }

    /// Of a row of `bytes` that is at hand: carried along when it is small.
    pub(crate) fn of(kv: &KeyValue, version: Version, bytes: usize) -> Self {
        if bytes <= INLINE_BYTES {
            Self::inline(kv.clone())
        } else {
            Self::stored(version, bytes)
        }
    }

    /// Whether the key was there before, as far as is known without reading.
    pub fn exists(&self) -> bool {
        match &self.0 {
            Kept::Nowhere => false,
            Kept::Inline(_) => true,
            Kept::Stored(stored) => stored.read.get().is_none_or(Option::is_some),
        }
    }

    /// What is at hand. `None` when there is none, when it is compacted, and while nobody has read it.
    pub fn get(&self) -> Option<&KeyValue> {
        match &self.0 {
            Kept::Nowhere => None,
            Kept::Inline(kv) => Some(kv),
            Kept::Stored(stored) => stored.read.get()?.as_deref(),
        }
    }

    pub(crate) fn is_unread(&self) -> bool {
        self.unread().is_some()
    }

    /// The version to read, while nobody has.
    pub(crate) fn unread(&self) -> Option<Version> {
        match &self.0 {
            Kept::Stored(stored) if stored.read.get().is_none() => Some(stored.version),
            _ => None,
        }
    }

    /// Keeps what was read for `unread`, if it was the first.
    pub(crate) fn keep(&self, kv: Option<KeyValue>) {
        if let Kept::Stored(stored) = &self.0 {
            stored.read.get_or_init(|| kv.map(Box::new));
        }
    }

    /// What it costs in memory, or would once it was read.
    pub(super) fn weight(&self) -> usize {
        match (&self.0, self.get()) {
            (_, Some(kv)) => kv.size(),
            (Kept::Stored(stored), None) => stored.bytes,
            (_, None) => 0,
        }
    }
}
