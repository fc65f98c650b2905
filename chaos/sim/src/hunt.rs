//! Each planted bug is hunted until a seed finds it; the same seed must pass without it.

use std::{process::ExitCode, time::Instant};

use barque_planted::{BUGS, Bug};

use crate::{
    Flags,
    sweep::{Sweep, child},
};

/// Seeds for one bug at most.
const MOST_SEEDS: u64 = 200;
/// The table shows so much of what a check said.
const SHOWN: usize = 60;

pub fn list() {
    for bug in BUGS {
        println!("{:<26}{}", bug.name, bug.what);
    }
}

/// Hunts every bug, or those that are named.
pub fn run(flags: &Flags, names: &[&str]) -> ExitCode {
    let is_known = |name: &&&str| BUGS.iter().any(|bug| bug.name == **name);
    if let Some(unknown) = names.iter().find(|name| !is_known(name)) {
        eprintln!("there is no bug {unknown:?}: see --plant list");
        return ExitCode::from(2);
    }
    println!("{:<26}{:>6}{:>8}  found by", "bug", "seeds", "seconds");
    let hunted = BUGS
        .iter()
        .filter(|bug| names.is_empty() || names.contains(&bug.name));
    let missed: Vec<&str> = hunted
        .filter(|bug| !hunt(flags, bug))
        .map(|bug| bug.name)
        .collect();
    if missed.is_empty() {
        return ExitCode::SUCCESS;
    }
    println!("not shown to be found: {}", missed.join(", "));
    ExitCode::FAILURE
}

fn hunt(flags: &Flags, bug: &Bug) -> bool {
    let began = Instant::now();
    let sweep = Sweep {
        flags,
        first: flags.first_seed.unwrap_or(1),
        count: MOST_SEEDS,
        until_found: true,
        plant: Some(bug.name),
    };
    let lines = sweep.run(|_| {});
    let seconds = began.elapsed().as_secs();
    let Some(found) = lines.iter().find(|line| line.has_found()) else {
        println!("{:<26}{:>6}{seconds:>8}  nothing", bug.name, lines.len());
        return false;
    };
    let by: String = found.failed().chars().take(SHOWN).collect();
    let healthy = child(flags, found.seed(), None);
    let alone = match healthy.passed() {
        true => String::new(),
        false => format!("; without it too: {}", healthy.encode()),
    };
    println!(
        "{:<26}{:>6}{seconds:>8}  {by} (seed {}{alone})",
        bug.name,
        lines.len(),
        found.seed()
    );
    healthy.passed()
}
