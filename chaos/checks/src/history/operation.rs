//! One call of one client and what became of it: [`Operation`].

use std::fmt;

use serde::{Deserialize, Serialize};

use super::{Request, Response};

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Operation {
    pub client: u32,
    pub member: u32,
    /// Which run of the member's process was asked, where that is known: revisions that members answer alone go back
    /// in none of them.
    #[serde(default)]
    pub life: u32,
    pub call: u64,
    /// `None`: never answered.
    pub ret: Option<u64>,
    pub request: Request,
    pub outcome: Outcome,
}

/// What the client knows about the effect.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Outcome {
    Done(Response),
    /// Definitely without effect: the error said so.
    NotApplied(String),
    /// It may have taken effect, or may still, at any moment after the call: a time limit, a lost connection.
    Unknown(String),
}

impl Operation {
    pub fn response(&self) -> Option<&Response> {
        match &self.outcome {
            Outcome::Done(response) => Some(response),
            _ => None,
        }
    }

    /// The response and when it came.
    pub fn answered(&self) -> Option<(&Response, u64)> {
        self.response().zip(self.ret)
    }

    /// Acknowledged with a new revision.
    pub fn changed(&self) -> bool {
        self.response().is_some_and(|response| response.answer.changed())
    }

    pub fn is_unknown(&self) -> bool {
        matches!(self.outcome, Outcome::Unknown(_))
    }

    pub fn is_not_applied(&self) -> bool {
        matches!(self.outcome, Outcome::NotApplied(_))
    }
}

impl Outcome {
    /// Whether it is an answer by the rules of the API, as opposed to a sign that the service was not there.
    pub fn is_answer(&self) -> bool {
        const RULES: [&str; 6] = [
            "lease",
            "compacted",
            "future revision",
            "key not found",
            "txn request",
            "database space exceeded",
        ];
        match self {
            Outcome::Done(_) => true,
            Outcome::NotApplied(error) => RULES.iter().any(|rule| error.contains(rule)),
            Outcome::Unknown(_) => false,
        }
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Outcome::Done(response) => write!(out, "{} @{}", response.answer, response.revision),
            Outcome::NotApplied(error) => write!(out, "not applied: {error}"),
            Outcome::Unknown(error) => write!(out, "unknown: {error}"),
        }
    }
}

impl fmt::Display for Operation {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "client {} at member {}: ", self.client, self.member)?;
        write!(out, "{} → {}", self.request, self.outcome)
    }
}
