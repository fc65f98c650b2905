//! Field selectors: `metadata.name=a,status.phase!=Running`.

use crate::status::Status;

#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct FieldSelector {
    pub requirements: Vec<FieldRequirement>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FieldRequirement {
    pub field: String,
    pub value: String,
    /// `!=`
    pub negated: bool,
}

impl FieldSelector {
    /// Parses; the fields are not yet checked against the resource.
    pub fn parse(text: &str) -> Result<Self, Status> {
        let mut requirements = Vec::new();
        for term in split_unescaped(text).filter(|t| !t.is_empty()) {
            requirements.push(parse_term(term).ok_or_else(|| {
                Status::bad_request(format!("invalid selector: '{text}'; can't understand '{term}'"))
            })?);
        }
        Ok(Self { requirements })
    }

    pub fn is_empty(&self) -> bool {
        self.requirements.is_empty()
    }

    /// Whether an object matches whose field `f` has the value `value_of(f)` (empty when it has none).
    pub fn matches<'a>(&self, mut value_of: impl FnMut(&str) -> &'a str) -> bool {
        self.requirements
            .iter()
            .all(|r| (value_of(&r.field) == r.value) != r.negated)
    }

    /// The value that `field` must have, if the selector demands one.
    pub fn required_value(&self, field: &str) -> Option<&str> {
        self.requirements
            .iter()
            .find(|r| r.field == field && !r.negated)
            .map(|r| r.value.as_str())
    }
}

fn parse_term(term: &str) -> Option<FieldRequirement> {
    let (field, value, negated) = if let Some((field, value)) = term.split_once("!=") {
        (field, value, true)
    } else if let Some((field, value)) = term.split_once("==") {
        (field, value, false)
    } else {
        let (field, value) = term.split_once('=')?;
        (field, value, false)
    };
    Some(FieldRequirement {
        field: field.trim().into(),
        value: unescape(value)?,
        negated,
    })
}

/// Splits at commas that no backslash precedes.
fn split_unescaped(text: &str) -> impl Iterator<Item = &str> {
    let mut escaped = false;
    text.split(move |c| {
        let splits = c == ',' && !escaped;
        escaped = c == '\\' && !escaped;
        splits
    })
}

fn unescape(value: &str) -> Option<String> {
    let mut out = String::with_capacity(value.len());
    let mut chars = value.chars();
    while let Some(c) = chars.next() {
        match c {
            '\\' => match chars.next()? {
                c @ ('\\' | ',' | '=') => out.push(c),
                _ => return None,
            },
            '=' | ',' => return None,
            c => out.push(c),
        }
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parses_and_matches() {
        let check = |text: &str, name: &str, phase: &str, expect: bool| {
            let selector = FieldSelector::parse(text).unwrap();
            let value = |field: &str| {
                if field == "metadata.name" {
                    name.to_owned()
                } else {
                    phase.to_owned()
                }
            };
            let (name, phase) = (value("metadata.name"), value("status.phase"));
            let found = selector.matches(|f| {
                if f == "metadata.name" {
                    name.as_str()
                } else {
                    phase.as_str()
                }
            });
            assert_eq!(found, expect, "{text}");
        };
        check("", "a", "", true);
        check("metadata.name=a", "a", "", true);
        check("metadata.name==a,status.phase!=Running", "a", "Pending", true);
        check("metadata.name=a,status.phase!=Running", "a", "Running", false);
        check("metadata.name=", "a", "", false);
        check("metadata.name=a\\,b", "a,b", "", true);
    }

    #[test]
    fn rubbish() {
        for text in ["a", "a=b=c", "a=\\x"] {
            assert!(FieldSelector::parse(text).is_err(), "{text}");
        }
    }
}
