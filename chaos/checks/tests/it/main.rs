//! The checks against histories that are right, and against the same with one thing wrong.

mod brute_force;
mod correct;
mod dice;
mod handmade;
mod lease_faults;
mod master_faults;
mod object_faults;
mod operation_faults;
mod read_faults;
mod report;
mod speed;
mod store;
mod traffic;
mod watch_faults;
mod watching;

use barque_checks::{Check, History, check_all};

/// What the named check says.
fn check(history: &History, name: &str) -> Check {
    let checks = check_all(history);
    let found = checks.into_iter().find(|check| check.name == name);
    found.unwrap_or_else(|| panic!("no check is called {name}"))
}

/// The named check finds a violation that says this.
fn assert_caught(history: &History, name: &str, says: &str) {
    let check = check(history, name);
    assert!(check.failed(), "not caught: {check}");
    let said = check
        .violations
        .iter()
        .any(|violation| violation.text.contains(says));
    assert!(said, "caught for another reason than {says:?}: {check}");
}

/// All checks pass, and were able to look at everything.
fn assert_right(history: &History) {
    for check in check_all(history) {
        assert!(check.passed(), "{check}");
    }
}
