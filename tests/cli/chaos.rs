//! `barque chaos` finds the programs beside this one and hands everything over.

use crate::program::{barque, stderr, success};

#[test]
fn a_seed_is_simulated() {
    let said = success(&barque(&["chaos", "sim", "--seed", "3", "--duration", "2"]));
    assert!(said.contains("\"verdict\":\"passed\""), "{said}");
}

#[test]
fn its_exit_codes_and_errors_are_handed_back() {
    let output = barque(&["chaos", "sim", "--no-such-flag"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(stderr(&output).contains("--no-such-flag"), "{}", stderr(&output));
    assert_eq!(barque(&["chaos", "nonesuch"]).status.code(), Some(2));
}
