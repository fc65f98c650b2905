//! `barque master`: one replica of the keyspace, served as the etcd v3 API and as the Kubernetes API.

mod activity;
mod authority;
mod compactor;
mod config;
mod drain;
mod flags;
mod front;
mod greeting;
mod health;
mod listener;
mod member;
mod membership;
mod metrics;
mod mount;
mod rooms;
mod signals;
mod tokens;

use std::{process::ExitCode, time::Duration};

use anyhow::{Context, anyhow};
use barque_replica::Replica;

pub use barque_etcd::ETCD_VERSION;
pub use flags::Flags;
pub use listener::bind_error;

use config::Config;
use listener::Bound;
use member::Member;
use signals::Signals;

use crate::{logging, open_files, process};

/// How long the end of the process waits for work on threads of its own.
const LAST_WORK: Duration = Duration::from_secs(5);

pub fn run(flags: Flags) -> anyhow::Result<ExitCode> {
    if let Some(tie) = flags.tie {
        tie.tie()?;
    }
    let config = Config::new(flags)?;
    logging::init(config.log_level, config.log_format);
    for warning in &config.warnings {
        tracing::warn!("{warning}");
    }
    let max_connections = open_files::raise();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .context("start a runtime")?;
    let outcome = runtime.block_on(serve(config, max_connections));
    // A defragmentation under way may take minutes, and nothing is lost with it.
    runtime.shutdown_timeout(LAST_WORK);
    outcome.map(|()| ExitCode::SUCCESS)
}

async fn serve(config: Config, max_connections: usize) -> anyhow::Result<()> {
    let mut signals = Signals::new()?;
    // All ports before any data: a second copy of a running member gets no further than this.
    let bound = Bound::bind(&config)?;
    if let Some(path) = &config.pid_file {
        process::write_pid(path)?;
    }
    let replica_config = member::replica_config(&config, bound.peers);
    let replica = tokio::select! {
        started = Replica::start(replica_config) => started?,
        () = signals.stop() => return Ok(()),
    };
    let member = Member::new(replica.clone(), &config, max_connections);
    let servers = member.serve(bound.fronts);
    let compacting = compactor::run(replica.clone(), config.compaction, servers.begun_token());
    servers.track(replica.guarded("that compacts the history", compacting));
    tracing::info!(name = config.name, member = %format!("{:x}", replica.status().member_id.0), "serving");
    let outcome = tokio::select! {
        () = signals.stop() => Ok(()),
        reason = replica.failed() => Err(anyhow!("the member stops: {reason}")),
        error = member.api_failed() => Err(error),
    };
    signals.exit_at_the_next();
    drain::drain(&replica, &member, servers, outcome.is_ok()).await;
    outcome
}
