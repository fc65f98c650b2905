//! The simulator on the program as it is: a seed is a run, and no seed finds anything.

use std::process::{Command, Output};

const SIM: &str = env!("CARGO_BIN_EXE_barque-sim");

/// Seeds that found a bug once, each with what it was; see TRACK_RECORD.md.
const ONCE_FAILED: &str = include_str!("../seeds.txt");

fn sim(arguments: &[&str]) -> Output {
    let reports = concat!(env!("CARGO_TARGET_TMPDIR"), "/reports");
    let output = Command::new(SIM)
        .args(arguments)
        .args(["--report", reports])
        .output();
    output.expect("the simulator starts")
}

fn passes(arguments: &[&str]) -> String {
    let output = sim(arguments);
    let (said, complained) = (
        String::from_utf8_lossy(&output.stdout).into_owned(),
        String::from_utf8_lossy(&output.stderr).into_owned(),
    );
    assert!(output.status.success(), "{arguments:?}\n{said}\n{complained}");
    said
}

/// The last line holds a digest of everything that every client saw, and when.
fn last_line(said: &str) -> &str {
    said.lines().last().expect("a run prints a line")
}

#[test]
fn one_seed_is_one_run() {
    for seed in ["7", "8"] {
        let first = passes(&["--seed", seed, "--duration", "15"]);
        let again = passes(&["--seed", seed, "--duration", "15"]);
        assert!(last_line(&first).contains("\"digest\""), "{first}");
        assert_eq!(last_line(&first), last_line(&again), "the same seed, another run");
        let traced = passes(&["--seed", seed, "--duration", "15", "--trace"]);
        assert_eq!(last_line(&first), last_line(&traced), "a trace changes the run");
    }
    let other = passes(&["--seed", "9", "--duration", "15"]);
    let first = passes(&["--seed", "7", "--duration", "15"]);
    assert_ne!(last_line(&other), last_line(&first));
}

#[test]
fn seeds_that_failed_once_pass() {
    let seeds = ONCE_FAILED.lines().filter(|line| !line.starts_with('#'));
    for line in seeds {
        let seed = line.split_whitespace().next().expect("a line begins with a seed");
        passes(&["--seed", seed]);
    }
}

/// New ones each time; a failure prints the seed, and how to run it again.
#[test]
fn new_seeds_pass() {
    println!("{}", passes(&["--seeds", "40"]));
}
