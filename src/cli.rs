//! The command line: [`Command`] names the subcommands; usage errors are one line and exit code 2.

use std::process::ExitCode;

use clap::{Parser, Subcommand, error::ErrorKind};

use crate::{chaos, down, master, pki, proxy, rebuild, status, up};

/// An etcd replacement and a Kubernetes control plane in one program.
#[derive(Debug, Parser)]
#[command(
    name = "barque",
    version,
    propagate_version = true,
    disable_help_subcommand = true
)]
#[command(after_help = "To try it: `barque up`, then follow what it prints.")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run one master: a replica of the keyspace, served as the etcd v3 API and the Kubernetes API
    Master(Box<master::Flags>),
    /// Bring up a cluster on this machine, with certificates, a kubeconfig and an etcd.env
    Up(up::Args),
    /// Stop a cluster that `barque up` started
    Down(down::Args),
    /// Balance TCP connections over the masters that are ready (TLS passes through)
    Proxy(proxy::Args),
    /// Make certificate authorities and certificates
    Pki(pki::Args),
    /// Show the members: leader, term, revision, lag, sizes
    Status(status::Args),
    /// Have a member take the state of another one when it starts next: its own is damaged or wrong
    Rebuild(rebuild::Args),
    /// Break clusters on purpose and check what must hold
    Chaos(chaos::ChaosArgs),
    /// Print the version
    Version,
}

/// The parsed command, or how to exit: help and version go to stdout, a usage error is one line on stderr.
pub fn parse() -> Result<Command, ExitCode> {
    match Cli::try_parse() {
        Ok(cli) => Ok(cli.command),
        Err(error) if error.exit_code() == 0 => {
            // A closed stdout (`barque --help | head`) is no failure of ours.
            let _ = error.print();
            Err(ExitCode::SUCCESS)
        }
        Err(error) => {
            eprintln!("barque: {}", usage_line(&error));
            Err(ExitCode::from(2))
        }
    }
}

pub fn run(command: Command) -> anyhow::Result<ExitCode> {
    match command {
        Command::Master(flags) => master::run(*flags),
        Command::Up(args) => up::run(args),
        Command::Down(args) => down::run(args),
        Command::Proxy(args) => proxy::run(args),
        Command::Pki(args) => pki::run(args),
        Command::Status(args) => status::run(args),
        Command::Rebuild(args) => rebuild::run(args),
        Command::Chaos(args) => chaos::run(args),
        Command::Version => {
            println!("barque {}", env!("CARGO_PKG_VERSION"));
            println!("etcd API {}", master::ETCD_VERSION);
            Ok(ExitCode::SUCCESS)
        }
    }
}

/// The first paragraph of clap's message, which has the whole fact; the rest of it is advice.
fn usage_line(error: &clap::Error) -> String {
    if error.kind() == ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand {
        return "a subcommand is missing; see `barque --help`".to_owned();
    }
    let text = error.to_string();
    let fact: Vec<&str> = text
        .lines()
        .map(str::trim)
        .take_while(|line| !line.is_empty())
        .collect();
    format!(
        "{}; see `barque --help`",
        fact.join(" ").trim_start_matches("error: ")
    )
}
