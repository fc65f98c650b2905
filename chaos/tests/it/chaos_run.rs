//! `barque chaos run` from its command line to its exit code, against ours and against Debian's etcd.

use std::{
    fs,
    process::{Command, ExitStatus, Stdio},
    time::Duration,
};

use barque_chaos::cluster::Process;

use crate::seed;

/// Far more than a run takes, so that one that hangs is told apart from one that is slow.
const PATIENCE: Duration = Duration::from_secs(300);

struct Ran {
    status: ExitStatus,
    printed: String,
    markdown: String,
}

async fn run(arguments: &[&str]) -> Ran {
    let dir = tempfile::tempdir().unwrap();
    let seed = seed().to_string();
    let printed = dir.path().join("printed");
    let out = fs::File::create(&printed).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_barque-chaos"));
    command
        .args(["run", "--seed", &seed, "--report"])
        .arg(dir.path())
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(out.try_clone().unwrap())
        .stderr(out);
    let status = Process::spawn(command).unwrap().exited(PATIENCE).await.unwrap();
    let printed = fs::read_to_string(printed).unwrap();
    println!("{printed}");
    let report = |ending: &str| fs::read_to_string(dir.path().join(format!("{seed}.{ending}"))).unwrap();
    assert!(report("html").contains("</html>"));
    let history: serde_json::Value = serde_json::from_str(&report("json")).unwrap();
    assert_eq!(history["seed"].to_string(), seed);
    Ran {
        status,
        printed,
        markdown: report("md"),
    }
}

impl Ran {
    fn assert_passed(&self, faults: &[&str]) {
        assert!(self.status.success(), "{}", self.status);
        assert!(self.printed.ends_with("verdict: passed\n"));
        for fault in faults {
            assert!(self.markdown.contains(&format!("| {fault} |")), "no {fault}");
            assert!(
                !self.printed.contains(&format!("{fault}: 0 of")),
                "{fault} was not seen"
            );
        }
        assert!(!self.printed.contains("nothing was seen of it"));
    }
}

#[tokio::test]
async fn ours_survives_kills_stops_and_restarts() {
    let faults = [
        "kill-leader",
        "kill-follower",
        "kill-all",
        "stop-leader",
        "stop-follower",
        "rolling-restart",
    ];
    let ran = run(&["--duration", "30s", "--faults", &faults.join(",")]).await;
    ran.assert_passed(&faults);
}

#[tokio::test]
async fn ours_survives_bad_disks_and_a_bad_network() {
    let faults = [
        "power-cut",
        "full-disk",
        "failing-sync",
        "clock-jump",
        "wipe-and-replace",
        "partition",
        "one-way",
        "partial-partition",
        "delay",
        "loss",
    ];
    let ran = run(&["--duration", "1s", "--faults", &faults.join(",")]).await;
    ran.assert_passed(&faults);
}

#[tokio::test]
async fn etcd_passes_the_same_checks() {
    let faults = ["kill-leader", "stop-leader", "kill-all"];
    let ran = run(&[
        "--program",
        "etcd",
        "--duration",
        "15s",
        "--faults",
        &faults.join(","),
    ])
    .await;
    ran.assert_passed(&faults);
}

#[tokio::test]
async fn what_cannot_be_done_is_refused_at_once() {
    let refused: [(&[&str], &str); 4] = [
        (
            &["--program", "etcd", "--faults", "full-disk"],
            "full-disk cannot be done: ",
        ),
        (&["--faults", "meteor"], "\"meteor\" is no fault"),
        (&["--faults", "all,kill-all"], "--faults all stands alone"),
        (&["--traffic", "watch"], "--traffic watch needs kv or lease"),
    ];
    for (arguments, why) in refused {
        let dir = tempfile::tempdir().unwrap();
        let said = dir.path().join("said");
        let mut command = Command::new(env!("CARGO_BIN_EXE_barque-chaos"));
        command
            .arg("run")
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(fs::File::create(&said).unwrap());
        let status = Process::spawn(command).unwrap().exited(PATIENCE).await.unwrap();
        let said = fs::read_to_string(said).unwrap();
        assert_eq!(status.code(), Some(2), "{said}");
        assert!(said.contains(why), "{said}");
    }
}
