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

fn main() -> ExitCode {
    let What::Run(flags) = Flags::parse().what;
    match run::run(&flags) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("barque chaos run: {error:#}");
            ExitCode::FAILURE
        }
    }
}
