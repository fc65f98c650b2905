//! The report as one HTML page.

use super::{
    conflict::conflict,
    escape::html,
    summary::{Summary, seconds},
    timeline::timeline,
    told::{self, Told},
};
use crate::{
    history::History,
    verdict::{Check, Violation},
};

pub(super) fn page(history: &History, summary: &Summary<'_>, command: &str) -> String {
    let word = summary.verdict_word();
    let mut page = String::from("<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n");
    page.push_str("<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n");
    page.push_str(&format!("<title>Run {}: {word}</title>\n", history.seed));
    page.push_str(&format!(
        "<style>\n{}</style>\n</head>\n<body>\n",
        include_str!("style.css")
    ));
    page.push_str(&format!(
        "<h1>Run {}: <span class=\"{word}\">{word}</span></h1>\n",
        history.seed
    ));
    page.push_str(&format!("<p>{}</p>\n", html(&history.description)));
    page.push_str(&format!(
        "<p>To run it again:</p>\n<pre>{}</pre>\n",
        html(command)
    ));
    page.push_str(&facts(history, summary));
    page.push_str("<h2>Timeline</h2>\n");
    page.push_str(&timeline(history));
    page.push_str("<h2>Checks</h2>\n");
    page.push_str(&checks(summary.checks));
    for (check, violation) in &summary.contradictions {
        page.push_str(&contradiction(history, check, violation));
    }
    for (check, violation, told) in &summary.told {
        page.push_str(&told_beside_committed(check, violation, told));
    }
    page.push_str(&violations(summary.checks));
    page.push_str("<h2>Operations by outcome</h2>\n");
    page.push_str(&outcomes(summary));
    page.push_str("<h2>Faults</h2>\n");
    page.push_str(&faults(history));
    page.push_str("</body>\n</html>\n");
    page
}

/// Cells whose heading begins with `#` hold numbers.
fn table(head: &[&str], rows: &[Vec<String>]) -> String {
    let class = |at: usize| {
        if head[at].starts_with('#') {
            " class=\"number\""
        } else {
            ""
        }
    };
    let mut table = String::from("<table>\n<tr>");
    for (at, name) in head.iter().enumerate() {
        table.push_str(&format!(
            "<th{}>{}</th>",
            class(at),
            html(name.trim_start_matches('#'))
        ));
    }
    table.push_str("</tr>\n");
    for row in rows {
        table.push_str("<tr>");
        for (at, cell) in row.iter().enumerate() {
            table.push_str(&format!("<td{}>{}</td>", class(at), html(cell)));
        }
        table.push_str("</tr>\n");
    }
    table.push_str("</table>\n");
    table
}

fn facts(history: &History, summary: &Summary<'_>) -> String {
    let rows = summary
        .facts(history)
        .into_iter()
        .map(|(name, value)| vec![name.to_owned(), value]);
    table(&["", ""], &rows.collect::<Vec<_>>())
}

fn checks(checks: &[Check]) -> String {
    let rows = checks.iter().map(|check| {
        let violations = check.violations.len() as u64 + check.more_violations;
        vec![
            check.name.clone(),
            check.verdict.to_string(),
            check.checked.to_string(),
            violations.to_string(),
        ]
    });
    table(
        &["check", "verdict", "#checked", "#violations"],
        &rows.collect::<Vec<_>>(),
    )
}

fn violations(checks: &[Check]) -> String {
    let mut found = String::new();
    for check in checks.iter().filter(|check| check.failed()) {
        found.push_str(&format!("<h2>Violations: {}</h2>\n<ul>\n", html(&check.name)));
        for violation in &check.violations {
            found.push_str(&format!("<li>{}</li>\n", html(violation)));
        }
        if check.more_violations > 0 {
            found.push_str(&format!("<li>and {} more</li>\n", check.more_violations));
        }
        found.push_str("</ul>\n");
    }
    found
}

fn contradiction(history: &History, check: &Check, violation: &Violation) -> String {
    let rows = violation.operations.iter().map(|index| {
        let operation = &history.operations[*index];
        vec![
            index.to_string(),
            operation.client.to_string(),
            operation.member.to_string(),
            operation.call.to_string(),
            operation.ret.map_or("never".to_owned(), |ret| ret.to_string()),
            operation.request.to_string(),
            operation.outcome.to_string(),
        ]
    });
    let head = [
        "#operation",
        "#client",
        "#member",
        "#called (µs)",
        "#returned (µs)",
        "request",
        "outcome",
    ];
    format!(
        "<h2>What contradicts itself ({})</h2>\n<p>{}</p>\n{}<p>Moments are in order, not to scale; dashed: the \
         outcome is not known.</p>\n{}",
        html(&check.name),
        html(&violation.text),
        conflict(history, &violation.operations),
        table(&head, &rows.collect::<Vec<_>>())
    )
}

fn told_beside_committed(check: &Check, violation: &Violation, told: &Told) -> String {
    format!(
        "<h2>What was told and what was committed ({})</h2>\n<p>{}</p>\n<p>{}</p>\n{}",
        html(&check.name),
        html(violation),
        html(&told.watch),
        table(&told::HEAD, &told.rows)
    )
}

fn outcomes(summary: &Summary<'_>) -> String {
    let rows = summary.availability.outcomes.iter().map(|(kind, of_kind)| {
        vec![
            kind.clone(),
            of_kind.done.to_string(),
            of_kind.not_applied.to_string(),
            of_kind.unknown.to_string(),
            of_kind.all().to_string(),
        ]
    });
    table(
        &["operation", "#done", "#not applied", "#unknown", "#all"],
        &rows.collect::<Vec<_>>(),
    )
}

fn faults(history: &History) -> String {
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
    table(
        &["fault", "members", "#from", "#until", "observed"],
        &rows.collect::<Vec<_>>(),
    )
}
