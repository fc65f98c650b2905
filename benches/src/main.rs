//! `barque-bench`: named workloads over the etcd and Kubernetes APIs, against any server of them.
//!
//! `run` puts one workload on given endpoints; `compare` starts ours and Debian's etcd itself and runs every
//! workload on both in turns; `kubernetes` measures our API. It prints what it measured and judges nothing.

mod compare;
mod connect;
mod kubernetes;
mod latency;
mod machine;
mod report;
mod server;
mod workload;

use std::{path::PathBuf, time::Duration};

use barque_chaos::cluster::ClientCertificate;
use clap::{Parser, Subcommand};

use crate::{
    connect::Peer,
    workload::{Pace, WORKLOADS, Workload},
};

/// Load for servers of the etcd and Kubernetes APIs.
#[derive(Parser)]
#[command(name = "barque-bench", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// One workload against servers that run already
    Run(RunArgs),
    /// Every workload on ours and on Debian's etcd, started here, in interleaved pairs
    Compare(CompareArgs),
    /// LIST of 10,000 pods and the fan-out of one object's changes, on ours
    Kubernetes(KubernetesArgs),
    /// The names of the workloads
    List,
}

#[derive(clap::Args)]
struct RunArgs {
    /// See `barque-bench list`
    workload: String,
    /// URLs of the etcd API; connections are spread over them
    #[arg(long, value_delimiter = ',', default_value = "http://127.0.0.1:2379")]
    endpoints: Vec<String>,
    /// Connections instead of the workload's own number
    #[arg(long)]
    connections: Option<usize>,
    /// Clients instead of the workload's own number
    #[arg(long)]
    clients: Option<usize>,
    #[arg(long, default_value_t = 10.0)]
    seconds: f64,
    #[arg(long, requires = "cert", requires = "key")]
    cacert: Option<PathBuf>,
    #[arg(long)]
    cert: Option<PathBuf>,
    #[arg(long)]
    key: Option<PathBuf>,
}

#[derive(clap::Args)]
pub struct CompareArgs {
    /// Two short repetitions: about three minutes in all
    #[arg(long)]
    quick: bool,
    /// Repetitions of each pair [default: 2 when quick, else 3]
    #[arg(long)]
    repetitions: Option<usize>,
    /// Measured seconds of each run [default: 1.5 when quick, else 6]
    #[arg(long)]
    seconds: Option<f64>,
    /// Sizes of the clusters
    #[arg(long, value_delimiter = ',', default_value = "1,3")]
    members: Vec<usize>,
    /// Only these workloads
    #[arg(long, value_delimiter = ',')]
    workloads: Vec<String>,
    /// Only this side: barque or etcd
    #[arg(long)]
    only: Option<String>,
    /// Where both keep their data [default: the temporary directory]
    #[arg(long)]
    dir: Option<PathBuf>,
    /// Write every measurement here too
    #[arg(long)]
    json: Option<PathBuf>,
}

#[derive(clap::Args)]
pub struct KubernetesArgs {
    #[arg(long, default_value_t = 10_000)]
    pods: usize,
    #[arg(long, default_value_t = 1_000)]
    watches: usize,
    /// Lists, and seconds of changes
    #[arg(long, default_value_t = 10)]
    repetitions: usize,
    /// Changes of the watched object in a second
    #[arg(long, default_value_t = 20)]
    rate: u32,
    /// Masters
    #[arg(long, default_value_t = 1)]
    members: usize,
    /// Write every measurement here too
    #[arg(long)]
    json: Option<PathBuf>,
}

fn main() -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        match Cli::parse().command {
            Command::Run(args) => run(args).await,
            Command::Compare(args) => compare::run(args).await,
            Command::Kubernetes(args) => kubernetes::run(args).await,
            Command::List => {
                for workload in WORKLOADS {
                    println!("{:<16} {}", workload.name, workload.what());
                }
                Ok(())
            }
        }
    })
}

async fn run(args: RunArgs) -> anyhow::Result<()> {
    let mut workload = *Workload::named(&args.workload)?;
    workload.connections = args.connections.unwrap_or(workload.connections);
    workload.clients = args.clients.unwrap_or(workload.clients);
    let certificate = match (args.cacert, args.cert, args.key) {
        (Some(ca), Some(certificate), Some(key)) => Some(ClientCertificate { ca, certificate, key }),
        _ => None,
    };
    let peer = Peer::new(args.endpoints, certificate);
    let pace = Pace {
        warm_up: Duration::from_secs(1),
        measured: Duration::from_secs_f64(args.seconds),
    };
    let mut load = workload.prepare(&peer, pace).await?;
    let outcome = load.run(|| Ok(())).await?;
    println!("{}", outcome.latency.summary());
    println!(
        "{} operations in {:?}: {:.0}/s",
        outcome.operations,
        outcome.elapsed,
        outcome.per_second()
    );
    Ok(())
}
