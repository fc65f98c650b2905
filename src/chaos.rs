//! `barque chaos`: hands over to the programs of the test tree that lie beside this one.
//!
//! They are programs of their own because a simulation replaces the clock and the random numbers of its whole process,
//! which must never be linked into one that serves.

use std::{os::unix::process::CommandExt, path::PathBuf, process::ExitCode};

use anyhow::{Context, bail};
use clap::{Args, ValueEnum};

#[derive(Debug, Args)]
pub struct ChaosArgs {
    /// Whether the cluster is simulated from one seed, or one of real processes
    what: What,
    /// Passed on; `--help` lists them
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    arguments: Vec<String>,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum What {
    /// Whole clusters in simulated time, each from one seed
    Sim,
    /// Real processes, with real faults
    Run,
}

pub fn run(args: ChaosArgs) -> anyhow::Result<ExitCode> {
    let (program, first) = match args.what {
        What::Sim => ("barque-sim", None),
        What::Run => ("barque-chaos", Some("run")),
    };
    let path = beside_this(program)?;
    let failed = std::process::Command::new(&path)
        .args(first)
        .args(&args.arguments)
        .exec();
    Err(failed).with_context(|| format!("start {}", path.display()))
}

fn beside_this(program: &str) -> anyhow::Result<PathBuf> {
    let this = std::env::current_exe().context("find this program")?;
    let path = this.with_file_name(program);
    if !path.is_file() {
        bail!("{} is missing: `make build` builds it", path.display());
    }
    Ok(path)
}
