//! `barque up`: a whole cluster on this machine, for trying and developing.
//!
//! It lays out a directory, starts the masters and a balancer as processes of their own, waits until every
//! member is healthy, and then minds them until Ctrl-C. It restarts nothing by itself.

mod children;
mod handout;
mod layout;
mod progress;
mod watchdog;

use std::{
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::{Context, bail};

use crate::{
    cluster_dir::{Cluster, ClusterDir, MASTERS_MAX, first_busy},
    files, process,
    process::Tie,
};

use children::Children;
use progress::Progress;

pub const DEFAULT_DIR: &str = ".barque";
const DEFAULT_MASTERS: u16 = 3;

#[derive(Debug, clap::Args)]
pub struct Args {
    /// Where the cluster lives; made when missing, opened again when it is there
    #[arg(long, value_name = "DIR", default_value = DEFAULT_DIR)]
    dir: PathBuf,
    /// How many masters a new cluster has [default: 3]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=i64::from(MASTERS_MAX)))]
    masters: Option<u16>,
    /// Return once the cluster is up; `barque down` stops it
    #[arg(long)]
    detach: bool,
}

pub fn run(args: Args) -> anyhow::Result<ExitCode> {
    files::make_private_dir(&args.dir)?;
    let dir = ClusterDir::open(&args.dir)?;
    dir.make_subdirectories()?;
    let Some(_lock) = dir.try_lock()? else {
        bail!("{}", already_running(dir.path()))
    };
    process::write_pid(&dir.pid_file("up"))?;
    let cluster = open_or_create(&dir, args.masters)?;
    refuse_when_running(&dir, &cluster)?;
    if let Some(port) = first_busy(&cluster.ports()) {
        bail!(
            "port {port} of this cluster is taken by another program: listen tcp 127.0.0.1:{port}: bind: address already in use"
        );
    }
    layout::prepare(&dir, &cluster)?;
    // One thread: children are tied to the thread that starts them, and that must be the one that stays.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("start a runtime")?;
    runtime.block_on(mind(&dir, &cluster, args.detach))
}

async fn mind(dir: &ClusterDir, cluster: &Cluster, detach: bool) -> anyhow::Result<ExitCode> {
    let mut stop = children::StopSignal::new()?;
    let tie = if detach {
        Tie::Detached
    } else {
        Tie::Attached(std::process::id())
    };
    let progress = Progress::new(cluster);
    let mut children = Children::none();
    let ready = match children.start(dir, cluster, tie) {
        Ok(()) => tokio::select! {
            ready = watchdog::until_ready(dir, cluster, &mut children, &progress) => ready,
            () = stop.received() => Err(anyhow::anyhow!("stopped before the cluster was up")),
        },
        Err(error) => Err(error),
    };
    progress.finish();
    if let Err(error) = ready {
        children.stop_all().await?;
        return Err(error);
    }
    handout::print(dir, cluster, detach);
    if detach {
        children.leave();
        return Ok(ExitCode::SUCCESS);
    }
    let outcome = tokio::select! {
        error = watchdog::until_quorum_lost(dir, cluster, &mut children) => Err(error),
        () = stop.received() => Ok(ExitCode::SUCCESS),
    };
    println!("Stopping …");
    children.stop_all().await?;
    watchdog::stop_strangers(dir, cluster)?;
    println!(
        "Stopped. The data stays in {}; `barque up` opens it again.",
        dir.path().display()
    );
    outcome
}

fn refuse_when_running(dir: &ClusterDir, cluster: &Cluster) -> anyhow::Result<()> {
    for master in &cluster.masters {
        if dir.running_master(&master.name)?.is_some() {
            bail!("{}", already_running(dir.path()));
        }
    }
    // A balancer alone is what remains of a cluster that was killed: it holds a port of ours.
    if let Some(proxy) = dir.running_proxy()? {
        proxy.stop(crate::down::GRACE)?;
    }
    Ok(())
}

fn already_running(path: &Path) -> String {
    let path = path.display();
    format!("the cluster in {path} runs already (barque status --dir {path}; barque down --dir {path})")
}

fn open_or_create(dir: &ClusterDir, masters: Option<u16>) -> anyhow::Result<Cluster> {
    let Some(cluster) = dir.load()? else {
        return dir.create(masters.unwrap_or(DEFAULT_MASTERS));
    };
    let there = cluster.masters.len();
    match masters {
        Some(asked) if usize::from(asked) != there => {
            bail!(
                "{} holds a cluster of {there}; --masters {asked} does not change that",
                dir.path().display()
            )
        }
        _ => Ok(cluster),
    }
}
