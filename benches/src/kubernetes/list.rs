//! LIST of many pods by one client.

use std::{fmt, time::Instant};

use anyhow::{Context, bail};
use barque_chaos::{cluster::Cluster, http::Server};
use http::Method;
use serde::Serialize;
use tokio::task::JoinSet;

use super::objects::pod;
use crate::{latency::Latency, server::Processes};

const PODS: &str = "/api/v1/namespaces/default/pods";
const CREATORS: usize = 16;

#[derive(Debug, Serialize)]
pub struct Listed {
    pub pods: usize,
    pub bytes: usize,
    pub creates_per_second: f64,
    pub p50_ms: f64,
    pub p99_ms: f64,
    pub server_cpu_seconds_per_list: f64,
    pub resident_mib_before: f64,
    pub resident_mib_after: f64,
}

impl fmt::Display for Listed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "LIST of {} pods, {:.1} MB ({:.2} KB each): p50 {:.1} ms, p99 {:.1} ms, server CPU {:.4} s each, \
             resident {:.0} -> {:.0} MiB; they were created at {:.0}/s",
            self.pods,
            self.bytes as f64 / 1e6,
            self.bytes as f64 / 1e3 / self.pods as f64,
            self.p50_ms,
            self.p99_ms,
            self.server_cpu_seconds_per_list,
            self.resident_mib_before,
            self.resident_mib_after,
            self.creates_per_second,
        )
    }
}

pub async fn run(cluster: &Cluster, server: &Server, pods: usize, lists: usize) -> anyhow::Result<Listed> {
    let start = Instant::now();
    create(server, pods).await?;
    let creates_per_second = pods as f64 / start.elapsed().as_secs_f64();

    let mut connection = server.connect().await?;
    let mut latency = Latency::new();
    let before = Processes::read(cluster)?.servers;
    let mut bytes = 0;
    for _ in 0..lists {
        let start = Instant::now();
        let body = connection.send(Method::GET, PODS, "").await?;
        latency.record(start.elapsed());
        bytes = body.len();
        if !body.ends_with(b"]}") && !body.ends_with(b"]}\n") {
            bail!("the list is cut off after {bytes} bytes");
        }
    }
    let after = Processes::read(cluster)?.servers;
    let body: serde_json::Value = serde_json::from_slice(&connection.send(Method::GET, PODS, "").await?)?;
    let listed = body["items"].as_array().context("a list has items")?.len();
    if listed != pods {
        bail!("{listed} pods of {pods} are in the list");
    }
    let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
    Ok(Listed {
        pods,
        bytes,
        creates_per_second,
        p50_ms: latency.quantile_ms(0.5),
        p99_ms: latency.quantile_ms(0.99),
        server_cpu_seconds_per_list: (after.cpu_seconds - before.cpu_seconds) / lists as f64,
        resident_mib_before: mib(before.resident_bytes),
        resident_mib_after: mib(after.resident_bytes),
    })
}

async fn create(server: &Server, pods: usize) -> anyhow::Result<()> {
    let mut creators = JoinSet::new();
    for creator in 0..CREATORS {
        let server = server.clone();
        creators.spawn(async move {
            let mut connection = server.connect().await?;
            for number in (creator..pods).step_by(CREATORS) {
                connection
                    .send(Method::POST, PODS, &pod(number).to_string())
                    .await?;
            }
            anyhow::Ok(())
        });
    }
    while let Some(creator) = creators.join_next().await {
        creator??;
    }
    Ok(())
}
