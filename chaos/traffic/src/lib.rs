//! Clients of the etcd API that keep a record of everything they did and saw.
//!
//! They speak gRPC to whatever a [`Target`] dials: members in a simulation, or real processes, ours and etcd's. What
//! they do is drawn from a seed; what they saw is a [`barque_checks::history::History`] for the checks.

mod caller;
mod choice;
mod client;
mod collector;
mod janitor;
mod outcome;
mod record;
mod tenant;
mod translate;
mod watched;
mod watcher;

use std::{sync::Arc, time::Duration};

use futures_util::future::BoxFuture;
use tonic::transport::Channel;

pub use collector::Collector;
pub use janitor::compact;
pub use record::Recorder;

/// The cluster that is called.
#[derive(Clone)]
pub struct Target {
    pub members: Vec<u32>,
    /// A connection to a member, opened when first used, for the client of this number.
    pub dial: Arc<dyn Fn(u32, u32) -> Channel + Send + Sync>,
    /// Microseconds since the run began.
    pub now_us: Arc<dyn Fn() -> u64 + Send + Sync>,
    /// Which life of a member's process answers now, where that is known.
    pub life: Arc<dyn Fn(u32) -> u32 + Send + Sync>,
}

/// What the clients do.
#[derive(Debug, Clone)]
pub struct Plan {
    pub seed: u64,
    /// Keys lie below this.
    pub prefix: String,
    pub keys: u32,
    pub clients: u32,
    /// Clients that only read: one at a leader that was cut off is not held up by a write.
    pub readers: u32,
    pub watchers: u32,
    /// Clients that hold leases.
    pub tenants: u32,
    pub compactions: bool,
    /// Watches on one stream, at most.
    pub watches: u32,
    /// Requests beyond the plain ones: compares over ranges, nested txns, deletes of ranges, sorts and filters.
    pub wide_requests: bool,
    /// Some values are so large that a client that reads slowly holds up its stream.
    pub large_values: bool,
    /// Some leases have dozens of keys, and some live for long.
    pub large_leases: bool,
    /// A client watches over the alarm of a small quota: it compacts and disarms.
    pub disarms: bool,
    /// Watches ask how far they are as soon as they are created. Older releases of etcd answer too early then.
    pub eager_progress: bool,
    /// Between two calls of a client, at most.
    pub pause: Duration,
    /// A call without an answer after this is given up.
    pub timeout: Duration,
}

/// Where a client's number is the start of its kind's.
const READERS: u32 = 50;
const WATCHERS: u32 = 100;
const TENANTS: u32 = 200;
const JANITOR: u32 = 300;
const COLLECTOR: u32 = 301;
const COMPACTOR: u32 = 302;
const CARETAKER: u32 = 303;

/// Tasks that run until they are dropped.
pub type Tasks = Vec<BoxFuture<'static, ()>>;

/// One task for each client; each goes on until `recorder` is told to stop.
pub fn tasks(target: &Target, plan: &Plan, recorder: &Recorder, collector: &Collector) -> Tasks {
    let mut tasks: Tasks = Vec::new();
    for number in 0..plan.clients {
        tasks.push(Box::pin(client::run(
            number,
            target.clone(),
            plan.clone(),
            recorder.clone(),
        )));
    }
    for number in READERS..READERS + plan.readers {
        tasks.push(Box::pin(client::only_read(
            number,
            target.clone(),
            plan.clone(),
            recorder.clone(),
        )));
    }
    for number in WATCHERS..WATCHERS + plan.watchers {
        tasks.push(Box::pin(watcher::run(
            number,
            target.clone(),
            plan.clone(),
            recorder.clone(),
        )));
    }
    for number in TENANTS..TENANTS + plan.tenants {
        tasks.push(Box::pin(tenant::run(
            number,
            target.clone(),
            plan.clone(),
            recorder.clone(),
        )));
    }
    if plan.compactions {
        tasks.push(Box::pin(janitor::run(
            JANITOR,
            target.clone(),
            plan.clone(),
            recorder.clone(),
            collector.clone(),
        )));
    }
    if plan.disarms {
        tasks.push(Box::pin(janitor::disarm(
            CARETAKER,
            target.clone(),
            plan.clone(),
            recorder.clone(),
            collector.clone(),
        )));
    }
    tasks.push(Box::pin(collector.clone().run(
        COLLECTOR,
        target.clone(),
        plan.clone(),
    )));
    tasks
}
