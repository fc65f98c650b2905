//! How many connections each kind of listener holds: [`Rooms`].

use std::time::Duration;

use barque_entrance::{Bounds, Entrance, Figures};

use super::listener::{IDLE_TIMEOUT, Manners, Terms};

/// For a TLS handshake and the head of the first request; kube-apiserver gives about as long.
const CLIENT_PATIENCE: Duration = Duration::from_secs(30);
/// Thousands of clients come back in the same second when a member dies, and two processors make about two thousand
/// handshakes in one: those that are waiting for theirs must not be taken for a flood. A silent one costs a
/// task of less than 1 KiB (`listener/tests.rs`) and its socket.
const CLIENT_NEWCOMERS: usize = 16 * 1024;
/// Operators and balancers get in when clients have taken all the rest.
const METRICS_CONNECTIONS: usize = 100;
const METRICS_NEWCOMERS: usize = 50;
const METRICS_PATIENCE: Duration = Duration::from_secs(10);
/// etcd leaves them unlimited, and has 100,000 watches on one stream. More than this one client never needs, and
/// clients wait for one that ends.
const CLIENT_STREAMS: u32 = 10_000;
/// kube-apiserver's is 250, or 100: its clients open another connection then. Not all others do.
const API_STREAMS: u32 = 1_000;
const METRICS_STREAMS: u32 = 100;

/// etcd's clients and those of the Kubernetes API share one room: what is limited is the process's descriptors.
#[derive(Clone)]
pub struct Rooms {
    pub client: Terms,
    pub api: Terms,
    pub metrics: Terms,
}

impl Rooms {
    /// `connections`: of clients.
    pub fn new(connections: usize) -> Self {
        let newcomers = CLIENT_NEWCOMERS.min(connections / 2).max(1);
        let clients = Entrance::new("client", Bounds::shared(newcomers, connections, CLIENT_PATIENCE));
        let metrics = Bounds::shared(METRICS_NEWCOMERS, METRICS_CONNECTIONS, METRICS_PATIENCE);
        Self {
            api: Terms {
                entrance: clients.beside("api"),
                manners: Manners {
                    streams: API_STREAMS,
                    idle_timeout: Some(IDLE_TIMEOUT),
                },
            },
            client: Terms {
                entrance: clients,
                manners: Manners {
                    streams: CLIENT_STREAMS,
                    // As etcd: its client may ask something at any time.
                    idle_timeout: None,
                },
            },
            metrics: Terms {
                entrance: Entrance::new("metrics", metrics),
                manners: Manners {
                    streams: METRICS_STREAMS,
                    idle_timeout: Some(IDLE_TIMEOUT),
                },
            },
        }
    }

    pub fn figures(&self) -> [(&'static str, Figures); 2] {
        [
            ("clients", self.client.entrance.figures()),
            ("metrics", self.metrics.entrance.figures()),
        ]
    }
}
