//! Each planted bug is hunted until a check finds it; the same seeds must pass without any.

use std::{process::ExitCode, time::Instant};

use barque_planted::{BUGS, Bug};

use crate::{
    Flags,
    sweep::{Line, Sweep},
};

/// Seeds for one bug at most.
const MOST_SEEDS: u64 = 200;

pub fn list() {
    for bug in BUGS {
        let by = bug
            .test
            .map_or(String::new(), |test| format!(" (by a test: {test})"));
        println!("{:<32}{}{by}", bug.name, bug.what);
    }
}

/// Hunts every bug, or those that are named.
pub fn run(flags: &Flags, names: &[&str]) -> ExitCode {
    let is_known = |name: &&&str| BUGS.iter().any(|bug| bug.name == **name);
    if let Some(unknown) = names.iter().find(|name| !is_known(name)) {
        eprintln!("there is no bug {unknown:?}: see --plant list");
        return ExitCode::from(2);
    }
    println!("{:<32}{:>6}{:>8}  found by", "bug", "seeds", "seconds");
    let (hunted, tested): (Vec<&Bug>, Vec<&Bug>) = BUGS
        .iter()
        .filter(|bug| names.is_empty() || names.contains(&bug.name))
        .partition(|bug| bug.test.is_none());
    for (bug, test) in tested.iter().filter_map(|bug| Some((bug, bug.test?))) {
        println!("{:<32}{:>6}{:>8}  by a test: {test}", bug.name, "-", "-");
    }
    let hunts: Vec<Hunt> = hunted.into_iter().map(|bug| hunt(flags, bug)).collect();
    let seeds = hunts.iter().map(|hunt| hunt.seeds).max().unwrap_or(0);
    let all_pass = pass_without(flags, seeds);
    let missed: Vec<&str> = hunts.iter().filter_map(|hunt| hunt.missed).collect();
    if !missed.is_empty() {
        println!("not shown to be found: {}", missed.join(", "));
    }
    match missed.is_empty() && all_pass {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    }
}

struct Hunt {
    /// The bug, if nothing found it.
    missed: Option<&'static str>,
    /// How many were run.
    seeds: u64,
}

fn sweep<'a>(flags: &'a Flags, count: u64, plant: Option<&'a str>) -> Sweep<'a> {
    Sweep {
        flags,
        first: flags.first_seed.unwrap_or(1),
        count,
        // A run that broke before any check could judge it has found nothing.
        until: plant.map(|_| Line::failed as fn(&Line) -> bool),
        plant,
    }
}

fn hunt(flags: &Flags, bug: &'static Bug) -> Hunt {
    let began = Instant::now();
    let lines = sweep(flags, MOST_SEEDS, Some(bug.name)).run(|_| {});
    let seconds = began.elapsed().as_secs();
    let found = lines.iter().find(|line| line.failed());
    let by = found.map_or("nothing".to_owned(), |line| {
        format!("{} (seed {})", line.why(), line.seed())
    });
    println!("{:<32}{:>6}{seconds:>8}  {by}", bug.name, lines.len());
    Hunt {
        missed: found.is_none().then_some(bug.name),
        seeds: lines.len() as u64,
    }
}

/// All hunts begin with the same seed, so that these are the seeds of all of them.
fn pass_without(flags: &Flags, seeds: u64) -> bool {
    let lines = sweep(flags, seeds, None).run(|_| {});
    let passed = lines.iter().filter(|line| line.passed()).count();
    println!("without a bug: {passed} of these {seeds} seeds pass");
    for line in lines.iter().filter(|line| !line.passed()) {
        println!("{}", line.encode());
    }
    passed == lines.len()
}
