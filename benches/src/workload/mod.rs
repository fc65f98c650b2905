//! The workloads by name, and what a run of one yields: [`Workload`], [`Load`], [`Outcome`].

mod closed_loop;
mod fan_out;

use std::time::Duration;

use anyhow::Context;

use crate::{connect::Peer, latency::Latency};

pub use closed_loop::ClosedLoop;
pub use fan_out::FanOut;

/// What the clients do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Puts of 256 B on 10,000 keys, drawn at random.
    Put,
    /// Linearizable reads of one of 1,000 keys of 256 B.
    Get,
    /// What a Kubernetes apiserver does to create an object: put if absent, always new keys.
    Create,
    /// Watches of one key that is put at a fixed rate.
    FanOut,
}

#[derive(Debug, Clone, Copy)]
pub struct Workload {
    pub name: &'static str,
    pub kind: Kind,
    pub clients: usize,
    pub connections: usize,
}

pub const WORKLOADS: &[Workload] = &[
    Workload {
        name: "put-1",
        kind: Kind::Put,
        clients: 1,
        connections: 1,
    },
    Workload {
        name: "put-64",
        kind: Kind::Put,
        clients: 64,
        connections: 64,
    },
    Workload {
        name: "put-256",
        kind: Kind::Put,
        clients: 256,
        connections: 64,
    },
    Workload {
        name: "get-64",
        kind: Kind::Get,
        clients: 64,
        connections: 64,
    },
    Workload {
        name: "create-64",
        kind: Kind::Create,
        clients: 64,
        connections: 64,
    },
    Workload {
        name: "watch-10",
        kind: Kind::FanOut,
        clients: 1000,
        connections: 10,
    },
    Workload {
        name: "watch-1000",
        kind: Kind::FanOut,
        clients: 1000,
        connections: 1000,
    },
];

/// How long a run warms up, and how long it is measured.
#[derive(Debug, Clone, Copy)]
pub struct Pace {
    pub warm_up: Duration,
    pub measured: Duration,
}

/// What the clients saw while it was measured.
pub struct Outcome {
    /// Operations answered, or events received.
    pub operations: u64,
    /// Writes of the whole run, warming up included.
    pub writes: u64,
    pub elapsed: Duration,
    pub latency: Latency,
}

impl Outcome {
    pub fn per_second(&self) -> f64 {
        self.operations as f64 / self.elapsed.as_secs_f64()
    }
}

/// A workload whose connections stand and whose keys are there.
pub enum Load {
    Closed(ClosedLoop),
    FanOut(FanOut),
}

impl Load {
    /// Runs it once; `mark` is called at the start and at the end of what is measured.
    pub async fn run(&mut self, mark: impl FnMut() -> anyhow::Result<()>) -> anyhow::Result<Outcome> {
        match self {
            Load::Closed(load) => load.run(mark).await,
            Load::FanOut(load) => load.run(mark).await,
        }
    }
}

impl Workload {
    pub fn named(name: &str) -> anyhow::Result<&'static Workload> {
        let known = || {
            WORKLOADS
                .iter()
                .map(|workload| workload.name)
                .collect::<Vec<_>>()
                .join(", ")
        };
        WORKLOADS
            .iter()
            .find(|workload| workload.name == name)
            .with_context(|| format!("no workload `{name}`; there are {}", known()))
    }

    pub fn what(&self) -> String {
        let (clients, connections) = (self.clients, self.connections);
        match self.kind {
            Kind::Put => format!("put 256 B, {clients} clients on {connections} connections"),
            Kind::Get => format!("linearizable get of 256 B, {clients} clients on {connections} connections"),
            Kind::Create => {
                format!("txn put-if-absent of 256 B, {clients} clients on {connections} connections")
            }
            Kind::FanOut => format!("{clients} watches on {connections} connections, 20 puts/s"),
        }
    }

    pub async fn prepare(&self, peer: &Peer, pace: Pace) -> anyhow::Result<Load> {
        Ok(match self.kind {
            Kind::FanOut => Load::FanOut(FanOut::prepare(self, peer, pace).await?),
            _ => Load::Closed(ClosedLoop::prepare(self, peer, pace).await?),
        })
    }
}
