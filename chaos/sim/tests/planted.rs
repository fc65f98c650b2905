//! The proof can fail: planted bugs are found, and the same seeds pass without them.
//!
//! Built with the feature `planted`. These need few seeds and run with every test run; `make chaos` hunts all of them.

use std::process::Command;

/// Of each kind some: apply, recovery, snapshots, watches, reads, leases, members.
const QUICK: &str = "batch-without-overlay,position-outside-batch,stale-after-restart,\
                     snapshot-misses-family,snapshot-metadata-first,\
                     progress-before-events,watch-gap-at-handover,read-without-barrier,\
                     keep-alive-lost,expired-by-deposed-leader,\
                     conflicting-membership-changes,wiped-voter-votes";

#[test]
fn quick_ones_are_found() {
    let reports = concat!(env!("CARGO_TARGET_TMPDIR"), "/planted");
    let hunt = Command::new(env!("CARGO_BIN_EXE_barque-sim"))
        .args(["--plant", QUICK, "--report", reports])
        .output()
        .expect("the simulator starts");
    let said = String::from_utf8_lossy(&hunt.stdout);
    println!("{said}");
    let found = said.lines().filter(|line| line.contains("(seed ")).count();
    assert_eq!(found, QUICK.split(',').count(), "{said}");
    assert!(
        hunt.status.success(),
        "{said}\n{}",
        String::from_utf8_lossy(&hunt.stderr)
    );
}

#[test]
fn there_is_no_other_bug() {
    let hunt = Command::new(env!("CARGO_BIN_EXE_barque-sim"))
        .args(["--plant", "nonesuch", "--seeds", "1"])
        .output()
        .expect("the simulator starts");
    assert_eq!(hunt.status.code(), Some(2));
}
