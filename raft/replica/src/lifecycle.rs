//! The turns in a member's life: its first log entry, that it has a log, that it has caught up, that it must stop.

use std::{
    collections::BTreeMap,
    sync::{Arc, atomic::Ordering},
};

use barque_store::LogPosition;
use openraft::async_runtime::watch::WatchReceiver;
use tokio::sync::watch;

use crate::{
    ReadBarrierError, ReplicaConfig, StartError,
    applied::Applied,
    barrier::Barrier,
    blocking::block,
    identity::{self, KeptIdentity},
    peer::{Gate, Stop, discovery::Directory},
    planted,
    tasks::Tasks,
    types::{Node, Raft},
};

/// How far a member is with shutting down.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    Running,
    /// Takes no proposals any more, and hands over what it leads.
    Draining,
    /// Serves no peers either.
    Stopping,
}

/// The members of a new cluster, as every one of them knows the others by its flags.
pub fn founders(config: &ReplicaConfig) -> BTreeMap<u64, Node> {
    let token = &config.initial_cluster_token;
    config
        .initial_cluster
        .iter()
        .map(|member| {
            let id = identity::member_id(&member.peer_urls, token);
            // Nothing that another member could not know: the log must begin alike everywhere.
            (
                id,
                Node {
                    name: member.name.clone(),
                    peer_urls: member.peer_urls.clone(),
                    ..Node::default()
                },
            )
        })
        .collect()
}

/// The first membership, the same from every member; harmless where there is one already.
pub async fn initialize(raft: &Raft, config: &ReplicaConfig) -> Result<(), StartError> {
    let members = founders(config);
    if members.len() != config.initial_cluster.len() {
        return Err(StartError::Config(
            "two members of the initial cluster have the same peer URLs".into(),
        ));
    }
    use openraft::errors::{InitializeError, RaftError};
    match raft.initialize(members).await {
        Ok(()) | Err(RaftError::APIError(InitializeError::NotAllowed(_))) => Ok(()),
        Err(error) => Err(StartError::Raft(error.to_string())),
    }
}

/// Notes in the identity that there is a log: from then on its absence means lost data.
pub async fn note_log(raft: Raft, directory: Directory, identity: KeptIdentity) -> Result<(), String> {
    if !identity.get().has_log {
        let written = raft
            .wait(None)
            .metrics(|metrics| metrics.last_log_index.is_some(), "a log")
            .await;
        if written.is_err() {
            return Ok(());
        }
        block(|| identity.change(|identity| identity.has_log = true))
            .map_err(|error| format!("the identity file cannot be written: {error}"))?;
    }
    directory.initialized.store(true, Ordering::Release);
    Ok(())
}

/// Ready once the state covers everything that this member served before it was stopped: apply never runs ahead of
/// the durable log, so that is at most what the log held when it was opened. A member without a log first catches
/// up with the others.
pub async fn recover(
    applied: Arc<Applied>,
    had: Option<LogPosition>,
    barrier: Barrier,
    ready: watch::Sender<bool>,
) {
    let covered = match had {
        _ if planted("stale-after-restart") => true,
        Some(position) => applied.wait_to_cover(position).await,
        None => loop {
            match barrier.wait().await {
                Ok(()) => break true,
                Err(ReadBarrierError::Stopped) => break false,
                Err(_) => {}
            }
        },
    };
    if covered {
        tracing::info!("the state has caught up; serving");
        ready.send_replace(true);
    }
}

/// Resolves the member's fate: a peer said that it lost its data or is removed, or Raft stopped with an error.
pub async fn watch_failure(
    raft: Raft,
    gate: Gate,
    identity: KeptIdentity,
    tasks: Tasks,
    phase: watch::Receiver<Phase>,
    raft_ended: impl Future<Output = ()>,
) {
    let mut told = gate.stopping();
    let mut raft_ended = std::pin::pin!(raft_ended);
    tokio::select! {
        Ok(stop) = async { told.wait_for(Option::is_some).await.map(|stop| stop.clone()) } => {
            stop.into_iter().for_each(|stop| give_up(&identity, &tasks, stop));
        }
        () = &mut raft_ended => {}
    }
    if tasks.has_failed() {
        return raft_ended.await;
    }
    let state = raft.metrics().borrow_watched().running_state.clone();
    match state {
        // Stopped in order.
        _ if *phase.borrow() != Phase::Running => {}
        Err(fatal) => tasks.fail(fatal.to_string()),
        Ok(()) => tasks.fail("raft panicked".into()),
    }
}

fn give_up(identity: &KeptIdentity, tasks: &Tasks, stop: Stop) {
    retire(identity, &stop);
    tasks.fail(stop.reason);
}

/// What was lost does not come back with a restart, so it is remembered, if it can be.
pub fn retire(identity: &KeptIdentity, stop: &Stop) {
    if stop.for_good {
        let retired = Some(stop.reason.clone());
        if let Err(error) = block(|| identity.change(|identity| identity.retired = retired)) {
            tracing::error!(%error, "the identity file cannot be written: this member must not be started again");
        }
    }
}
