//! Clients that each wait for an answer before they ask again: [`ClosedLoop`].

use std::{
    sync::{
        Arc,
        atomic::{AtomicU8, AtomicU64, Ordering},
    },
    time::{Instant, SystemTime, UNIX_EPOCH},
};

use barque_proto::etcd::etcdserverpb::{
    Compare, PutRequest, RangeRequest, RequestOp, TxnRequest,
    compare::{CompareResult, CompareTarget, TargetUnion},
    kv_client::KvClient,
    request_op::Request,
};
use bytes::Bytes;
use rand::{Rng, SeedableRng, rngs::SmallRng};
use tokio::task::JoinSet;
use tonic::{Status, transport::Channel};

use super::{Kind, Outcome, Pace, Workload};
use crate::{connect::Peer, latency::Latency};

const VALUE_BYTES: usize = 256;
const PUT_KEYS: u32 = 10_000;
const GET_KEYS: u32 = 1_000;

// Phases of a run.
const WARMING_UP: u8 = 0;
const MEASURED: u8 = 1;
const OVER: u8 = 2;

pub struct ClosedLoop {
    kind: Kind,
    clients: usize,
    channels: Vec<Channel>,
    pace: Pace,
    keys: Arc<Keys>,
}

/// Names keys: those of a create are never drawn twice, over all runs on one cluster.
struct Keys {
    run: u128,
    created: AtomicU64,
}

impl ClosedLoop {
    pub async fn prepare(workload: &Workload, peer: &Peer, pace: Pace) -> anyhow::Result<ClosedLoop> {
        let channels = peer.connect(workload.connections.min(workload.clients)).await?;
        let run = SystemTime::now().duration_since(UNIX_EPOCH)?.as_nanos();
        let keys = Arc::new(Keys {
            run,
            created: AtomicU64::new(0),
        });
        if workload.kind == Kind::Get {
            let mut kv = KvClient::new(channels[0].clone());
            for number in 0..GET_KEYS {
                kv.put(put(key("get", number), &value())).await?;
            }
        }
        Ok(ClosedLoop {
            kind: workload.kind,
            clients: workload.clients,
            channels,
            pace,
            keys,
        })
    }

    pub async fn run(&mut self, mut mark: impl FnMut() -> anyhow::Result<()>) -> anyhow::Result<Outcome> {
        let phase = Arc::new(AtomicU8::new(WARMING_UP));
        let mut clients = JoinSet::new();
        for number in 0..self.clients {
            let client = Client {
                kind: self.kind,
                kv: KvClient::new(self.channels[number % self.channels.len()].clone()),
                random: SmallRng::seed_from_u64(number as u64),
                keys: self.keys.clone(),
                value: value(),
            };
            clients.spawn(client.run(phase.clone()));
        }
        tokio::time::sleep(self.pace.warm_up).await;
        mark()?;
        let start = Instant::now();
        phase.store(MEASURED, Ordering::Relaxed);
        tokio::time::sleep(self.pace.measured).await;
        phase.store(OVER, Ordering::Relaxed);
        let elapsed = start.elapsed();
        mark()?;
        let (mut latency, mut writes) = (Latency::new(), 0);
        while let Some(client) = clients.join_next().await {
            let (measured, performed) = client??;
            latency.merge(&measured);
            writes += if self.kind == Kind::Get { 0 } else { performed };
        }
        let operations = latency.count();
        Ok(Outcome {
            operations,
            writes,
            elapsed,
            latency,
        })
    }
}

struct Client {
    kind: Kind,
    kv: KvClient<Channel>,
    random: SmallRng,
    keys: Arc<Keys>,
    value: Bytes,
}

impl Client {
    /// Any error ends the run: a figure that counts failures as work is none.
    async fn run(mut self, phase: Arc<AtomicU8>) -> Result<(Latency, u64), Status> {
        let (mut latency, mut performed) = (Latency::new(), 0);
        loop {
            let start = Instant::now();
            self.operate().await?;
            performed += 1;
            match phase.load(Ordering::Relaxed) {
                WARMING_UP => {}
                MEASURED => latency.record(start.elapsed()),
                _ => return Ok((latency, performed)),
            }
        }
    }

    async fn operate(&mut self) -> Result<(), Status> {
        match self.kind {
            Kind::Get => {
                let key = key("get", self.random.random_range(0..GET_KEYS));
                let answer = self
                    .kv
                    .range(RangeRequest {
                        key,
                        ..RangeRequest::default()
                    })
                    .await?
                    .into_inner();
                expect(answer.kvs.len() == 1, "a key that was put is not there")
            }
            Kind::Create => {
                let answer = self.kv.txn(self.create()).await?.into_inner();
                expect(answer.succeeded, "a new key was there already")
            }
            Kind::Put | Kind::FanOut => {
                let key = key("put", self.random.random_range(0..PUT_KEYS));
                self.kv.put(put(key, &self.value)).await?;
                Ok(())
            }
        }
    }

    fn create(&self) -> TxnRequest {
        let number = self.keys.created.fetch_add(1, Ordering::Relaxed);
        let key = Bytes::from(format!("bench/create/{:x}/{number:010}", self.keys.run));
        let absent = Compare {
            result: CompareResult::Equal as i32,
            target: CompareTarget::Mod as i32,
            key: key.clone(),
            range_end: Bytes::new(),
            target_union: Some(TargetUnion::ModRevision(0)),
        };
        let put = RequestOp {
            request: Some(Request::RequestPut(put(key, &self.value))),
        };
        TxnRequest {
            compare: vec![absent],
            success: vec![put],
            failure: vec![],
        }
    }
}

fn expect(holds: bool, otherwise: &'static str) -> Result<(), Status> {
    if holds {
        Ok(())
    } else {
        Err(Status::internal(otherwise))
    }
}

fn key(group: &str, number: u32) -> Bytes {
    Bytes::from(format!("bench/{group}/{number:06}"))
}

/// Random bytes: nobody's compression should help.
fn value() -> Bytes {
    let mut value = vec![0; VALUE_BYTES];
    rand::rng().fill(&mut value[..]);
    value.into()
}

fn put(key: Bytes, value: &Bytes) -> PutRequest {
    PutRequest {
        key,
        value: value.clone(),
        ..PutRequest::default()
    }
}
