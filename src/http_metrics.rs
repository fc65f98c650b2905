//! `/metrics` in Prometheus' text form, and the figures that every process has.

use std::{convert::Infallible, fs, sync::Arc, time::Duration};

use barque_entrance::{Bounds, Entrance, Figures};
use http::{Request, Response, StatusCode, header::CONTENT_TYPE};
use http_body_util::Full;
use hyper::{
    body::{Bytes, Incoming},
    service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeMetric, text::encode},
    metrics::{MetricType, counter::ConstCounter, gauge::ConstGauge},
    registry::Registry,
};
use tokio::net::TcpListener;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

pub const TEXT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
const HEADER_TIMEOUT: Duration = Duration::from_secs(10);
/// Of a page that one or two collectors fetch.
const CONNECTIONS: usize = 100;
const NEWCOMERS: usize = 50;

pub fn render(registry: &Registry) -> Result<String, std::fmt::Error> {
    let mut text = String::with_capacity(16 * 1024);
    encode(&mut text, registry)?;
    Ok(text)
}

/// A listener that knows this one page.
pub async fn serve(listener: TcpListener, registry: Arc<Registry>, stop: CancellationToken) {
    let connections = TaskTracker::new();
    let entrance = Entrance::new("metrics", Bounds::shared(NEWCOMERS, CONNECTIONS, HEADER_TIMEOUT));
    loop {
        let accepted = tokio::select! {
            () = stop.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        let Some(visitor) = entrance.admit(accepted).await else {
            continue;
        };
        let (registry, ticket) = (registry.clone(), visitor.ticket());
        let service = service_fn(move |request: Request<Incoming>| {
            ticket.settle();
            let response = page(&registry, request.uri().path());
            async move { Ok::<_, Infallible>(response) }
        });
        let connection = hyper::server::conn::http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEADER_TIMEOUT)
            .serve_connection(TokioIo::new(visitor), service);
        let stop = stop.clone();
        connections.spawn(async move {
            tokio::select! {
                () = stop.cancelled() => {}
                _closed = connection => {}
            }
        });
    }
}

fn page(registry: &Registry, path: &str) -> Response<Full<Bytes>> {
    let rendered = if path == "/metrics" {
        render(registry).map_err(|_| StatusCode::INTERNAL_SERVER_ERROR)
    } else {
        Err(StatusCode::NOT_FOUND)
    };
    match rendered {
        Ok(text) => {
            let mut response = Response::new(Full::from(text));
            response
                .headers_mut()
                .insert(CONTENT_TYPE, http::HeaderValue::from_static(TEXT_TYPE));
            response
        }
        Err(status) => {
            let mut response = Response::new(Full::from(""));
            *response.status_mut() = status;
            response
        }
    }
}

/// Writes what listeners hold and have closed, by the name of their room.
pub fn encode_entrances(
    encoder: &mut DescriptorEncoder,
    rooms: &[(&'static str, Figures)],
) -> Result<(), std::fmt::Error> {
    type Read = fn(&Figures) -> u64;
    let gauges: [(&str, &str, Read); 2] = [
        ("barque_connections", "Connections open now", |f| f.connections),
        (
            "barque_connections_new",
            "Connections that have not sent their first request yet",
            |f| f.newcomers,
        ),
    ];
    for (name, help, read) in gauges {
        let mut family = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
        for (room, figures) in rooms {
            let value = i64::try_from(read(figures)).unwrap_or(i64::MAX);
            ConstGauge::new(value).encode(family.encode_family(&[("listener", *room)])?)?;
        }
    }
    let reasons: [(&str, Read); 4] = [
        ("full", |f| f.refused),
        ("displaced", |f| f.displaced),
        ("late", |f| f.late),
        ("handshake", |f| f.failed_handshakes),
    ];
    let help = "Connections closed before their first request, by reason";
    let mut family =
        encoder.encode_descriptor("barque_connections_closed", help, None, MetricType::Counter)?;
    for (room, figures) in rooms {
        for (reason, read) in reasons {
            let labels = [("listener", *room), ("reason", reason)];
            ConstCounter::new(read(figures)).encode(family.encode_family(&labels)?)?;
        }
    }
    Ok(())
}

/// The `process_*` figures, read from /proc at each scrape.
#[derive(Debug)]
pub struct ProcessMetrics;

impl Collector for ProcessMetrics {
    fn encode(&self, mut encoder: DescriptorEncoder) -> Result<(), std::fmt::Error> {
        // Without /proc there is nothing to tell; the page has the rest.
        let Some(sample) = ProcessSample::read() else {
            return Ok(());
        };
        let cpu = ConstCounter::new(sample.cpu_s);
        cpu.encode(encoder.encode_descriptor(
            "process_cpu_seconds",
            "User and system CPU time",
            None,
            cpu.metric_type(),
        )?)?;
        let gauges = [
            (
                "process_resident_memory_bytes",
                "Resident memory",
                sample.resident_bytes,
            ),
            (
                "process_virtual_memory_bytes",
                "Virtual memory",
                sample.virtual_bytes,
            ),
            ("process_open_fds", "Open file descriptors", sample.open_fds),
            ("process_max_fds", "Most file descriptors allowed", sample.max_fds),
            ("process_threads", "Threads", sample.threads),
        ];
        for (name, help, value) in gauges {
            let metric = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
            ConstGauge::new(value).encode(metric)?;
        }
        Ok(())
    }
}

struct ProcessSample {
    cpu_s: f64,
    resident_bytes: i64,
    virtual_bytes: i64,
    open_fds: i64,
    max_fds: i64,
    threads: i64,
}

impl ProcessSample {
    fn read() -> Option<Self> {
        let stat = fs::read_to_string("/proc/self/stat").ok()?;
        // The second field is the program's name in parentheses and may hold anything.
        let fields: Vec<&str> = stat.rsplit_once(") ")?.1.split(' ').collect();
        let number = |at: usize| fields.get(at - 3)?.parse::<i64>().ok();
        let ticks_per_s = rustix::param::clock_ticks_per_second() as f64;
        let page_bytes = i64::try_from(rustix::param::page_size()).ok()?;
        let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile);
        Some(Self {
            cpu_s: (number(14)? + number(15)?) as f64 / ticks_per_s,
            threads: number(20)?,
            virtual_bytes: number(23)?,
            resident_bytes: number(24)? * page_bytes,
            open_fds: i64::try_from(fs::read_dir("/proc/self/fd").ok()?.count()).ok()?,
            max_fds: limit
                .current
                .and_then(|n| i64::try_from(n).ok())
                .unwrap_or(i64::MAX),
        })
    }
}
