//! Label selectors: `app=web,tier in (a, b),!canary,rank>3`.

use crate::{name, status::Status};

#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct LabelSelector {
    pub requirements: Vec<Requirement>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Requirement {
    pub key: String,
    pub operator: Operator,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Operator {
    Exists,
    DoesNotExist,
    /// One of these; `=` has one.
    In(Vec<String>),
    /// None of these, or no such label.
    NotIn(Vec<String>),
    GreaterThan(i64),
    LessThan(i64),
}

impl LabelSelector {
    pub fn parse(text: &str) -> Result<Self, Status> {
        let mut parser = Parser {
            rest: text.trim_start(),
        };
        let mut requirements = Vec::new();
        while !parser.rest.is_empty() {
            let found = parser.requirement().and_then(|r| parser.comma().map(|()| r));
            requirements.push(
                found.map_err(|why| Status::bad_request(format!("unable to parse requirement: {why}")))?,
            );
        }
        Ok(Self { requirements })
    }

    pub fn is_empty(&self) -> bool {
        self.requirements.is_empty()
    }

    /// Whether an object matches whose label `k` is `label_of(k)`.
    pub fn matches<'a>(&self, mut label_of: impl FnMut(&str) -> Option<&'a str>) -> bool {
        self.requirements
            .iter()
            .all(|r| r.operator.matches(label_of(&r.key)))
    }
}

impl Operator {
    fn matches(&self, value: Option<&str>) -> bool {
        let number = || value.and_then(|v| v.parse::<i64>().ok());
        match self {
            Operator::Exists => value.is_some(),
            Operator::DoesNotExist => value.is_none(),
            Operator::In(values) => value.is_some_and(|v| values.iter().any(|x| x == v)),
            Operator::NotIn(values) => !value.is_some_and(|v| values.iter().any(|x| x == v)),
            Operator::GreaterThan(bound) => number().is_some_and(|n| n > *bound),
            Operator::LessThan(bound) => number().is_some_and(|n| n < *bound),
        }
    }
}

struct Parser<'a> {
    rest: &'a str,
}

impl<'a> Parser<'a> {
    fn requirement(&mut self) -> Result<Requirement, String> {
        if self.take("!") {
            let key = self.key()?;
            return Ok(Requirement {
                key,
                operator: Operator::DoesNotExist,
            });
        }
        let key = self.key()?;
        let operator = if self.rest.is_empty() || self.rest.starts_with(',') {
            Operator::Exists
        } else if self.take("!=") {
            Operator::NotIn(vec![self.value()?])
        } else if self.take("==") || self.take("=") {
            Operator::In(vec![self.value()?])
        } else if self.take(">") {
            Operator::GreaterThan(self.number()?)
        } else if self.take("<") {
            Operator::LessThan(self.number()?)
        } else {
            match self.word() {
                "in" => Operator::In(self.values()?),
                "notin" => Operator::NotIn(self.values()?),
                other => {
                    return Err(format!("found '{other}', expected: in, notin, =, ==, !=, gt, lt"));
                }
            }
        };
        Ok(Requirement { key, operator })
    }

    fn key(&mut self) -> Result<String, String> {
        let key = self.word();
        match name::qualified_name(key) {
            None => Ok(key.into()),
            Some(problem) => Err(format!("<nil>: Invalid value: {key:?}: {problem}")),
        }
    }

    fn value(&mut self) -> Result<String, String> {
        let value = self.word();
        match name::label_value(value) {
            None => Ok(value.into()),
            Some(problem) => Err(format!("<nil>: Invalid value: {value:?}: {problem}")),
        }
    }

    fn number(&mut self) -> Result<i64, String> {
        let value = self.word();
        value.parse().map_err(|_| {
            format!("<nil>: Invalid value: {value:?}: for 'Gt', 'Lt' operators, the value must be an integer")
        })
    }

    fn values(&mut self) -> Result<Vec<String>, String> {
        if !self.take("(") {
            return Err(format!("found '{}', expected: '('", self.rest));
        }
        let mut values = Vec::new();
        loop {
            values.push(self.value()?);
            if self.take(")") {
                return Ok(values);
            }
            if !self.take(",") {
                return Err(format!("found '{}', expected: ',', ')' or identifier", self.rest));
            }
        }
    }

    /// After a requirement: the end, or a comma and another requirement.
    fn comma(&mut self) -> Result<(), String> {
        if self.rest.is_empty() || (self.take(",") && !self.rest.is_empty()) {
            return Ok(());
        }
        Err(format!("found '{}', expected: ',' or 'end of string'", self.rest))
    }

    fn word(&mut self) -> &'a str {
        let special = |c: char| c.is_whitespace() || matches!(c, '=' | '!' | '(' | ')' | ',' | '>' | '<');
        let end = self.rest.find(special).unwrap_or(self.rest.len());
        let (word, rest) = self.rest.split_at(end);
        self.rest = rest.trim_start();
        word
    }

    fn take(&mut self, token: &str) -> bool {
        match self.rest.strip_prefix(token) {
            Some(rest) => {
                self.rest = rest.trim_start();
                true
            }
            None => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn matches_by_every_operator() {
        let check = |text: &str, labels: &[(&str, &str)], expect: bool| {
            let selector = LabelSelector::parse(text).unwrap_or_else(|e| panic!("{text}: {e}"));
            let found = selector.matches(|k| labels.iter().find(|(key, _)| *key == k).map(|(_, v)| *v));
            assert_eq!(found, expect, "{text} {labels:?}");
        };
        let web = [("app", "web"), ("rank", "5"), ("x.io/empty", "")];
        check("", &[], true);
        check("app=web", &web, true);
        check("app == web , rank>4", &web, true);
        check("rank<5", &web, false);
        check("app!=web", &web, false);
        check("app!=web", &[], true);
        check("app in (db, web)", &web, true);
        check("app notin (db,web)", &web, false);
        check("app notin (db)", &[], true);
        check("app", &web, true);
        check("!app", &web, false);
        check("!other,app", &web, true);
        check("x.io/empty=", &web, true);
        check("x.io/empty in ()", &web, true);
    }

    #[test]
    fn rubbish() {
        for text in [
            "a b", "a=b c", "a in", "a in (b", "=b", ",", "a,", "a=b,,c", "rank>x", "-a=b", "a=!b",
        ] {
            assert!(LabelSelector::parse(text).is_err(), "{text}");
        }
    }
}
