//! What the servers say about themselves and what the kernel says about them: [`Reading`].

use anyhow::Context;
use barque_chaos::cluster::{Cluster, Usage};

use barque_chaos::http::Server;

const FSYNCS: &str = "etcd_disk_wal_fsync_duration_seconds_count";
const LEADER_CHANGES: &str = "etcd_server_leader_changes_seen_total";

/// The processes of one cluster at one moment, and the generator.
#[derive(Debug, Clone, Copy)]
pub struct Processes {
    pub servers: Usage,
    pub generator: Usage,
}

impl Processes {
    pub fn read(cluster: &Cluster) -> anyhow::Result<Processes> {
        let mut servers = Usage::default();
        for index in 0..cluster.len() {
            servers = servers + cluster.usage(index)?;
        }
        Ok(Processes {
            servers,
            generator: Usage::own()?,
        })
    }
}

/// Counters of `/metrics`; absent when a server does not export one.
#[derive(Debug, Clone, Copy)]
pub struct Counters {
    /// Of the logs of all members.
    pub fsyncs: Option<f64>,
    /// The largest number that any member has seen.
    pub leader_changes: Option<f64>,
}

impl Counters {
    pub async fn read(cluster: &Cluster) -> anyhow::Result<Counters> {
        let mut counters = Counters {
            fsyncs: Some(0.0),
            leader_changes: Some(0.0),
        };
        let certificate = cluster.client_certificate();
        for index in 0..cluster.len() {
            let server = Server::new(&cluster.endpoint(index), certificate.as_ref())?;
            let text = server
                .get("/metrics")
                .await
                .with_context(|| format!("metrics of {}", cluster.name(index)))?;
            let text = String::from_utf8_lossy(&text);
            counters.fsyncs = counters
                .fsyncs
                .zip(value(&text, FSYNCS))
                .map(|(sum, more)| sum + more);
            counters.leader_changes = counters
                .leader_changes
                .zip(value(&text, LEADER_CHANGES))
                .map(|(most, other)| most.max(other));
        }
        Ok(counters)
    }
}

/// The value of a metric without labels in Prometheus' text format.
fn value(text: &str, name: &str) -> Option<f64> {
    text.lines().find_map(|line| {
        let (metric, value) = line.split_once(' ')?;
        let metric = metric.split_once('{').map_or(metric, |(metric, _)| metric);
        (metric == name).then(|| value.trim().parse().ok())?
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metrics_are_found_by_name() {
        let text = "# TYPE etcd_x counter\netcd_x_total 3\netcd_x 7\nother{a=\"b\"} 1e3\n";
        assert_eq!(value(text, "etcd_x"), Some(7.0));
        assert_eq!(value(text, "other"), Some(1000.0));
        assert_eq!(value(text, "absent"), None);
    }
}
