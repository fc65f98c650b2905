//! What a run amounts to: its checks, its report, and what is printed of it.

use std::{collections::BTreeMap, fs};

use anyhow::Context;
use barque_checks::{
    Check, Findings, Verdict, Violation,
    availability::availability,
    check_all,
    history::{FaultRecord, History, WatchKind},
    overall, report,
};

use super::{conduct::Ran, flags::Settings, known, resources};

/// Whether everything passed.
pub fn write_and_tell(settings: &Settings, mut ran: Ran) -> anyhow::Result<bool> {
    let mut checks = check_all(&ran.history);
    let known = known::set_aside(settings.program, &ran.history, &mut checks);
    for defect in &known {
        ran.history
            .description
            .push_str(&format!("; not counted: {defect}"));
    }
    checks.push(resources::check(&ran.before, &ran.after));
    checks.push(unbroken(&ran.broken));
    write(settings, &ran.history, &checks)?;
    tell(&ran, &checks);
    for defect in &known {
        println!("not counted, {defect}");
    }
    let stem = settings.report.join(settings.seed.to_string());
    println!("report: {0}.html, {0}.md, {0}.json", stem.display());
    let verdict = overall(&checks);
    println!("verdict: {verdict}");
    Ok(verdict == Verdict::Passed)
}

/// The run went to its end.
fn unbroken(broken: &[String]) -> Check {
    let mut findings = Findings::new("the cluster recovers from each fault");
    findings.count(1);
    findings.add_all(broken.iter().map(Violation::new));
    findings.done()
}

fn write(settings: &Settings, history: &History, checks: &[Check]) -> anyhow::Result<()> {
    let dir = &settings.report;
    fs::create_dir_all(dir).with_context(|| dir.display().to_string())?;
    let save = |ending: &str, content: Vec<u8>| {
        let path = dir.join(format!("{}.{ending}", settings.seed));
        fs::write(&path, content).with_context(|| path.display().to_string())
    };
    save("json", serde_json::to_vec(history)?)?;
    save(
        "html",
        report::html(history, checks, &settings.command).into_bytes(),
    )?;
    save(
        "md",
        report::markdown(history, checks, &settings.command).into_bytes(),
    )
}

fn tell(ran: &Ran, checks: &[Check]) {
    tell_faults(&ran.history);
    tell_service(&ran.history);
    for (index, before) in ran.before.iter().enumerate() {
        let after = ran.after.get(index);
        let after = after.map_or("not there".to_owned(), ToString::to_string);
        println!("member {}: before {before}; after {after}", index + 1);
    }
    for words in &ran.logs {
        println!("--- last words of {words}");
    }
    for check in checks {
        println!("{check}");
    }
}

fn tell_faults(history: &History) {
    let mut kinds: BTreeMap<&str, Vec<&FaultRecord>> = BTreeMap::new();
    for fault in &history.faults {
        kinds.entry(&fault.kind).or_default().push(fault);
    }
    for (kind, faults) in kinds {
        let seen = faults.iter().filter(|fault| fault.observed.is_some()).count();
        println!("{kind}: {seen} of {} observed", faults.len());
    }
}

fn tell_service(history: &History) {
    let found = availability(history);
    for (kind, outcomes) in &found.outcomes {
        println!(
            "{kind}: {} done, {} not applied, {} unknown",
            outcomes.done, outcomes.not_applied, outcomes.unknown
        );
    }
    let responses = history.watches.iter().flat_map(|watch| &watch.responses);
    let events: usize = responses.map(|response| count(&response.kind)).sum();
    let committed = history
        .committed
        .as_ref()
        .map_or(0, |committed| committed.revisions.len());
    println!(
        "{events} events in {} watches, {committed} revisions committed",
        history.watches.len()
    );
    println!(
        "between acknowledged writes: median {}, worst {}",
        milliseconds(found.median_gap),
        milliseconds(found.worst_gap.map(|(from, to)| to - from))
    );
    println!(
        "from the last fault to the first success: {}",
        milliseconds(found.recovery)
    );
}

fn count(kind: &WatchKind) -> usize {
    match kind {
        WatchKind::Events { events, .. } => events.len(),
        _ => 0,
    }
}

fn milliseconds(micros: Option<u64>) -> String {
    micros.map_or("none".to_owned(), |micros| {
        format!("{}.{:01} ms", micros / 1000, micros % 1000 / 100)
    })
}
