//! What a client asked for: [`Request`].

use std::fmt;

use serde::{Deserialize, Serialize};

use super::{KeySpan, Revision, Shape, response::shown};

/// One call. Times to live are seconds; a revision of 0 means now; a lease of 0 means none, a limit of 0 no limit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Request {
    Put {
        key: String,
        /// Written by no other put of the history.
        value: String,
        prev_kv: bool,
        lease: i64,
    },
    Delete {
        key: String,
        prev_kv: bool,
    },
    /// `from` and `to` as in [`KeySpan`].
    DeleteRange {
        from: String,
        to: String,
        prev_kv: bool,
    },
    Get {
        key: String,
        serializable: bool,
        revision: Revision,
    },
    /// `from` and `to` as in [`KeySpan`].
    Range {
        from: String,
        to: String,
        serializable: bool,
        revision: Revision,
        limit: i64,
        #[serde(default)]
        shape: Shape,
    },
    Txn {
        compares: Vec<Compare>,
        then: Vec<Request>,
        otherwise: Vec<Request>,
    },
    Compact {
        revision: Revision,
    },
    LeaseGrant {
        id: i64,
        ttl: i64,
    },
    LeaseRevoke {
        id: i64,
    },
    LeaseKeepAlive {
        id: i64,
    },
    LeaseTimeToLive {
        id: i64,
    },
}

/// `target of key` `relation` `the given operand`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Compare {
    pub key: String,
    /// Of a range, of which it must hold for every key, the end as in [`KeySpan`]; empty: the one key.
    #[serde(default)]
    pub to: String,
    pub target: Target,
    pub relation: Relation,
}

/// What is compared, with the operand.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Target {
    Value(String),
    ModRevision(Revision),
    CreateRevision(Revision),
    Version(i64),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Relation {
    Equal,
    NotEqual,
    Less,
    Greater,
}

impl Relation {
    pub fn holds<T: Ord + ?Sized>(self, actual: &T, given: &T) -> bool {
        match self {
            Relation::Equal => actual == given,
            Relation::NotEqual => actual != given,
            Relation::Less => actual < given,
            Relation::Greater => actual > given,
        }
    }
}

impl Request {
    /// A read of what is current, for which a quorum is asked.
    pub fn get(key: impl Into<String>) -> Request {
        Request::Get {
            key: key.into(),
            serializable: false,
            revision: 0,
        }
    }

    pub fn put(key: impl Into<String>, value: impl Into<String>) -> Request {
        Request::Put {
            key: key.into(),
            value: value.into(),
            prev_kv: false,
            lease: 0,
        }
    }

    pub fn delete(key: impl Into<String>) -> Request {
        Request::Delete {
            key: key.into(),
            prev_kv: false,
        }
    }

    /// Whether some state lets this request change a key.
    pub fn may_write(&self) -> bool {
        match self {
            Request::Put { .. } | Request::Delete { .. } | Request::DeleteRange { .. } => true,
            Request::Txn { then, otherwise, .. } => then.iter().chain(otherwise).any(Request::may_write),
            _ => false,
        }
    }

    /// Whether it touches keys: a put, a delete, a read or a txn of those.
    pub fn is_keyed(&self) -> bool {
        use Request::{Delete, DeleteRange, Get, Put, Range, Txn};
        matches!(
            self,
            Put { .. } | Delete { .. } | DeleteRange { .. } | Get { .. } | Range { .. } | Txn { .. }
        )
    }

    /// Whether a member may answer alone from a state that is behind. A txn of nothing but such reads may, too.
    pub fn is_serializable(&self) -> bool {
        match self {
            Request::Get { serializable, .. } | Request::Range { serializable, .. } => *serializable,
            Request::Txn { then, otherwise, .. } => {
                then.iter().chain(otherwise).all(Request::is_serializable)
            }
            _ => false,
        }
    }

    /// Whether its answer must not be older than anything acknowledged before it was called. A keep-alive and a
    /// time-to-live are answered with a header of the member that was asked, which may be behind the leader.
    pub fn is_ordered(&self) -> bool {
        use Request::{LeaseKeepAlive, LeaseTimeToLive};
        !self.is_serializable() && !matches!(self, LeaseKeepAlive { .. } | LeaseTimeToLive { .. })
    }

    /// The span that a read reads, or a delete deletes.
    pub fn span(&self) -> Option<KeySpan> {
        match self {
            Request::Get { key, .. } | Request::Delete { key, .. } => Some(KeySpan::one(key)),
            Request::Range { from, to, .. } | Request::DeleteRange { from, to, .. } => {
                Some(KeySpan::new(from, to))
            }
            _ => None,
        }
    }

    /// Calls `see` with this request and, of a txn, with every nested one.
    pub fn visit<'a>(&'a self, see: &mut impl FnMut(&'a Request)) {
        see(self);
        if let Request::Txn { then, otherwise, .. } = self {
            for nested in then.iter().chain(otherwise) {
                nested.visit(see);
            }
        }
    }

    /// The name of its kind.
    pub fn kind(&self) -> &'static str {
        match self {
            Request::Put { .. } => "put",
            Request::Delete { .. } => "delete",
            Request::DeleteRange { .. } => "delete range",
            Request::Get { .. } => "get",
            Request::Range { .. } => "range",
            Request::Txn { .. } => "txn",
            Request::Compact { .. } => "compact",
            Request::LeaseGrant { .. } => "lease grant",
            Request::LeaseRevoke { .. } => "lease revoke",
            Request::LeaseKeepAlive { .. } => "lease keep-alive",
            Request::LeaseTimeToLive { .. } => "lease time-to-live",
        }
    }
}

impl fmt::Display for Request {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Request::Put {
                key, value, lease, ..
            } => {
                write!(out, "put {key}={}", shown(value))?;
                write_unless_zero(out, " lease ", *lease)
            }
            Request::Delete { key, .. } => write!(out, "delete {key}"),
            Request::DeleteRange { from, to, .. } => write!(out, "delete {}", KeySpan::new(from, to)),
            Request::Get {
                serializable,
                revision,
                ..
            } => write_read(out, self, *serializable, *revision, 0),
            Request::Range {
                serializable,
                revision,
                limit,
                shape,
                ..
            } => {
                write_read(out, self, *serializable, *revision, *limit)?;
                write!(out, "{shape}")
            }
            Request::Txn {
                compares,
                then,
                otherwise,
            } => {
                write!(out, "txn if {}", joined(compares, " and "))?;
                write!(
                    out,
                    " then [{}] else [{}]",
                    joined(then, "; "),
                    joined(otherwise, "; ")
                )
            }
            Request::Compact { revision } => write!(out, "compact {revision}"),
            Request::LeaseGrant { id, ttl } => write!(out, "lease grant {id} ttl {ttl}s"),
            Request::LeaseRevoke { id }
            | Request::LeaseKeepAlive { id }
            | Request::LeaseTimeToLive { id } => {
                write!(out, "{} {id}", self.kind())
            }
        }
    }
}

fn write_read(
    out: &mut fmt::Formatter<'_>,
    read: &Request,
    serializable: bool,
    revision: Revision,
    limit: i64,
) -> fmt::Result {
    let span = read.span().unwrap_or_default();
    write!(out, "{} {span}", read.kind())?;
    write_unless_zero(out, " at ", revision)?;
    write_unless_zero(out, " limit ", limit)?;
    out.write_str(if serializable { " serializable" } else { "" })
}

fn write_unless_zero(out: &mut fmt::Formatter<'_>, before: &str, number: i64) -> fmt::Result {
    match number {
        0 => Ok(()),
        number => write!(out, "{before}{number}"),
    }
}

fn joined<T: fmt::Display>(parts: &[T], between: &str) -> String {
    let parts: Vec<String> = parts.iter().map(T::to_string).collect();
    parts.join(between)
}

impl fmt::Display for Compare {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let relation = match self.relation {
            Relation::Equal => "=",
            Relation::NotEqual => "!=",
            Relation::Less => "<",
            Relation::Greater => ">",
        };
        let key = KeySpan::new(&self.key, &self.to);
        match &self.target {
            Target::Value(given) => write!(out, "value({key}){relation}{}", shown(given)),
            Target::ModRevision(given) => write!(out, "mod({key}){relation}{given}"),
            Target::CreateRevision(given) => write!(out, "create({key}){relation}{given}"),
            Target::Version(given) => write!(out, "version({key}){relation}{given}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_read_as_people_would_say_them() {
        let compare = Compare {
            key: "a".into(),
            to: String::new(),
            target: Target::ModRevision(3),
            relation: Relation::Equal,
        };
        let txn = Request::Txn {
            compares: vec![compare],
            then: vec![Request::put("a", "1/2")],
            otherwise: vec![Request::get("a")],
        };
        assert_eq!(txn.to_string(), "txn if mod(a)=3 then [put a=1/2] else [get a]");
        assert!(txn.may_write() && !txn.is_serializable() && txn.is_ordered());
    }

    #[test]
    fn a_txn_is_serializable_when_all_its_reads_are() {
        let read = |serializable| Request::Get {
            key: "a".into(),
            serializable,
            revision: 0,
        };
        let txn = |then| Request::Txn {
            compares: Vec::new(),
            then,
            otherwise: Vec::new(),
        };
        assert!(txn(vec![read(true), read(true)]).is_serializable());
        assert!(!txn(vec![read(true), read(false)]).is_serializable());
        assert!(!txn(vec![read(true), Request::delete("a")]).is_serializable());
    }
}
