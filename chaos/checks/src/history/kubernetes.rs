//! What listers and watchers of the Kubernetes API saw: [`KubernetesRecord`]; and what was acknowledged to writers:
//! [`KubernetesWrite`].

use serde::{Deserialize, Serialize};

use super::Revision;

/// One thing told to one watcher, in the order in which it was told. A watcher goes on at another master where it was.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KubernetesRecord {
    pub watcher: u32,
    pub master: u32,
    pub time: u64,
    /// What it watches: resource, namespace and selector. Watchers of one selection see the same events.
    pub selection: String,
    pub resource_version: Revision,
    pub kind: KubernetesType,
    /// With the namespace; empty for a list and a bookmark.
    pub name: String,
    pub uid: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum KubernetesType {
    /// A list was answered with this resourceVersion; its items are the records that follow.
    Listed,
    Item,
    Added,
    Modified,
    Deleted,
    Bookmark,
}

/// A change that was acknowledged with the resourceVersion that it made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KubernetesWrite {
    pub writer: u32,
    pub master: u32,
    pub time: u64,
    pub selection: String,
    pub resource_version: Revision,
    /// As watchers are told of it.
    pub kind: KubernetesType,
    pub name: String,
    pub uid: String,
}
