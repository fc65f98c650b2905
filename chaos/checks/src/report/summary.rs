//! What both forms of the report say: [`Summary`].

use super::told::{Told, told};
use crate::{
    availability::{Availability, availability},
    history::History,
    verdict::{Check, Verdict, Violation, overall},
};

pub(super) struct Summary<'c> {
    pub checks: &'c [Check],
    pub verdict: Verdict,
    pub availability: Availability,
    /// Of each check, the first violation that names operations.
    pub contradictions: Vec<(&'c Check, &'c Violation)>,
    /// Of each check, the first violation that names a watch.
    pub told: Vec<(&'c Check, &'c Violation, Told)>,
}

impl<'c> Summary<'c> {
    pub fn new(history: &History, checks: &'c [Check]) -> Summary<'c> {
        let fits = |found: &Violation| {
            let known = |index: &usize| *index < history.operations.len();
            !found.operations.is_empty() && found.operations.iter().all(known)
        };
        Summary {
            checks,
            verdict: overall(checks),
            availability: availability(history),
            contradictions: first_of_each(checks, |found| fits(found).then_some(()))
                .map(|(check, found, ())| (check, found))
                .collect(),
            told: first_of_each(checks, |found| told(history, found)).collect(),
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

fn first_of_each<'c, T>(
    checks: &'c [Check],
    show: impl Fn(&Violation) -> Option<T>,
) -> impl Iterator<Item = (&'c Check, &'c Violation, T)> {
    checks.iter().filter_map(move |check| {
        let shown = |found: &'c Violation| Some((check, found, show(found)?));
        check.violations.iter().find_map(shown)
    })
}

fn or_none(text: Option<String>) -> String {
    text.unwrap_or_else(|| "–".to_owned())
}

pub(super) fn seconds(microseconds: u64) -> String {
    format!("{}.{:03} s", microseconds / 1_000_000, microseconds / 1000 % 1000)
}
