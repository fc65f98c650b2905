//! The report as Markdown.

use super::{
    escape::markdown,
    summary::{Summary, seconds},
    told::{self, Told},
};
use crate::{
    history::History,
    verdict::{Check, Violation},
};

pub(super) fn text(history: &History, summary: &Summary<'_>, command: &str) -> String {
    let mut text = format!("# Run {}: {}\n\n", history.seed, summary.verdict_word());
    text.push_str(&format!(
        "{}\n\nTo run it again:\n\n",
        markdown(&history.description)
    ));
    for line in command.lines() {
        text.push_str(&format!("    {line}\n"));
    }
    text.push('\n');
    for (name, value) in summary.facts(history) {
        text.push_str(&format!("- {name}: {}\n", markdown(value)));
    }
    text.push_str("\n## Checks\n\n");
    text.push_str(&table(
        &["check", "verdict", "checked", "violations"],
        &checks(summary),
    ));
    violations(summary, &mut text);
    for (check, violation) in &summary.contradictions {
        contradiction(history, check, violation, &mut text);
    }
    for (check, violation, told) in &summary.told {
        told_beside_committed(check, violation, told, &mut text);
    }
    text.push_str("\n## Operations by outcome\n\n");
    text.push_str(&table(
        &["operation", "done", "not applied", "unknown"],
        &outcomes(summary),
    ));
    text.push_str("\n## Faults\n\n");
    text.push_str(&table(
        &["fault", "members", "from", "until", "observed"],
        &faults(history),
    ));
    text
}

fn table(head: &[&str], rows: &[Vec<String>]) -> String {
    let mut table = format!("| {} |\n|{}\n", head.join(" | "), "---|".repeat(head.len()));
    for row in rows {
        let cells: Vec<String> = row.iter().map(markdown).collect();
        table.push_str(&format!("| {} |\n", cells.join(" | ")));
    }
    table
}

fn checks(summary: &Summary<'_>) -> Vec<Vec<String>> {
    let row = |check: &Check| {
        let violations = check.violations.len() as u64 + check.more_violations;
        vec![
            check.name.clone(),
            check.verdict.to_string(),
            check.checked.to_string(),
            violations.to_string(),
        ]
    };
    summary.checks.iter().map(row).collect()
}

fn violations(summary: &Summary<'_>, text: &mut String) {
    for check in summary.checks.iter().filter(|check| check.failed()) {
        text.push_str(&format!("\n## Violations: {}\n\n", markdown(&check.name)));
        for violation in &check.violations {
            text.push_str(&format!("- {}\n", markdown(violation)));
        }
        if check.more_violations > 0 {
            text.push_str(&format!("- and {} more\n", check.more_violations));
        }
    }
}

fn contradiction(history: &History, check: &Check, violation: &Violation, text: &mut String) {
    text.push_str(&format!(
        "\n## What contradicts itself ({})\n\n",
        markdown(&check.name)
    ));
    let rows = violation.operations.iter().map(|index| {
        let operation = &history.operations[*index];
        vec![
            index.to_string(),
            operation.call.to_string(),
            operation.ret.map_or("never".to_owned(), |ret| ret.to_string()),
            operation.to_string(),
        ]
    });
    let head = ["operation", "called (µs)", "returned (µs)", "what"];
    text.push_str(&table(&head, &rows.collect::<Vec<_>>()));
}

fn told_beside_committed(check: &Check, violation: &Violation, told: &Told, text: &mut String) {
    text.push_str(&format!(
        "\n## What was told and what was committed ({})\n\n{}\n\n{}\n\n",
        markdown(&check.name),
        markdown(violation),
        markdown(&told.watch)
    ));
    let head = told::HEAD.map(|name| name.trim_start_matches('#'));
    text.push_str(&table(&head, &told.rows));
}

fn outcomes(summary: &Summary<'_>) -> Vec<Vec<String>> {
    let rows = summary.availability.outcomes.iter().map(|(kind, of_kind)| {
        vec![
            kind.clone(),
            of_kind.done.to_string(),
            of_kind.not_applied.to_string(),
            of_kind.unknown.to_string(),
        ]
    });
    rows.collect()
}

fn faults(history: &History) -> Vec<Vec<String>> {
    let (first, _) = history.bounds();
    let rows = history.faults.iter().map(|fault| {
        let members: Vec<String> = fault.members.iter().map(u32::to_string).collect();
        vec![
            fault.kind.clone(),
            members.join(", "),
            seconds(fault.from.saturating_sub(first)),
            seconds(fault.until.saturating_sub(first)),
            fault
                .observed
                .clone()
                .unwrap_or_else(|| "not observed".to_owned()),
        ]
    });
    rows.collect()
}
