//! `barque down`: stops what `barque up` started, by its pid files; `--purge` forgets the data too.

use std::{path::PathBuf, process::ExitCode, time::Duration};

use anyhow::Context;

use crate::{cluster_dir::ClusterDir, process::Running};

/// Longer than a member takes to hand its leadership over and drain.
pub const GRACE: Duration = Duration::from_secs(20);

#[derive(Debug, clap::Args)]
pub struct Args {
    /// The cluster's directory
    #[arg(long, value_name = "DIR", default_value = crate::up::DEFAULT_DIR)]
    dir: PathBuf,
    /// Remove the directory with all its data afterwards
    #[arg(long)]
    purge: bool,
}

pub fn run(args: Args) -> anyhow::Result<ExitCode> {
    let dir = ClusterDir::open(&args.dir)?;
    let cluster = dir.require()?;
    let names: Vec<&str> = cluster
        .masters
        .iter()
        .map(|master| master.name.as_str())
        .collect();
    let stopped = stop_all(&dir, &names)?;
    println!(
        "Stopped {stopped} {}.",
        if stopped == 1 { "process" } else { "processes" }
    );
    if args.purge {
        std::fs::remove_dir_all(dir.path()).with_context(|| format!("remove {}", dir.path().display()))?;
        println!("Removed {}.", dir.path().display());
    }
    Ok(ExitCode::SUCCESS)
}

/// A `barque up` in the foreground stops its own children; what runs besides is stopped here, all masters at
/// once, so that none waits for a leader that is going too.
fn stop_all(dir: &ClusterDir, masters: &[&str]) -> anyhow::Result<usize> {
    let mut running: Vec<Running> = Vec::new();
    running.extend(dir.running_proxy()?);
    for name in masters {
        running.extend(dir.running_master(name)?);
    }
    let mut stopped = running.len();
    if let Some(up) = dir.running_up()? {
        up.stop(GRACE * 2)?;
        stopped += 1;
    }
    for process in &running {
        process.signal(rustix::process::Signal::TERM)?;
    }
    for process in &running {
        if !process.await_or_kill(GRACE)? {
            eprintln!(
                "barque: process {} did not stop within {GRACE:?} and was killed",
                process.pid
            );
        }
    }
    Ok(stopped)
}
