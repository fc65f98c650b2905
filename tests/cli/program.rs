//! Running the built program and other people's, each under a time limit, so that a hang is a failure.

use std::{
    path::Path,
    process::{Command, Output, Stdio},
};

const LIMIT: &str = "180";

/// `barque` with these arguments, and nothing of the tests' own environment that it would read.
pub fn barque(args: &[&str]) -> Output {
    run(Command::new("timeout")
        .arg(LIMIT)
        .arg(env!("CARGO_BIN_EXE_barque"))
        .args(args))
}

/// A line of shell, as a user would type it.
pub fn shell(line: &str) -> Output {
    run(Command::new("timeout").arg(LIMIT).args(["bash", "-c", line]))
}

pub fn run(command: &mut Command) -> Output {
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("ETCD")) {
        command.env_remove(name);
    }
    command.env_remove("KUBECONFIG").stdin(Stdio::null());
    command.output().expect("a program that can be started")
}

/// What it printed; a failure fails the test with all that it said.
#[track_caller]
pub fn success(output: &Output) -> String {
    assert!(
        output.status.success(),
        "{}\n{}\n{}",
        output.status,
        stdout(output),
        stderr(output)
    );
    stdout(output)
}

/// The exit code and the one line on stderr.
#[track_caller]
pub fn refusal(output: &Output) -> (i32, String) {
    let text = stderr(output);
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines.len(), 1, "one line was expected:\n{text}");
    assert!(lines[0].starts_with("barque: "), "{text}");
    assert_eq!(stdout(output), "");
    (output.status.code().expect("an exit code"), lines[0].to_owned())
}

pub fn stdout(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

pub fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

pub fn text(path: &Path) -> &str {
    path.to_str().expect("a path in UTF-8")
}
