//! `barque rebuild`: a member takes the state of another one at its next start, and stays who it is.

use std::{path::PathBuf, process::ExitCode};

use anyhow::Context;

#[derive(Debug, clap::Args)]
pub struct Args {
    /// The member's data directory
    #[arg(long, value_name = "DIR")]
    data_dir: PathBuf,
}

pub fn run(args: Args) -> anyhow::Result<ExitCode> {
    barque_replica::ask_for_rebuild(&args.data_dir).context("the member cannot be rebuilt")?;
    println!(
        "noted: at its next start this member puts its state aside (state.damaged-N, beside state) and takes that of \
         another member"
    );
    Ok(ExitCode::SUCCESS)
}
