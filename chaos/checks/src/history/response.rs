//! What a member answered: [`Response`].

use std::{borrow::Cow, fmt};

use serde::{Deserialize, Serialize};

use super::Revision;

/// An answer with the revision of its header.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Response {
    /// In a response that is nested in a txn's, 0 says that none was told.
    pub revision: Revision,
    pub answer: Answer,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Answer {
    Put {
        prev_kv: Option<KeyValue>,
    },
    Delete {
        deleted: i64,
        prev_kvs: Vec<KeyValue>,
    },
    /// To a get as well.
    Range {
        kvs: Vec<KeyValue>,
        count: i64,
        more: bool,
    },
    Txn {
        succeeded: bool,
        responses: Vec<Response>,
    },
    Compact,
    LeaseGrant {
        id: i64,
        ttl: i64,
    },
    LeaseRevoke,
    /// 0 or less: the lease is gone.
    LeaseKeepAlive {
        ttl: i64,
    },
    /// −1: the lease is gone.
    LeaseTimeToLive {
        ttl: i64,
        granted_ttl: i64,
    },
}

/// One version of one key.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyValue {
    pub key: String,
    pub value: String,
    pub create_revision: Revision,
    pub mod_revision: Revision,
    pub version: i64,
    pub lease: i64,
}

impl Answer {
    /// Whether it says that a key was changed, and so that its revision is a new one.
    pub fn changed(&self) -> bool {
        match self {
            Answer::Put { .. } => true,
            Answer::Delete { deleted, .. } => *deleted > 0,
            Answer::Txn { responses, .. } => responses.iter().any(|nested| nested.answer.changed()),
            _ => false,
        }
    }

    /// Calls `see` with every version that it tells of.
    pub fn visit<'a>(&'a self, see: &mut impl FnMut(&'a KeyValue)) {
        match self {
            Answer::Put { prev_kv } => prev_kv.iter().for_each(see),
            Answer::Delete { prev_kvs, .. } => prev_kvs.iter().for_each(see),
            Answer::Range { kvs, .. } => kvs.iter().for_each(see),
            Answer::Txn { responses, .. } => {
                for nested in responses {
                    nested.answer.visit(see);
                }
            }
            _ => {}
        }
    }
}

/// Of a value so much as tells it from all others.
const SHOWN_BYTES: usize = 32;

/// A large value is told by its beginning and its length.
pub(super) fn shown(value: &str) -> Cow<'_, str> {
    match value.get(..SHOWN_BYTES) {
        Some(beginning) if value.len() > SHOWN_BYTES => {
            Cow::Owned(format!("{beginning}… ({} bytes)", value.len()))
        }
        _ => Cow::Borrowed(value),
    }
}

impl fmt::Display for KeyValue {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (key, value) = (&self.key, shown(&self.value));
        write!(out, "{key}={value} (create {}, ", self.create_revision)?;
        write!(out, "mod {}, version {}", self.mod_revision, self.version)?;
        match self.lease {
            0 => out.write_str(")"),
            lease => write!(out, ", lease {lease})"),
        }
    }
}

/// Values and counts alone, short enough for a label.
impl fmt::Display for Answer {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Answer::Put { prev_kv: None } => out.write_str("ok"),
            Answer::Put { prev_kv: Some(prev) } => write!(out, "ok, was {}", shown(&prev.value)),
            Answer::Delete { deleted, .. } => write!(out, "{deleted} deleted"),
            Answer::Range { kvs, count, .. } => match kvs.as_slice() {
                [] => write!(out, "nothing of {count}"),
                [one] if *count == 1 => out.write_str(&shown(&one.value)),
                kvs => {
                    let shown: Vec<String> = kvs
                        .iter()
                        .map(|kv| format!("{}={}", kv.key, shown(&kv.value)))
                        .collect();
                    write!(out, "{} of {count}", shown.join(" "))
                }
            },
            Answer::Txn { succeeded, responses } => {
                out.write_str(if *succeeded { "then" } else { "else" })?;
                let shown: Vec<String> = responses.iter().map(|nested| nested.answer.to_string()).collect();
                write!(out, " [{}]", shown.join("; "))
            }
            Answer::Compact | Answer::LeaseRevoke => out.write_str("ok"),
            Answer::LeaseGrant { ttl, .. } | Answer::LeaseKeepAlive { ttl } => write!(out, "ttl {ttl}s"),
            Answer::LeaseTimeToLive { ttl, .. } => write!(out, "{ttl}s left"),
        }
    }
}
