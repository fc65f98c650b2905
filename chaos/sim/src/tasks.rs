//! Whether members are left with tasks that nobody waits for: [`Tasks`].

use barque_checks::{Check, Findings, Violation};

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
        let mut findings = Findings::new("tasks back to the baseline");
        findings.count(self.after.len());
        for (member, after) in self.after.iter().enumerate() {
            if *after > most {
                findings.add(Violation::new(format!(
                    "member {member} has {after} tasks; at the beginning there were {:?}",
                    self.before
                )));
            }
        }
        findings.done()
    }
}
