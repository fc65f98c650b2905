//! `barque proxy`: a small local balancer of TCP connections over the masters; TLS passes through.
//!
//! It exists for clients that know one address only, such as kubectl. It never looks into what it carries.

mod backend;
mod metrics;
mod relay;

use std::{
    net::{SocketAddr, ToSocketAddrs},
    path::PathBuf,
    process::ExitCode,
    sync::Arc,
};

use anyhow::{Context, bail};
use rustls::ClientConfig;
use tokio::{net::TcpListener, signal::unix::SignalKind, task::JoinSet};
use tokio_util::sync::CancellationToken;

use crate::{
    cluster_dir::{ClusterDir, loopback},
    http_metrics, logging, open_files, process,
    process::Tie,
    tls,
};

use backend::Backend;

#[derive(Debug, clap::Args)]
pub struct Args {
    /// Balance over the masters of this cluster of `barque up`
    #[arg(long, value_name = "DIR", conflicts_with_all = ["listen", "backend", "ca_file"])]
    dir: Option<PathBuf>,
    /// Where to listen
    #[arg(long, value_name = "HOST:PORT", required_unless_present = "dir")]
    listen: Option<String>,
    /// A master's API address; repeated for each
    #[arg(long, value_name = "HOST:PORT", required_unless_present = "dir")]
    backend: Vec<String>,
    /// Ask each master's /readyz over TLS, trusting this authority; without it, a TCP connection is the question
    #[arg(long, value_name = "FILE")]
    ca_file: Option<PathBuf>,
    /// Serve /metrics over plain HTTP here
    #[arg(long, value_name = "HOST:PORT")]
    listen_metrics: Option<String>,
    /// Connections carried at once; more are closed
    #[arg(long, value_name = "N", default_value_t = 10_000)]
    max_connections: usize,
    #[arg(long, value_name = "LEVEL", default_value = "info")]
    log_level: logging::Level,
    #[arg(long, value_name = "FORMAT", default_value = "text")]
    log_format: logging::Format,
    #[arg(long, hide = true, value_parser = Tie::parse)]
    tie: Option<Tie>,
}

struct Config {
    listen: SocketAddr,
    metrics: Option<SocketAddr>,
    backends: Vec<SocketAddr>,
    probe_tls: Option<Arc<ClientConfig>>,
    max_connections: usize,
    pid_file: Option<PathBuf>,
}

pub fn run(args: Args) -> anyhow::Result<ExitCode> {
    logging::init(args.log_level, args.log_format);
    if let Some(tie) = args.tie {
        tie.tie()?;
    }
    let config = Config::from_args(&args)?;
    open_files::raise();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("start a runtime")?;
    runtime.block_on(serve(config))?;
    Ok(ExitCode::SUCCESS)
}

async fn serve(config: Config) -> anyhow::Result<()> {
    let mut terminate = tokio::signal::unix::signal(SignalKind::terminate())?;
    let listener = bind(config.listen).await?;
    let metrics_listener = match config.metrics {
        Some(address) => Some(bind(address).await?),
        None => None,
    };
    if let Some(path) = &config.pid_file {
        process::write_pid(path)?;
    }
    let backends: Arc<[Backend]> = config
        .backends
        .iter()
        .map(|address| Backend::new(*address))
        .collect();
    let stop = CancellationToken::new();
    let mut tasks = JoinSet::new();
    for at in 0..backends.len() {
        tasks.spawn(backend::keep_probing(
            backends.clone(),
            at,
            config.probe_tls.clone(),
            stop.clone(),
        ));
    }
    let entrance = relay::entrance(config.max_connections);
    if let Some(listener) = metrics_listener {
        let registry = Arc::new(metrics::registry(backends.clone(), entrance.clone()));
        tasks.spawn(http_metrics::serve(listener, registry, stop.clone()));
    }
    tasks.spawn(relay::accept_loop(listener, backends, entrance, stop.clone()));
    tracing::info!(listen = %config.listen, backends = ?config.backends, "balancing");
    tokio::select! {
        _ = terminate.recv() => {}
        interrupted = tokio::signal::ctrl_c() => interrupted?,
    }
    stop.cancel();
    while tasks.join_next().await.is_some() {}
    Ok(())
}

impl Config {
    fn from_args(args: &Args) -> anyhow::Result<Config> {
        if args.max_connections == 0 {
            bail!("--max-connections must be above 0");
        }
        if let Some(dir) = &args.dir {
            return Self::of_cluster(&ClusterDir::open(dir)?, args);
        }
        let listen = args.listen.as_deref().context("--listen is missing")?;
        let backends: anyhow::Result<_> = args.backend.iter().map(|text| resolve("backend", text)).collect();
        let metrics = args
            .listen_metrics
            .as_deref()
            .map(|text| resolve("listen-metrics", text))
            .transpose()?;
        let probe_tls = args
            .ca_file
            .as_deref()
            .map(|ca| tls::client(ca, None, &[b"http/1.1"]))
            .transpose()?;
        Ok(Config {
            listen: resolve("listen", listen)?,
            metrics,
            backends: backends?,
            probe_tls,
            max_connections: args.max_connections,
            pid_file: None,
        })
    }

    fn of_cluster(dir: &ClusterDir, args: &Args) -> anyhow::Result<Config> {
        let cluster = dir.require()?;
        Ok(Config {
            listen: loopback(cluster.proxy_port),
            metrics: Some(loopback(cluster.proxy_metrics_port)),
            backends: cluster
                .masters
                .iter()
                .map(|master| loopback(master.api_port))
                .collect(),
            probe_tls: Some(tls::client(&dir.pki().kubernetes_ca(), None, &[b"http/1.1"])?),
            max_connections: args.max_connections,
            pid_file: Some(dir.pid_file("proxy")),
        })
    }
}

fn resolve(flag: &str, text: &str) -> anyhow::Result<SocketAddr> {
    let mut addresses = text
        .to_socket_addrs()
        .with_context(|| format!("invalid value \"{text}\" for --{flag}"))?;
    addresses
        .next()
        .with_context(|| format!("--{flag} {text} has no address"))
}

async fn bind(address: SocketAddr) -> anyhow::Result<TcpListener> {
    TcpListener::bind(address)
        .await
        .map_err(|error| crate::master::bind_error(address, &error))
}
