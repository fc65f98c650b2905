//! The watch over every key from the first revision on, from which the list of what was committed is made.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicI64, Ordering},
    },
    time::Duration,
};

use barque_checks::history::{Committed, WatchEvent, WatchKind};
use barque_proto::etcd::etcdserverpb as pb;
use parking_lot::Mutex;
use pb::{
    WatchCreateRequest, WatchProgressRequest, WatchRequest, watch_client::WatchClient,
    watch_request::RequestUnion,
};
use tokio::{
    sync::mpsc,
    time::{sleep, timeout},
};
use tokio_stream::wrappers::ReceiverStream;

use crate::{Plan, Target, choice::Choice, translate, watcher};

/// Without a word for so long, another member is asked.
const PATIENCE: Duration = Duration::from_secs(2);
const ASK_PROGRESS_EVERY: Duration = Duration::from_millis(300);

#[derive(Clone, Default)]
pub struct Collector {
    events: Arc<Mutex<Vec<WatchEvent>>>,
    /// Every event up to this revision is among them.
    collected: Arc<AtomicI64>,
    stopping: Arc<AtomicBool>,
}

impl Collector {
    pub fn collected(&self) -> i64 {
        self.collected.load(Ordering::Acquire)
    }

    pub fn stop(&self) {
        self.stopping.store(true, Ordering::Release);
    }

    /// What was committed, as far as it was collected.
    pub fn committed(&self) -> Committed {
        let events = self.events.lock().clone();
        Committed::from_events(1, Some(Vec::new()), events)
    }

    pub(crate) async fn run(self, number: u32, target: Target, plan: Plan) {
        let mut choice = Choice::new(&plan, number);
        while !self.stopping.load(Ordering::Acquire) {
            let member = choice.member(&target.members);
            let channel = (target.dial)(number, member);
            let client = WatchClient::new(channel).max_decoding_message_size(64 << 20);
            self.follow(client, &plan).await;
            sleep(Duration::from_millis(50)).await;
        }
    }

    async fn follow(&self, mut client: WatchClient<tonic::transport::Channel>, plan: &Plan) {
        let (requests, stream) = mpsc::channel(4);
        let create = RequestUnion::CreateRequest(WatchCreateRequest {
            key: plan.prefix.clone().into(),
            range_end: format!("{}\u{7f}", plan.prefix).into(),
            start_revision: self.collected() + 1,
            ..Default::default()
        });
        drop(requests.try_send(request(create)));
        let Ok(Ok(answers)) = timeout(PATIENCE, client.watch(ReceiverStream::new(stream))).await else {
            return;
        };
        let mut answers = answers.into_inner();
        let mut silent = Duration::ZERO;
        while silent < PATIENCE && !self.stopping.load(Ordering::Acquire) {
            match timeout(ASK_PROGRESS_EVERY, answers.message()).await {
                Ok(Ok(Some(answer))) => {
                    silent = Duration::ZERO;
                    let revision = translate::revision(&answer.header);
                    if !self.take(watcher::kind(answer), revision) {
                        return;
                    }
                }
                Ok(Ok(None) | Err(_)) => return,
                Err(_) => {
                    silent += ASK_PROGRESS_EVERY;
                    let ask = RequestUnion::ProgressRequest(WatchProgressRequest {});
                    drop(requests.try_send(request(ask)));
                }
            }
        }
    }

    fn take(&self, kind: WatchKind, header_revision: i64) -> bool {
        match kind {
            WatchKind::Created => {}
            WatchKind::Cancelled { .. } => return false,
            WatchKind::Progress => drop(self.collected.fetch_max(header_revision, Ordering::AcqRel)),
            WatchKind::Events { events, .. } => {
                let last = events.last().map_or(0, |event| event.revision);
                self.events.lock().extend(events);
                self.collected.fetch_max(last, Ordering::AcqRel);
            }
        }
        true
    }
}

fn request(union: RequestUnion) -> WatchRequest {
    WatchRequest {
        request_union: Some(union),
    }
}
