//! Watches of one key that is put at a fixed rate; what is timed is put to receipt: [`FanOut`].

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context, bail};
use barque_proto::etcd::etcdserverpb::{
    PutRequest, WatchCreateRequest, WatchRequest, WatchResponse, kv_client::KvClient,
    watch_client::WatchClient, watch_request::RequestUnion,
};
use bytes::Bytes;
use tokio::{
    sync::{mpsc, watch},
    task::JoinSet,
    time::{MissedTickBehavior, interval, timeout},
};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Streaming, transport::Channel};

use super::{Outcome, Pace, Workload};
use crate::{connect::Peer, latency::Latency};

const KEY: Bytes = Bytes::from_static(b"bench/watched");
const VALUE_BYTES: usize = 256;
const PUTS_PER_SECOND: u32 = 20;
const PATIENCE: Duration = Duration::from_secs(60);

pub struct FanOut {
    writer: KvClient<Channel>,
    streams: Vec<Stream>,
    pace: Pace,
    origin: Arc<Instant>,
}

/// One Watch RPC with some of the watches; dropping the sender would end it.
struct Stream {
    _requests: mpsc::Sender<WatchRequest>,
    responses: Streaming<WatchResponse>,
    watches: u64,
}

impl FanOut {
    pub async fn prepare(workload: &Workload, peer: &Peer, pace: Pace) -> anyhow::Result<FanOut> {
        let mut channels = peer.connect(workload.connections + 1).await?;
        let writer = KvClient::new(channels.pop().context("one more was asked for")?);
        let mut opening = JoinSet::new();
        for (number, channel) in channels.into_iter().enumerate() {
            // The first connections take what does not divide evenly.
            let extra = usize::from(number < workload.clients % workload.connections);
            opening.spawn(open(channel, workload.clients / workload.connections + extra));
        }
        let mut streams = Vec::new();
        while let Some(stream) = opening.join_next().await {
            streams.push(stream??);
        }
        Ok(FanOut {
            writer,
            streams,
            pace,
            origin: Arc::new(Instant::now()),
        })
    }

    pub async fn run(&mut self, mut mark: impl FnMut() -> anyhow::Result<()>) -> anyhow::Result<Outcome> {
        let count = |time: Duration| (time.as_secs_f64() * f64::from(PUTS_PER_SECOND)).ceil() as u64;
        let (warm_up, measured) = (count(self.pace.warm_up), count(self.pace.measured));
        let (warm, mut warmed) = watch::channel(0_usize);
        let mut receivers = JoinSet::new();
        let total = self.streams.len();
        for stream in self.streams.drain(..) {
            receivers.spawn(receive(
                stream,
                warm_up,
                measured,
                self.origin.clone(),
                warm.clone(),
            ));
        }
        let mut ticks = interval(Duration::from_secs(1) / PUTS_PER_SECOND);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        for _ in 0..warm_up {
            ticks.tick().await;
            self.put().await?;
        }
        // What was put to warm up has arrived everywhere, so that its cost is not counted.
        timeout(PATIENCE, warmed.wait_for(|&done| done == total))
            .await
            .context("warming up")??;
        mark()?;
        let start = Instant::now();
        for _ in 0..measured {
            ticks.tick().await;
            self.put().await?;
        }
        let mut latency = Latency::new();
        while let Some(received) = timeout(PATIENCE, receivers.join_next())
            .await
            .context("events are missing")?
        {
            latency.merge(&received??);
        }
        let elapsed = start.elapsed();
        mark()?;
        Ok(Outcome {
            operations: latency.count(),
            writes: warm_up + measured,
            elapsed,
            latency,
        })
    }

    async fn put(&mut self) -> anyhow::Result<()> {
        let sent = u64::try_from(self.origin.elapsed().as_nanos())?;
        let mut value = sent.to_be_bytes().to_vec();
        value.resize(VALUE_BYTES, b'v');
        self.writer
            .put(PutRequest {
                key: KEY,
                value: value.into(),
                ..PutRequest::default()
            })
            .await?;
        Ok(())
    }
}

async fn open(channel: Channel, watches: usize) -> anyhow::Result<Stream> {
    let (requests, receiver) = mpsc::channel(watches.max(1));
    for _ in 0..watches {
        let create = WatchCreateRequest {
            key: KEY,
            ..WatchCreateRequest::default()
        };
        requests.try_send(WatchRequest {
            request_union: Some(RequestUnion::CreateRequest(create)),
        })?;
    }
    let mut client = WatchClient::new(channel);
    let mut responses = client.watch(ReceiverStream::new(receiver)).await?.into_inner();
    for _ in 0..watches {
        let response = responses.message().await?.context("the watch ended")?;
        if !response.created || response.canceled {
            bail!("not created: {response:?}");
        }
    }
    Ok(Stream {
        _requests: requests,
        responses,
        watches: watches as u64,
    })
}

/// Every watch of the stream must receive every put; then how long each took.
async fn receive(
    mut stream: Stream,
    warm_up: u64,
    measured: u64,
    origin: Arc<Instant>,
    warm: watch::Sender<usize>,
) -> anyhow::Result<Latency> {
    let mut latency = Latency::new();
    let (warm_up, total) = (warm_up * stream.watches, (warm_up + measured) * stream.watches);
    let mut received = 0;
    while received < total {
        let response = stream.responses.message().await?.context("the watch ended")?;
        let now = origin.elapsed();
        for event in response.events {
            received += 1;
            if received > warm_up {
                let kv = event.kv.context("an event without its key")?;
                let sent = kv
                    .value
                    .get(..8)
                    .context("a value without its time")?
                    .try_into()?;
                latency.record(now.saturating_sub(Duration::from_nanos(u64::from_be_bytes(sent))));
            }
            if received == warm_up {
                warm.send_modify(|done| *done += 1);
            }
        }
    }
    Ok(latency)
}
