//! A client that watches, on one stream at a time: for a while at one member, then onwards from there at another.
//!
//! What one stream holds is a [`Session`]: one watch or many, each a [`Watched`] with its own place. Some read slowly, so
//! that events wait for them; some cancel a watch and go on with another from there.

use std::time::Duration;

use barque_checks::history::{WatchKind, WatchResponse};
use barque_proto::etcd::etcdserverpb as pb;
use pb::{
    WatchCancelRequest, WatchProgressRequest, WatchRequest, watch_client::WatchClient,
    watch_request::RequestUnion,
};
use rand::Rng;
use tokio::{
    sync::mpsc,
    time::{Instant, sleep, timeout, timeout_at},
};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;

use crate::{
    Plan, Recorder, Target,
    choice::Choice,
    translate,
    watched::{Watched, how_many},
};

const ASK_PROGRESS_EVERY: Duration = Duration::from_millis(700);
/// Requests that wait to be sent: all watches of a stream at once.
const REQUESTS: usize = 128;
/// By the server, of an answer that is about no watch alone.
const ALL_WATCHES: i64 = -1;

fn request(union: RequestUnion) -> WatchRequest {
    WatchRequest {
        request_union: Some(union),
    }
}

fn ask_progress() -> WatchRequest {
    request(RequestUnion::ProgressRequest(WatchProgressRequest {}))
}

pub async fn run(number: u32, target: Target, plan: Plan, recorder: Recorder) {
    let mut choice = Choice::new(&plan, number);
    let many = how_many(&mut choice, plan.watches);
    let mut watches: Vec<Watched> = (0..many)
        .map(|_| Watched::choose(&mut choice, &plan.prefix, many))
        .collect();
    // One that never stops reading is told everything as it comes.
    let reads_slowly = plan.watches > 1 && choice.rng.random_bool(0.3);
    while !recorder.is_stopping() {
        let member = choice.member(&target.members);
        let until = Instant::now() + Duration::from_millis(choice.rng.random_range(500..15_000));
        let channel = (target.dial)(number, member);
        let mut client = WatchClient::new(channel).max_decoding_message_size(64 << 20);
        let (requests, stream) = mpsc::channel(REQUESTS);
        let mut session = Session {
            client: number,
            member,
            recorder: &recorder,
            target: &target,
            requests,
            watches,
            next_id: 1,
            reads_slowly,
        };
        session.create_all();
        if plan.eager_progress && choice.rng.random_bool(0.5) {
            session.send(ask_progress());
        }
        let opened = timeout(plan.timeout, client.watch(ReceiverStream::new(stream))).await;
        if let Ok(Ok(answers)) = opened {
            session.note_all();
            session.follow(answers.into_inner(), until, &mut choice).await;
        }
        watches = session.end();
        sleep(Duration::from_millis(choice.rng.random_range(10..300))).await;
    }
}

/// The watches on one stream.
struct Session<'a> {
    client: u32,
    member: u32,
    recorder: &'a Recorder,
    target: &'a Target,
    requests: mpsc::Sender<WatchRequest>,
    watches: Vec<Watched>,
    /// Each watch on a stream has an ID that no other had.
    next_id: i64,
    reads_slowly: bool,
}

impl Session<'_> {
    fn send(&self, request: WatchRequest) {
        drop(self.requests.try_send(request));
    }

    fn create_all(&mut self) {
        for at in 0..self.watches.len() {
            self.create(at);
        }
    }

    fn create(&mut self, at: usize) {
        let id = self.next_id;
        self.next_id += 1;
        let create = self.watches[at].create(id);
        self.send(request(RequestUnion::CreateRequest(create)));
    }

    /// A stream that was never opened leaves no record.
    fn note_all(&mut self) {
        for at in 0..self.watches.len() {
            self.note(at);
        }
    }

    fn note(&mut self, at: usize) {
        let record = self.watches[at].record(self.client, self.member);
        self.watches[at].record = Some(self.recorder.watch(record));
    }

    fn end(mut self) -> Vec<Watched> {
        self.watches.iter_mut().for_each(Watched::leave);
        self.watches
    }

    async fn follow(
        &mut self,
        mut answers: Streaming<pb::WatchResponse>,
        until: Instant,
        choice: &mut Choice,
    ) {
        while Instant::now() < until && !self.recorder.is_stopping() {
            let wake = (Instant::now() + ASK_PROGRESS_EVERY).min(until);
            match timeout_at(wake, answers.message()).await {
                Ok(Ok(Some(answer))) => {
                    if !self.saw(answer) {
                        return;
                    }
                }
                Ok(Ok(None) | Err(_)) => return,
                Err(_) => self.send(ask_progress()),
            }
            if self.watches.len() > 1 && choice.rng.random_bool(0.01) {
                self.cancel_one(choice);
            }
            if self.reads_slowly && choice.rng.random_bool(0.02) {
                self.pause(choice).await;
            }
        }
    }

    /// Nothing is read for a while; before it or in it progress is asked for, while events wait.
    async fn pause(&self, choice: &mut Choice) {
        let mut wait = || Duration::from_millis(choice.rng.random_range(0..4000));
        let (before, after) = (wait(), wait());
        sleep(before).await;
        self.send(ask_progress());
        sleep(after).await;
    }

    fn cancel_one(&mut self, choice: &mut Choice) {
        let at = choice.rng.random_range(0..self.watches.len());
        if let Some(watch_id) = self.watches[at].cancel() {
            self.send(request(RequestUnion::CancelRequest(WatchCancelRequest {
                watch_id,
            })));
        }
    }

    /// `false`: the stream is of no more use.
    fn saw(&mut self, answer: pb::WatchResponse) -> bool {
        let (id, header_revision) = (answer.watch_id, translate::revision(&answer.header));
        let kind = kind(answer);
        let is_cancelled = matches!(kind, WatchKind::Cancelled { .. });
        let was_compacted = matches!(
            kind,
            WatchKind::Cancelled {
                compact_revision: 1..,
                ..
            }
        );
        let response = WatchResponse {
            time: (self.target.now_us)(),
            header_revision,
            kind,
        };
        if id == ALL_WATCHES {
            // What was refused is not said to be any of them.
            if !is_cancelled {
                let told = |watch: &&mut Watched| watch.is_created();
                let recorder = self.recorder;
                self.watches
                    .iter_mut()
                    .filter(told)
                    .for_each(|watch| watch.saw(&response, recorder));
            }
            return !is_cancelled;
        }
        let Some(at) = self.watches.iter().position(|watch| watch.id() == Some(id)) else {
            // Sent before the cancellation was read.
            return true;
        };
        self.watches[at].saw(&response, self.recorder);
        if !is_cancelled {
            return true;
        }
        let goes_on = self.watches[at].was_asked_to_end() || was_compacted;
        self.watches[at].leave();
        if goes_on {
            self.create(at);
            self.note(at);
        }
        goes_on
    }
}

pub fn kind(answer: pb::WatchResponse) -> WatchKind {
    if answer.canceled {
        return WatchKind::Cancelled {
            compact_revision: answer.compact_revision,
            reason: answer.cancel_reason,
        };
    }
    if answer.created {
        return WatchKind::Created;
    }
    match answer.events.is_empty() {
        true => WatchKind::Progress,
        false => WatchKind::Events {
            events: answer.events.into_iter().map(translate::event).collect(),
            fragment: answer.fragment,
        },
    }
}
