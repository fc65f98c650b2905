//! The balancer's own figures.

use std::sync::{Arc, atomic::Ordering};

use barque_entrance::Entrance;
use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeMetric},
    metrics::{MetricType, counter::ConstCounter, gauge::ConstGauge},
    registry::Registry,
};

use super::backend::{Backend, Health};
use crate::http_metrics;

pub fn registry(backends: Arc<[Backend]>, entrance: Entrance) -> Registry {
    let mut registry = Registry::default();
    registry.register_collector(Box::new(Backends(backends)));
    registry.register_collector(Box::new(Clients(entrance)));
    registry.register_collector(Box::new(http_metrics::ProcessMetrics));
    registry
}

#[derive(Debug)]
struct Clients(Entrance);

impl Collector for Clients {
    fn encode(&self, mut encoder: DescriptorEncoder) -> Result<(), std::fmt::Error> {
        http_metrics::encode_entrances(&mut encoder, &[("proxy", self.0.figures())])
    }
}

struct Backends(Arc<[Backend]>);

impl std::fmt::Debug for Backends {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Backends").field(&self.0.len()).finish()
    }
}

impl Collector for Backends {
    fn encode(&self, mut encoder: DescriptorEncoder) -> Result<(), std::fmt::Error> {
        type Read = fn(&Backend) -> u64;
        let gauges: [(&str, &str, Read); 2] = [
            (
                "barque_proxy_backend_ready",
                "1 when the backend says that it is ready",
                |b| u64::from(b.health() == Health::Ready),
            ),
            ("barque_proxy_connections", "Connections carried now", |b| {
                b.connections.load(Ordering::Relaxed) as u64
            }),
        ];
        for (name, help, read) in gauges {
            let mut family = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
            for backend in self.0.iter() {
                let labels = [("backend", backend.address.to_string())];
                ConstGauge::new(read(backend) as i64).encode(family.encode_family(&labels)?)?;
            }
        }
        let counters: [(&str, &str, Read); 2] = [
            (
                "barque_proxy_connections_carried",
                "Connections carried since the start",
                |b| b.connections_total.load(Ordering::Relaxed),
            ),
            (
                "barque_proxy_connect_failures",
                "Connections that the backend did not take",
                |b| b.connect_failures_total.load(Ordering::Relaxed),
            ),
        ];
        for (name, help, read) in counters {
            let mut family = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
            for backend in self.0.iter() {
                let labels = [("backend", backend.address.to_string())];
                ConstCounter::new(read(backend)).encode(family.encode_family(&labels)?)?;
            }
        }
        Ok(())
    }
}
