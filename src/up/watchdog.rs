//! Waiting for a cluster to serve, and noticing what ends afterwards.

use std::{sync::Arc, time::Duration};

use anyhow::{anyhow, bail};
use futures_util::future::join_all;
use rustls::ClientConfig;

use super::{
    children::{Children, Exit, PROXY},
    progress::Progress,
};
use crate::{
    cluster_dir::{Cluster, ClusterDir, loopback},
    down::GRACE,
    readyz::{self, Readiness},
    tls,
};

const START_TIMEOUT: Duration = Duration::from_secs(120);
const ASK_TIMEOUT: Duration = Duration::from_secs(2);
const ASK_INTERVAL: Duration = Duration::from_millis(100);

/// Every master ready, and the balancer passing on to one of them; a process that ends meanwhile ends the wait.
pub async fn until_ready(
    dir: &ClusterDir,
    cluster: &Cluster,
    children: &mut Children,
    progress: &Progress,
) -> anyhow::Result<()> {
    let config = tls::client(&dir.pki().kubernetes_ca(), None, &[b"http/1.1"])?;
    let masters = cluster
        .masters
        .iter()
        .map(|master| (master.name.as_str(), master.api_port));
    let all: Vec<(&str, u16)> = masters.chain([(PROXY, cluster.proxy_port)]).collect();
    let everybody = join_all(
        all.iter()
            .map(|(name, port)| until_one_ready(name, *port, &config, progress)),
    );
    tokio::select! {
        _ = everybody => Ok(()),
        exit = children.next_exit() => {
            let exit = exit?;
            bail!("{}: {}", describe(dir, &exit), last_line(dir, &exit.name))
        }
        () = tokio::time::sleep(START_TIMEOUT) => {
            bail!("the cluster is not up after {} s; see the logs in {}", START_TIMEOUT.as_secs(), dir.path().join("logs").display())
        }
    }
}

async fn until_one_ready(name: &str, port: u16, config: &Arc<ClientConfig>, progress: &Progress) {
    let mut ticks = tokio::time::interval(ASK_INTERVAL);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        match readyz::ask(loopback(port), Some(config.clone()), ASK_TIMEOUT).await {
            Readiness::Ready => return progress.ready(name),
            Readiness::Unready(_) => progress.note(name, "started, not ready yet"),
            Readiness::Dead(_) => progress.note(name, "starting"),
        }
    }
}

/// Tells of every process that ends; returns when too few masters are left to go on.
pub async fn until_quorum_lost(
    dir: &ClusterDir,
    cluster: &Cluster,
    children: &mut Children,
) -> anyhow::Error {
    loop {
        let exit = match children.next_exit().await {
            Ok(exit) => exit,
            Err(error) => return error,
        };
        eprintln!("barque: {}", describe(dir, &exit));
        if exit.name == PROXY {
            eprintln!(
                "barque: the kubeconfig needs it; again: barque proxy --dir {}",
                dir.path().display()
            );
            continue;
        }
        let left = cluster
            .masters
            .iter()
            .filter(|m| matches!(dir.running_master(&m.name), Ok(Some(_))))
            .count();
        if left < cluster.quorum() {
            return anyhow!(
                "{left} of {} masters left, too few to go on",
                cluster.masters.len()
            );
        }
        eprintln!(
            "barque: {left} of {} masters left, which is enough; again: barque master --config-file {}",
            cluster.masters.len(),
            dir.config_file(&exit.name).display()
        );
    }
}

/// Masters that were started again by hand are this cluster's too.
pub fn stop_strangers(dir: &ClusterDir, cluster: &Cluster) -> anyhow::Result<()> {
    for master in &cluster.masters {
        if let Some(running) = dir.running_master(&master.name)? {
            running.stop(GRACE)?;
        }
    }
    if let Some(proxy) = dir.running_proxy()? {
        proxy.stop(GRACE)?;
    }
    Ok(())
}

fn describe(dir: &ClusterDir, exit: &Exit) -> String {
    format!(
        "{} ended with {}; its log: {}",
        exit.name,
        exit.status,
        dir.log_file(&exit.name).display()
    )
}

fn last_line(dir: &ClusterDir, name: &str) -> String {
    let text = std::fs::read_to_string(dir.log_file(name)).unwrap_or_default();
    text.lines()
        .rev()
        .find(|line| !line.trim().is_empty())
        .unwrap_or("it says nothing")
        .to_owned()
}
