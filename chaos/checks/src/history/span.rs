//! A half-open range of keys, spelled as etcd spells it: [`KeySpan`].

use std::fmt;

use serde::{Deserialize, Serialize};

/// `to` is exclusive; empty: the one key `from`; a zero byte: every key from `from` on.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeySpan {
    pub from: String,
    pub to: String,
}

impl KeySpan {
    pub fn new(from: impl Into<String>, to: impl Into<String>) -> KeySpan {
        let (from, to) = (from.into(), to.into());
        KeySpan { from, to }
    }

    pub fn one(key: impl Into<String>) -> KeySpan {
        KeySpan::new(key, "")
    }

    pub fn contains(&self, key: &str) -> bool {
        match self.to.as_str() {
            "" => key == self.from,
            "\0" => key >= self.from.as_str(),
            to => key >= self.from.as_str() && key < to,
        }
    }

    /// Whether every key of this span is one of the other's.
    pub fn is_within(&self, other: &KeySpan) -> bool {
        match (self.to.as_str(), other.to.as_str()) {
            ("", _) => other.contains(&self.from),
            (_, "") => false,
            (_, "\0") => self.from >= other.from,
            ("\0", _) => false,
            (to, bound) => self.from >= other.from && to <= bound,
        }
    }
}

impl fmt::Display for KeySpan {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.to.as_str() {
            "" => write!(out, "{}", self.from),
            "\0" => write!(out, "{}..", self.from.trim_start_matches('\0')),
            to => write!(out, "{}..{to}", self.from),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_three_spellings() {
        let (one, some, open) = (KeySpan::one("b"), KeySpan::new("b", "d"), KeySpan::new("b", "\0"));
        assert!(one.contains("b") && !one.contains("ba"));
        assert!(some.contains("b") && some.contains("cz") && !some.contains("d") && !some.contains("a"));
        assert!(open.contains("b") && open.contains("zz") && !open.contains("a"));
        assert!(one.is_within(&some) && some.is_within(&open) && some.is_within(&some));
        assert!(!open.is_within(&some) && !some.is_within(&one) && !KeySpan::new("a", "c").is_within(&some));
    }
}
