//! The proof can fail: every planted bug is found, and the same seeds pass without it.
//!
//! Built with the feature `planted`.

use std::process::Command;

const SIM: &str = env!("CARGO_BIN_EXE_barque-sim");

/// The lines that it prints.
fn plant(what: &str) -> Vec<String> {
    let reports = concat!(env!("CARGO_TARGET_TMPDIR"), "/planted");
    let output = Command::new(SIM)
        .args(["--plant", what, "--report", reports])
        .output()
        .expect("the simulator starts");
    let said = String::from_utf8_lossy(&output.stdout);
    println!("{said}");
    let complained = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}\n{complained}");
    said.lines().map(str::to_owned).collect()
}

#[test]
fn every_bug_is_found() {
    let bugs = plant("list");
    let found = plant("all");
    assert!(bugs.len() >= 15, "{bugs:?}");
    let found = found.iter().filter(|line| line.contains("(seed "));
    // Of some it is a test that shows them, which this list names.
    let by_a_test = bugs.iter().filter(|line| line.contains("by a test"));
    assert_eq!(found.count(), bugs.len() - by_a_test.count());
}

#[test]
fn there_is_no_other_bug() {
    let hunt = Command::new(SIM)
        .args(["--plant", "nonesuch", "--seeds", "1"])
        .output()
        .expect("the simulator starts");
    assert_eq!(hunt.status.code(), Some(2));
}
