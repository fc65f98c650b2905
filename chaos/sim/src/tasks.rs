//! Whether members are left with tasks that nobody waits for: [`Tasks`].

use barque_checks::verdict::{Check, Verdict, Violation};

/// How many tasks members have while nobody calls: as many at the end as at the beginning, or some were left over.
pub struct Tasks {
    pub before: Vec<usize>,
    pub after: Vec<usize>,
}

impl Tasks {
    /// For each other member: connections to it that were not needed at the beginning, with a few tasks each.
    const SLACK: usize = 8;

    pub fn check(&self) -> Check {
        let others = self.before.len().saturating_sub(1);
        let most = self.before.iter().max().copied().unwrap_or(0) + Tasks::SLACK * others;
        let left_over = self.after.iter().enumerate().filter(|(_, after)| **after > most);
        let violations: Vec<Violation> = left_over
            .map(|(member, after)| Violation {
                text: format!(
                    "member {member} has {after} tasks; at the beginning there were {:?}",
                    self.before
                ),
                ..Violation::default()
            })
            .collect();
        Check {
            name: "tasks back to the baseline".to_owned(),
            verdict: match violations.is_empty() {
                true => Verdict::Passed,
                false => Verdict::Failed,
            },
            checked: self.after.len() as u64,
            violations,
            more_violations: 0,
        }
    }
}
