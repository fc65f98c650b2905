//! `barque chaos sim`: whole clusters in simulated time, each from one seed.

mod broken_promise;
mod contents;
mod faults;
mod files;
mod host;
#[cfg(feature = "planted")]
mod hunt;
mod interpose;
mod kind;
mod lasting;
mod left_behind;
mod lives;
mod member;
mod network;
mod operator;
mod panics;
mod process;
mod run;
mod sweep;
mod tasks;
mod trouble;
mod world;

use std::{path::PathBuf, process::ExitCode, time::Duration};

use barque_checks::verdict::Verdict;
use clap::Parser;
use kind::{ALL, Kind};
use tracing_subscriber::fmt::{format::Writer, time::FormatTime};

/// Runs the real store, log, Raft, watches and leases with network, disks, clock and chance from one seed.
#[derive(Debug, Parser)]
#[command(name = "barque chaos sim", version)]
struct Flags {
    /// How many seeds to run.
    #[arg(long, default_value_t = 20, conflicts_with = "seed", value_parser = clap::value_parser!(u64).range(1..))]
    seeds: u64,
    /// The first of them; drawn when it is not given.
    #[arg(long, conflicts_with = "seed")]
    first_seed: Option<u64>,
    /// Runs this one seed and prints what happened.
    #[arg(long)]
    seed: Option<u64>,
    /// Simulated seconds with faults in each run.
    #[arg(long, default_value_t = 40)]
    duration: u64,
    /// The kinds of fault to draw from, separated by commas; all of them if not given.
    #[arg(long, value_delimiter = ',', value_parser = kind_named)]
    faults: Vec<Kind>,
    /// Seeds that run at the same time.
    #[arg(long, default_value_t = 2)]
    jobs: usize,
    /// Ends at the first seed that does not pass.
    #[arg(long)]
    until_found: bool,
    /// Where reports and histories of failures go.
    #[arg(long, default_value = "chaos-report")]
    report: PathBuf,
    /// Prints one line for the program that started this one.
    #[arg(long, hide = true)]
    child: bool,
    /// Plants a bug, in a program that was built with the feature `planted`; `list` prints them, `all` hunts each.
    #[arg(long)]
    plant: Option<String>,
    /// Prints what the members log, by the rules of RUST_LOG; what is finer than `info` makes it another run.
    #[arg(long, num_args = 0..=1, default_missing_value = "info")]
    trace: Option<String>,
}

fn kind_named(name: &str) -> Result<Kind, String> {
    let names = || ALL.map(Kind::name).join(", ");
    Kind::named(name.trim()).ok_or_else(|| format!("it is none of {}", names()))
}

impl Flags {
    fn kinds(&self) -> &[Kind] {
        match self.faults.as_slice() {
            [] => &ALL,
            named => named,
        }
    }
}

/// No task can run and no timer is set: the simulation would wait for ever.
pub fn stuck() -> ! {
    eprintln!("the simulation is stuck: no task can run and no timer is set");
    std::process::exit(3);
}

#[cfg(feature = "planted")]
fn plant(name: &str, flags: &Flags) -> Result<(), ExitCode> {
    if name == "all" {
        return Err(hunt::run(flags, &[]));
    }
    // Several are hunted, one is planted.
    if name.contains(',') {
        return Err(hunt::run(flags, &name.split(',').collect::<Vec<_>>()));
    }
    if name == "list" {
        hunt::list();
        return Err(ExitCode::SUCCESS);
    }
    barque_planted::plant(name).then_some(()).ok_or_else(|| {
        eprintln!("there is no bug {name:?}: see --plant list");
        ExitCode::from(2)
    })
}

#[cfg(not(feature = "planted"))]
fn plant(_: &str, _: &Flags) -> Result<(), ExitCode> {
    eprintln!("this program was built without the feature `planted`");
    Err(ExitCode::from(2))
}

/// Simulated milliseconds, read without touching the clock: a run with a trace is the same run.
struct SimulatedTime;

impl FormatTime for SimulatedTime {
    fn format_time(&self, out: &mut Writer<'_>) -> std::fmt::Result {
        let now = interpose::now_us();
        write!(out, "{:>7}.{:03}", now / 1000, now % 1000)
    }
}

fn main() -> ExitCode {
    let flags = Flags::parse();
    if let Some(bug) = &flags.plant
        && let Err(exit) = plant(bug, &flags)
    {
        return exit;
    }
    match flags.seed {
        Some(seed) => one(seed, &flags),
        None => sweep::run(&flags),
    }
}

/// With or without a trace of `info` the same is logged, only not to the same place, so that both are the same run.
fn log(flags: &Flags) {
    let format = tracing_subscriber::fmt()
        .with_timer(SimulatedTime)
        .with_ansi(false);
    let wanted = flags.trace.as_deref().unwrap_or("info");
    let format = format.with_env_filter(tracing_subscriber::EnvFilter::new(wanted));
    match flags.trace {
        Some(_) => format.with_writer(std::io::stderr).init(),
        None => format.with_writer(std::io::sink).init(),
    }
}

fn one(seed: u64, flags: &Flags) -> ExitCode {
    interpose::begin(seed);
    log(flags);
    panics::note(flags.trace.is_some());
    let ran = match run::run(seed, Duration::from_secs(flags.duration), flags.kinds()) {
        Ok(ran) => ran,
        Err(error) => {
            println!("{}", sweep::Line::broken(seed, &error.to_string()).encode());
            return ExitCode::FAILURE;
        }
    };
    let line = sweep::Line::of(seed, &ran);
    if !flags.child {
        print!("{}", sweep::describe(&ran));
    }
    // Of a sweep only what did not pass is kept.
    if !flags.child || ran.verdict != Verdict::Passed {
        match sweep::write_report(flags, seed, &ran) {
            Ok(page) if !flags.child => println!("report: {}", page.display()),
            Ok(_) => {}
            Err(error) => eprintln!("the report cannot be written: {error}"),
        }
    }
    println!("{}", line.encode());
    match ran.verdict {
        Verdict::Passed => ExitCode::SUCCESS,
        _ => ExitCode::FAILURE,
    }
}
