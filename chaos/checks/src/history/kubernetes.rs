//! What listers and watchers of the Kubernetes API saw: [`KubernetesRecord`], [`KubernetesError`]; what was acknowledged
//! to writers: [`KubernetesWrite`]; and what became of every call: [`KubernetesCall`].

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

/// A watch that its master ended by its own word: with an ERROR event, with a refusal because what it needs is gone, or
/// with something that is no event. One whose connection was lost is none.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KubernetesError {
    pub watcher: u32,
    pub master: u32,
    pub time: u64,
    pub selection: String,
    /// What the watcher had been told up to, by this watch or before it.
    pub resource_version: Revision,
    /// Of the Status; 0: it is no event.
    pub code: u16,
    pub text: String,
}

/// One call for objects, by whoever, and what became of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KubernetesCall {
    pub master: u32,
    pub call: u64,
    /// When it was answered, failed or was given up.
    pub ret: u64,
    pub verb: KubernetesVerb,
    pub outcome: KubernetesOutcome,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum KubernetesVerb {
    Create,
    Patch,
    Delete,
    List,
    /// From the request until the answer begins.
    Watch,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum KubernetesOutcome {
    Done,
    /// By the rules of the API: it is there already, there is none, what is needed was compacted.
    Refused(String),
    /// What came of it is not known, or the service was not there.
    Failed(String),
}

impl KubernetesVerb {
    /// Whether it changes an object.
    pub fn changes(self) -> bool {
        !matches!(self, KubernetesVerb::List | KubernetesVerb::Watch)
    }

    pub fn name(self) -> &'static str {
        match self {
            KubernetesVerb::Create => "object create",
            KubernetesVerb::Patch => "object patch",
            KubernetesVerb::Delete => "object delete",
            KubernetesVerb::List => "object list",
            KubernetesVerb::Watch => "object watch",
        }
    }
}

impl KubernetesCall {
    /// Whether it was answered by the rules of the API, as opposed to a sign that the service was not there.
    pub fn is_answered(&self) -> bool {
        !matches!(self.outcome, KubernetesOutcome::Failed(_))
    }

    /// When it succeeded, if it did.
    pub fn succeeded(&self) -> Option<u64> {
        (self.outcome == KubernetesOutcome::Done).then_some(self.ret)
    }
}
