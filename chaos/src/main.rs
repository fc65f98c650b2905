//! `barque chaos run`: a cluster of real processes, faults inflicted on it, and the checks of what its clients saw.

mod run;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Breaks clusters of real processes and checks what their clients saw.
#[derive(Debug, Parser)]
#[command(name = "barque chaos", version)]
struct Flags {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    Run(run::Flags),
}

/// What it is asked to do cannot be done, as for a flag that there is not.
const BAD_SETTINGS: u8 = 2;

fn main() -> ExitCode {
    let What::Run(flags) = Flags::parse().what;
    let failed = |error: anyhow::Error, code: ExitCode| {
        eprintln!("barque chaos run: {error:#}");
        code
    };
    let settings = match flags.settle() {
        Ok(settings) => settings,
        Err(error) => return failed(error, ExitCode::from(BAD_SETTINGS)),
    };
    match run::run(&settings) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => failed(error, ExitCode::FAILURE),
    }
}
