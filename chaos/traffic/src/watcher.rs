//! A client that watches: for a while at one member, then onwards from there at another.

use std::time::Duration;

use barque_checks::history::{WatchKind, WatchRecord, WatchResponse};
use barque_proto::etcd::etcdserverpb as pb;
use pb::{
    WatchCreateRequest, WatchProgressRequest, WatchRequest, watch_client::WatchClient,
    watch_create_request::FilterType, watch_request::RequestUnion,
};
use rand::Rng;
use tokio::{
    sync::mpsc,
    time::{Instant, sleep, timeout, timeout_at},
};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;

use crate::{Plan, Recorder, Target, choice::Choice, translate};

const ASK_PROGRESS_EVERY: Duration = Duration::from_millis(700);

/// What stays the same from one member to the next.
struct Wanted {
    from: String,
    to: String,
    no_put: bool,
    no_delete: bool,
    prev_kv: bool,
    fragment: bool,
}

impl Wanted {
    fn choose(choice: &mut Choice, prefix: &str) -> Wanted {
        let (a, b) = (choice.key(), choice.key());
        let (from, to) = match choice.rng.random_range(0..4) {
            0 => (a, String::new()),
            1 => (a.clone().min(b.clone()), format!("{}\0", a.max(b))),
            _ => (prefix.to_owned(), format!("{prefix}\u{7f}")),
        };
        Wanted {
            from,
            to,
            no_put: choice.rng.random_bool(0.1),
            no_delete: choice.rng.random_bool(0.1),
            prev_kv: choice.rng.random_bool(0.4),
            fragment: choice.rng.random_bool(0.3),
        }
    }

    fn record(&self, client: u32, member: u32, next: i64, resumed_from: Option<i64>) -> WatchRecord {
        WatchRecord {
            client,
            member,
            from: self.from.clone(),
            to: self.to.clone(),
            start_revision: next,
            no_put: self.no_put,
            no_delete: self.no_delete,
            prev_kv: self.prev_kv,
            fragment: self.fragment,
            resumed_from,
            ..Default::default()
        }
    }

    fn create(&self, next: i64) -> WatchRequest {
        let filters = [
            (self.no_put, FilterType::Noput),
            (self.no_delete, FilterType::Nodelete),
        ];
        let filters = filters.into_iter().filter(|(on, _)| *on);
        WatchRequest {
            request_union: Some(RequestUnion::CreateRequest(WatchCreateRequest {
                key: self.from.clone().into(),
                range_end: self.to.clone().into(),
                start_revision: next,
                filters: filters.map(|(_, filter)| filter.into()).collect(),
                prev_kv: self.prev_kv,
                fragment: self.fragment,
                ..Default::default()
            })),
        }
    }
}

fn ask_progress() -> WatchRequest {
    WatchRequest {
        request_union: Some(RequestUnion::ProgressRequest(WatchProgressRequest {})),
    }
}

/// How far the watch is.
#[derive(Clone, Copy, Default)]
struct Place {
    /// Up to here every event was delivered; none: nothing is known yet.
    complete: Option<i64>,
    /// Where to begin when there is no such revision.
    start: i64,
}

impl Place {
    fn next(&self) -> i64 {
        self.complete.map_or(self.start, |complete| complete + 1)
    }
}

pub async fn run(number: u32, target: Target, plan: Plan, recorder: Recorder) {
    let mut choice = Choice::new(&plan, number);
    let wanted = Wanted::choose(&mut choice, &plan.prefix);
    let mut place = Place {
        complete: None,
        start: choice.rng.random_range(0..2),
    };
    while !recorder.is_stopping() {
        let member = choice.member(&target.members);
        let until = Instant::now() + Duration::from_millis(choice.rng.random_range(500..15_000));
        let record = wanted.record(number, member, place.next(), place.complete);
        let channel = (target.dial)(number, member);
        let mut client = WatchClient::new(channel).max_decoding_message_size(64 << 20);
        let (requests, stream) = mpsc::channel(4);
        drop(requests.try_send(wanted.create(place.next())));
        if plan.eager_progress && choice.rng.random_bool(0.5) {
            drop(requests.try_send(ask_progress()));
        }
        let opened = timeout(plan.timeout, client.watch(ReceiverStream::new(stream))).await;
        if let Ok(Ok(answers)) = opened {
            let watch = recorder.watch(record);
            let mut session = Session {
                watch,
                recorder: &recorder,
                target: &target,
                requests,
                place,
            };
            session.follow(answers.into_inner(), until).await;
            place = session.place;
        }
        sleep(Duration::from_millis(choice.rng.random_range(10..300))).await;
    }
}

/// One watch on one stream.
struct Session<'a> {
    watch: usize,
    recorder: &'a Recorder,
    target: &'a Target,
    requests: mpsc::Sender<WatchRequest>,
    place: Place,
}

impl Session<'_> {
    async fn follow(&mut self, mut answers: Streaming<pb::WatchResponse>, until: Instant) {
        while Instant::now() < until && !self.recorder.is_stopping() {
            let wake = (Instant::now() + ASK_PROGRESS_EVERY).min(until);
            match timeout_at(wake, answers.message()).await {
                Ok(Ok(Some(answer))) => {
                    if !self.saw(answer) {
                        return;
                    }
                }
                Ok(Ok(None) | Err(_)) => return,
                Err(_) => {
                    drop(self.requests.try_send(ask_progress()));
                }
            }
        }
    }

    /// `false`: the watch is over.
    fn saw(&mut self, answer: pb::WatchResponse) -> bool {
        let header_revision = translate::revision(&answer.header);
        let kind = kind(answer);
        let goes_on = !matches!(kind, WatchKind::Cancelled { .. });
        match &kind {
            WatchKind::Created if self.place.complete.is_none() && self.place.start == 0 => {
                // From now on: what was before is none of this watch's.
                self.place.complete = Some(header_revision);
            }
            WatchKind::Events {
                events,
                fragment: false,
            } => {
                let last = events.iter().map(|event| event.revision).max();
                self.place.complete = self.place.complete.max(last);
            }
            WatchKind::Progress => self.place.complete = self.place.complete.max(Some(header_revision)),
            WatchKind::Cancelled { compact_revision, .. } if *compact_revision > 0 => {
                self.place = Place {
                    complete: None,
                    start: *compact_revision,
                };
            }
            _ => {}
        }
        let response = WatchResponse {
            time: (self.target.now_us)(),
            header_revision,
            kind,
        };
        self.recorder.watched(self.watch, response);
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
