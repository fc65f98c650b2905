//! One object's changes to many watch connections.

use std::{
    fmt,
    time::{Duration, Instant},
};

use anyhow::{Context, bail};
use barque_chaos::{
    cluster::Cluster,
    http::{Connection, Server},
};
use http::Method;
use http_body_util::BodyExt;
use hyper::body::Incoming;
use serde::Serialize;
use tokio::{
    task::JoinSet,
    time::{MissedTickBehavior, interval, timeout},
};

use super::objects::config_map;
use crate::{latency::Latency, server::Processes};

const CONFIG_MAPS: &str = "/api/v1/namespaces/default/configmaps";
const WATCHED: &str = "/api/v1/namespaces/default/configmaps/watched";
const SENT: &[u8] = b"\"sent\":\"";
const PATIENCE: Duration = Duration::from_secs(60);
const OPENERS: usize = 32;

#[derive(Debug, Serialize)]
pub struct FannedOut {
    pub watches: usize,
    pub changes: u64,
    pub events: u64,
    pub p50_ms: f64,
    pub p99_ms: f64,
    pub server_cpu_seconds_per_1000: f64,
    pub generator_share: f64,
    pub resident_mib: f64,
}

impl fmt::Display for FannedOut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} changes to {} watches over TLS, {} events: p50 {:.1} ms, p99 {:.1} ms, server CPU {:.4} s per 1,000 \
             events, generator {:.0} % of the CPU, resident {:.0} MiB",
            self.changes,
            self.watches,
            self.events,
            self.p50_ms,
            self.p99_ms,
            self.server_cpu_seconds_per_1000,
            self.generator_share * 100.0,
            self.resident_mib,
        )
    }
}

pub async fn run(
    cluster: &Cluster,
    server: &Server,
    watches: usize,
    rate: u32,
    seconds: usize,
) -> anyhow::Result<FannedOut> {
    let mut writer = server.connect().await?;
    let created = writer
        .send(Method::POST, CONFIG_MAPS, &config_map(0).to_string())
        .await?;
    let created: serde_json::Value = serde_json::from_slice(&created)?;
    let version = created["metadata"]["resourceVersion"]
        .as_str()
        .context("a resourceVersion")?
        .to_owned();
    let streams = open(server, watches, &version).await?;

    let origin = Instant::now();
    let changes = u64::from(rate) * seconds as u64;
    let mut receivers = JoinSet::new();
    for (connection, body) in streams {
        receivers.spawn(receive(connection, body, changes, origin));
    }
    let start = Processes::read(cluster)?;
    let mut ticks = interval(Duration::from_secs(1) / rate);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    for _ in 0..changes {
        ticks.tick().await;
        let sent = u64::try_from(origin.elapsed().as_nanos())?;
        writer
            .send(Method::PUT, WATCHED, &config_map(sent).to_string())
            .await?;
    }
    let mut latency = Latency::new();
    while let Some(received) = timeout(PATIENCE, receivers.join_next())
        .await
        .context("events are missing")?
    {
        latency.merge(&received??);
    }
    let end = Processes::read(cluster)?;
    let servers = end.servers.cpu_seconds - start.servers.cpu_seconds;
    let generator = end.generator.cpu_seconds - start.generator.cpu_seconds;
    Ok(FannedOut {
        watches,
        changes,
        events: latency.count(),
        p50_ms: latency.quantile_ms(0.5),
        p99_ms: latency.quantile_ms(0.99),
        server_cpu_seconds_per_1000: servers * 1000.0 / latency.count() as f64,
        generator_share: generator / (generator + servers),
        resident_mib: end.servers.resident_bytes as f64 / f64::from(1 << 20),
    })
}

async fn open(server: &Server, watches: usize, version: &str) -> anyhow::Result<Vec<(Connection, Incoming)>> {
    let path = format!(
        "{CONFIG_MAPS}?watch=true&resourceVersion={version}&fieldSelector=metadata.name%3Dwatched&timeoutSeconds=3600"
    );
    let mut openers = JoinSet::new();
    for opener in 0..OPENERS {
        let (server, path) = (server.clone(), path.clone());
        openers.spawn(async move {
            let mut streams = Vec::new();
            for _ in (opener..watches).step_by(OPENERS) {
                let mut connection = server.connect().await?;
                let body = connection.stream(&path).await?;
                streams.push((connection, body));
            }
            anyhow::Ok(streams)
        });
    }
    let mut streams = Vec::new();
    while let Some(opened) = openers.join_next().await {
        streams.extend(opened??);
    }
    Ok(streams)
}

/// Every change must come, in order, once.
async fn receive(
    _connection: Connection,
    mut body: Incoming,
    changes: u64,
    origin: Instant,
) -> anyhow::Result<Latency> {
    let (mut latency, mut pending, mut last) = (Latency::new(), Vec::new(), 0);
    while latency.count() < changes {
        let frame = body.frame().await.context("the watch ended")??;
        let Ok(data) = frame.into_data() else { continue };
        pending.extend_from_slice(&data);
        while let Some(end) = pending.iter().position(|&byte| byte == b'\n') {
            let line: Vec<u8> = pending.drain(..=end).collect();
            let sent = sent(&line).with_context(|| String::from_utf8_lossy(&line).into_owned())?;
            if sent <= last {
                bail!("an event came again or out of order");
            }
            last = sent;
            latency.record(origin.elapsed().saturating_sub(Duration::from_nanos(sent)));
        }
    }
    Ok(latency)
}

/// Found by its bytes: decoding the object would measure the generator.
fn sent(line: &[u8]) -> Option<u64> {
    let at = line.windows(SENT.len()).position(|window| window == SENT)? + SENT.len();
    std::str::from_utf8(line.get(at..at + 20)?).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_is_found_in_an_event() {
        let line = format!("{{\"type\":\"MODIFIED\",\"object\":{}}}\n", config_map(123));
        assert_eq!(sent(line.as_bytes()), Some(123));
    }
}
