//! What a check says: [`Check`]; and all checks of a history: [`check_all`].

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::{
    availability, counts,
    history::{History, Revision},
    kubernetes, leases, linearizability, members, membership,
    model::Evidence,
    space, watches,
};

/// Violations that one check describes; it counts the others.
const MAX_VIOLATIONS: usize = 50;

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Verdict {
    Passed,
    Failed,
    /// Nothing was found wrong, but not everything could be looked at.
    Undecided {
        why: String,
    },
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Check {
    pub name: String,
    pub verdict: Verdict,
    /// How many things were looked at: operations, events, revisions, according to the check.
    pub checked: u64,
    pub violations: Vec<Violation>,
    /// Found besides the violations that are described.
    pub more_violations: u64,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Violation {
    pub text: String,
    /// Indices into the history's operations; of a linearizability violation, the smallest set found that contradicts
    /// itself.
    pub operations: Vec<usize>,
    /// The id of a watch record.
    pub watch: Option<u64>,
    pub revision: Option<Revision>,
}

impl Check {
    pub fn passed(&self) -> bool {
        self.verdict == Verdict::Passed
    }

    pub fn failed(&self) -> bool {
        self.verdict == Verdict::Failed
    }
}

/// Every check, on one history. Those that have nothing to look at pass with a count of 0.
pub fn check_all(history: &History) -> Vec<Check> {
    let evidence = Evidence::new(history);
    vec![
        linearizability::values::check(&evidence),
        linearizability::revisions::check(&evidence),
        linearizability::serializable::check(&evidence),
        watches::check_with(&evidence),
        leases::check_with(&evidence),
        members::check(history),
        members::check_leaders(history),
        membership::check_changes(history),
        membership::check_wiped(history),
        space::check(history),
        kubernetes::check(history),
        availability::check(history),
        counts::check(history),
    ]
}

/// Failed if any failed, else undecided if any is.
pub fn overall(checks: &[Check]) -> Verdict {
    if checks.iter().any(Check::failed) {
        return Verdict::Failed;
    }
    let undecided = checks.iter().filter_map(|check| match &check.verdict {
        Verdict::Undecided { why } => Some(format!("{}: {why}", check.name)),
        _ => None,
    });
    let why: Vec<String> = undecided.collect();
    match why.is_empty() {
        true => Verdict::Passed,
        false => Verdict::Undecided { why: why.join("; ") },
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Verdict::Passed => out.write_str("passed"),
            Verdict::Failed => out.write_str("failed"),
            Verdict::Undecided { why } => write!(out, "undecided ({why})"),
        }
    }
}

impl fmt::Display for Check {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}: {}, {} checked", self.name, self.verdict, self.checked)?;
        for violation in &self.violations {
            write!(out, "\n  {violation}")?;
        }
        match self.more_violations {
            0 => Ok(()),
            more => write!(out, "\n  and {more} more"),
        }
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.text)?;
        if let Some(watch) = self.watch {
            write!(out, " [watch {watch}]")?;
        }
        if let Some(revision) = self.revision {
            write!(out, " [revision {revision}]")?;
        }
        if !self.operations.is_empty() {
            let operations: Vec<String> = self.operations.iter().map(usize::to_string).collect();
            write!(out, " [operations {}]", operations.join(", "))?;
        }
        Ok(())
    }
}

impl Violation {
    pub fn new(text: impl Into<String>) -> Violation {
        Violation {
            text: text.into(),
            ..Violation::default()
        }
    }

    pub(crate) fn of(mut self, operations: impl IntoIterator<Item = usize>) -> Violation {
        self.operations.extend(operations);
        self
    }

    pub(crate) fn at(mut self, revision: Revision) -> Violation {
        self.revision = Some(revision);
        self
    }

    pub(crate) fn watched(mut self, watch: u64) -> Violation {
        self.watch = Some(watch);
        self
    }
}

/// A check under way.
pub struct Findings {
    name: &'static str,
    checked: u64,
    violations: Vec<Violation>,
    more: u64,
    undecided: Option<String>,
}

impl Findings {
    pub fn new(name: &'static str) -> Findings {
        Findings {
            name,
            checked: 0,
            violations: Vec::new(),
            more: 0,
            undecided: None,
        }
    }

    pub fn count(&mut self, checked: usize) {
        self.checked += checked as u64;
    }

    pub fn add(&mut self, violation: Violation) {
        if self.violations.len() < MAX_VIOLATIONS {
            self.violations.push(violation);
        } else {
            self.more += 1;
        }
    }

    pub fn add_all(&mut self, violations: impl IntoIterator<Item = Violation>) {
        violations.into_iter().for_each(|violation| self.add(violation));
    }

    /// Says that something could not be looked at; the first reason is kept.
    pub fn undecided(&mut self, why: impl Into<String>) {
        self.undecided.get_or_insert_with(|| why.into());
    }

    pub fn done(self) -> Check {
        let verdict = match self.undecided {
            _ if !self.violations.is_empty() => Verdict::Failed,
            Some(why) => Verdict::Undecided { why },
            None => Verdict::Passed,
        };
        Check {
            name: self.name.to_owned(),
            verdict,
            checked: self.checked,
            violations: self.violations,
            more_violations: self.more,
        }
    }
}
