//! The `barque` binary: it parses the command line, runs one subcommand and turns its outcome into an exit code.
//! What the subcommands do lives beside this file and in the crates.

mod chaos;
mod cli;
mod cluster_dir;
mod down;
mod files;
mod http_metrics;
mod logging;
mod master;
mod open_files;
mod pki;
mod process;
mod proxy;
mod readyz;
mod rebuild;
mod status;
mod tls;
mod up;
mod urls;

use std::process::ExitCode;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let command = match cli::parse() {
        Ok(command) => command,
        Err(exit) => return exit,
    };
    match cli::run(command) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("barque: {}", one_line(&format!("{error:#}")));
            ExitCode::FAILURE
        }
    }
}

/// Errors of libraries may span lines; an operator's log greps better when ours do not.
fn one_line(text: &str) -> String {
    text.lines()
        .map(str::trim)
        .filter(|line| !line.is_empty())
        .collect::<Vec<_>>()
        .join("; ")
}
