//! What both forms of the report say: [`Summary`].

use crate::{
    availability::{Availability, availability},
    history::History,
    verdict::{Check, Verdict, Violation, overall},
};

pub(super) struct Summary<'c> {
    pub checks: &'c [Check],
    pub verdict: Verdict,
    pub availability: Availability,
    /// A violation that names operations, and the check that found it.
    pub shown: Option<(&'c Check, &'c Violation)>,
}

impl<'c> Summary<'c> {
    pub fn new(history: &History, checks: &'c [Check]) -> Summary<'c> {
        let violations = checks
            .iter()
            .flat_map(|check| check.violations.iter().map(move |found| (check, found)));
        let fits = |found: &Violation| {
            let known = |index: &usize| *index < history.operations.len();
            !found.operations.is_empty() && found.operations.iter().all(known)
        };
        Summary {
            checks,
            verdict: overall(checks),
            availability: availability(history),
            shown: violations.clone().find(|(_, found)| fits(found)),
        }
    }

    pub fn verdict_word(&self) -> &'static str {
        match self.verdict {
            Verdict::Passed => "passed",
            Verdict::Failed => "failed",
            Verdict::Undecided { .. } => "undecided",
        }
    }

    /// Name and value of what the run comes down to.
    pub fn facts(&self, history: &History) -> Vec<(&'static str, String)> {
        let (first, last) = history.bounds();
        let found = &self.availability;
        let observed = history
            .faults
            .iter()
            .filter(|fault| fault.observed.is_some())
            .count();
        let worst = found.worst_gap.map(|(from, to)| {
            format!(
                "{}, from {} to {}",
                seconds(to - from),
                seconds(from - first),
                seconds(to - first)
            )
        });
        vec![
            ("Seed", history.seed.to_string()),
            ("Members", history.members.len().to_string()),
            ("Duration", seconds(last - first)),
            ("Operations", history.operations.len().to_string()),
            (
                "Faults observed",
                format!("{observed} of {}", history.faults.len()),
            ),
            ("Longest without an acknowledged write", or_none(worst)),
            (
                "Median between acknowledged writes",
                or_none(found.median_gap.map(seconds)),
            ),
            (
                "From the last fault to the first success",
                or_none(found.recovery.map(seconds)),
            ),
        ]
    }
}

fn or_none(text: Option<String>) -> String {
    text.unwrap_or_else(|| "–".to_owned())
}

pub(super) fn seconds(microseconds: u64) -> String {
    format!("{}.{:03} s", microseconds / 1_000_000, microseconds / 1000 % 1000)
}
