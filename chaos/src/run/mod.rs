//! One run: a cluster is started, used, broken, healed and looked at.

mod conduct;
mod duration;
mod flags;
mod inflict;
mod kind;
mod known;
mod objects;
mod outcome;
mod replace;
mod resources;
mod site;
mod watching;

use std::time::Duration;

use anyhow::{Context, bail};
use barque_chaos::lan::{Lan, become_root, hide_mounts};
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::EnvFilter;

pub use flags::Flags;
use flags::Settings;
use site::Site;

/// Whether everything passed.
pub fn run(settings: &Settings) -> anyhow::Result<bool> {
    // The file system's library complains of requests that it was never meant to serve, and of every unmount.
    let quiet = || EnvFilter::new("warn,fuser=off");
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| quiet());
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .init();
    println!("{}", settings.command);
    // While there is no other thread.
    let lan = prepare_ground(settings)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?;
    let ran = runtime.block_on(async {
        tokio::select! {
            ran = conduct::conduct(settings, lan) => ran,
            interrupted = interruption() => interrupted.and_then(|()| bail!("interrupted")),
        }
    });
    // Clients that still wait for an answer have nobody to tell it.
    runtime.shutdown_timeout(Duration::from_secs(5));
    outcome::write_and_tell(settings, ran?)
}

fn prepare_ground(settings: &Settings) -> anyhow::Result<Option<Lan>> {
    if Site::needs_lan(settings) {
        become_root()?;
    }
    let is_root = nix::unistd::geteuid().is_root();
    if is_root && settings.faults.iter().any(|kind| kind.needs_disks()) {
        hide_mounts()?;
    }
    Site::needs_lan(settings)
        .then(|| Lan::create(settings.members, settings.seed))
        .transpose()
        .context("the network between the members")
}

/// Ends when the run is told to end; what it has started and mounted is then taken away as at its end.
async fn interruption() -> anyhow::Result<()> {
    let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
    }
    Ok(())
}
