//! One watch stream: everything that can happen to it, in one place and one order.
//!
//! The stream owns its subscriber, its registry and its outbox; nobody else touches them. Whatever leaves goes
//! through the outbox, which is empty before anything new is looked at, so created precedes events, events
//! precede the progress that speaks of them, and a stream that is not read holds one drain, whatever its client asks for
//! meanwhile: its requests are not taken in either.
//!
//! One thing may be larger: a revision that is too large for a drain, for a watcher without fragments, which wants it in
//! one response. From [`ROOM_BYTES`] on such a response needs one of few places, which are the store's for all streams.

use std::{
    pin::Pin,
    sync::{Arc, atomic::Ordering::Relaxed},
    task::{Context, Poll, ready},
};

use barque_proto::etcd::etcdserverpb::{WatchCreateRequest, WatchRequest, watch_request::RequestUnion};
use barque_store::{
    Revision, StoreError,
    watch::{Changes, Delivery, Matched, Subscriber, WatchId},
};
use futures_util::{FutureExt, Stream, StreamExt, future::BoxFuture};
use tokio::sync::OwnedSemaphorePermit;
use tonic::{Code, Status};

use super::{
    frame::Frame,
    outbox::{Delivered, Outbox},
    progress::ProgressTimer,
    registry::{NO_WATCH, Registry},
};
use crate::{
    Error, Method, planted,
    server::{Shared, at_length},
};

/// How many bytes of events one look at the hub takes, over all watchers.
const DRAIN_BYTES: usize = 256 * 1024;
/// Requests taken in before events, and other tasks, get their turn: not every request has an answer to wait for.
const REQUESTS_IN_A_ROW: usize = 64;
/// A response that is put together from parts needs a place to grow beyond this.
const ROOM_BYTES: usize = 4 << 20;

pub(crate) struct WatchStream<R> {
    shared: Arc<Shared>,
    requests: R,
    /// The client closed its half. As in etcd, what it watches goes on until it leaves.
    requests_ended: bool,
    requests_in_a_row: usize,
    end: BoxFuture<'static, Error>,
    source: Source,
    registry: Registry,
    timer: ProgressTimer,
    /// The client asked for progress, and events that came before are still to be drained.
    progress_requested: bool,
    outbox: Outbox,
    deliveries: Vec<Delivery>,
    /// While a response beyond [`ROOM_BYTES`] is put together or sent.
    room: Option<OwnedSemaphorePermit>,
    state: State,
}

/// Where events come from.
enum Source {
    Ready(Box<Subscriber>),
    /// Reading history from disk, elsewhere.
    Reading(BoxFuture<'static, Result<CaughtUp, Error>>),
    /// Only while it moves from one to the other.
    Moving,
}

struct CaughtUp {
    subscriber: Box<Subscriber>,
    deliveries: Vec<Delivery>,
    room: Option<OwnedSemaphorePermit>,
}

enum State {
    Open,
    Closing(Status),
    Closed,
}

impl<R> WatchStream<R>
where
    R: Stream<Item = Result<WatchRequest, Status>> + Unpin,
{
    pub fn new(shared: Arc<Shared>, requests: R, end: BoxFuture<'static, Error>) -> Self {
        shared.metrics.watch_streams.fetch_add(1, Relaxed);
        Self {
            source: Source::Ready(Box::new(shared.replica.store().hub().subscribe())),
            registry: Registry::new(shared.config.max_watchers_per_stream),
            timer: ProgressTimer::new(shared.config.watch_progress_notify_interval),
            shared,
            requests,
            requests_ended: false,
            requests_in_a_row: 0,
            end,
            progress_requested: false,
            outbox: Outbox::default(),
            deliveries: Vec::new(),
            room: None,
            state: State::Open,
        }
    }

    /// Does the next thing that there is to do; pending when there is nothing. Called with an empty outbox.
    fn poll_step(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if let Poll::Ready(error) = self.end.poll_unpin(cx) {
            return self.close(error.into());
        }
        if let Source::Reading(reading) = &mut self.source {
            return match ready!(reading.poll_unpin(cx)) {
                Ok(caught_up) => {
                    self.source = Source::Ready(caught_up.subscriber);
                    self.room = self.room.take().or(caught_up.room);
                    self.deliver(caught_up.deliveries);
                    Poll::Ready(())
                }
                Err(error) => self.close(error.into()),
            };
        }
        match self.poll_request(cx) {
            Poll::Ready(Some(Ok(request))) => {
                self.handle(request);
                return Poll::Ready(());
            }
            Poll::Ready(Some(Err(status))) => return self.close(status),
            Poll::Ready(None) => self.requests_ended = true,
            Poll::Pending => {}
        }
        if self.subscriber().poll_ready(cx).is_ready() {
            return self.drain();
        }
        if std::mem::take(&mut self.progress_requested) {
            self.answer_progress();
            return Poll::Ready(());
        }
        ready!(self.timer.poll_tick(cx));
        self.tick();
        Poll::Ready(())
    }

    fn poll_request(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<WatchRequest, Status>>> {
        if self.requests_ended {
            return Poll::Pending;
        }
        if self.requests_in_a_row == REQUESTS_IN_A_ROW {
            self.requests_in_a_row = 0;
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        let polled = self.requests.poll_next_unpin(cx);
        self.requests_in_a_row = match polled {
            Poll::Ready(_) => self.requests_in_a_row + 1,
            Poll::Pending => 0,
        };
        polled
    }

    /// Only while nothing is being read: a stream that reads looks at nothing else.
    fn subscriber(&mut self) -> &mut Subscriber {
        match &mut self.source {
            Source::Ready(subscriber) => subscriber,
            Source::Reading(_) | Source::Moving => panic!("broken invariant: the subscriber is away"),
        }
    }

    fn close(&mut self, status: Status) -> Poll<()> {
        self.state = State::Closing(status);
        Poll::Ready(())
    }

    fn handle(&mut self, request: WatchRequest) {
        match request.request_union {
            Some(RequestUnion::CreateRequest(request)) => self.create(request),
            Some(RequestUnion::CancelRequest(request)) => self.cancel(request.watch_id),
            Some(RequestUnion::ProgressRequest(_)) if planted("progress-before-events") => {
                let frame = Frame::new(self.shared.current_header(), NO_WATCH);
                self.outbox.push(frame);
            }
            // Not at once: what the hub has for this stream goes first.
            Some(RequestUnion::ProgressRequest(_)) => self.progress_requested = true,
            None => tracing::debug!("a watch request that is none was ignored"),
        }
    }

    fn create(&mut self, request: WatchCreateRequest) {
        let progress_notify = request.progress_notify;
        let mut frame = match self.registry.create(request) {
            Ok(spec) => {
                let id = spec.id;
                let revision = self.subscriber().add(spec);
                if let Some(watcher) = self.registry.get_mut(id) {
                    watcher.created_at = revision;
                }
                self.shared.metrics.watchers.fetch_add(1, Relaxed);
                if progress_notify {
                    self.timer.start();
                }
                Frame::new(self.shared.header(revision), id)
            }
            Err(reason) => {
                let mut frame = Frame::canceled(self.shared.current_header(), NO_WATCH);
                frame.cancel_reason = reason;
                frame
            }
        };
        frame.created = true;
        self.outbox.push(frame);
    }

    /// An unknown id gets no reply.
    fn cancel(&mut self, id: WatchId) {
        if self.registry.remove(id) {
            self.subscriber().remove(id);
            self.outbox.forget(id);
            self.shared.metrics.watchers.fetch_sub(1, Relaxed);
            self.outbox
                .push(Frame::canceled(self.shared.current_header(), id));
        }
    }

    fn drain(&mut self) -> Poll<()> {
        if self.subscriber().is_catching_up() {
            self.read_history();
            return Poll::Ready(());
        }
        let mut deliveries = std::mem::take(&mut self.deliveries);
        match self.subscriber().drain(DRAIN_BYTES, &mut deliveries) {
            Ok(_) => {
                self.deliver(deliveries);
                // A busy stream is never without work; what it was given now may be spoken of now.
                if self.progress_requested && self.answer_progress() {
                    self.progress_requested = false;
                }
                Poll::Ready(())
            }
            Err(error) => self.close(failed(error).into()),
        }
    }

    /// The subscriber goes to a thread for blocking work and comes back with what it found.
    fn read_history(&mut self) {
        let Source::Ready(mut subscriber) = std::mem::replace(&mut self.source, Source::Moving) else {
            panic!("broken invariant: the subscriber is away");
        };
        let shared = Arc::clone(&self.shared);
        let mut deliveries = std::mem::take(&mut self.deliveries);
        shared.metrics.watch_catch_up_reads.fetch_add(1, Relaxed);
        let needs_room = self.room.is_none() && self.outbox.partial_bytes() > ROOM_BYTES;
        self.source = Source::Reading(Box::pin(async move {
            let room = match needs_room {
                true => Some(shared.room_for_large_responses().await?),
                false => None,
            };
            let read = move || {
                subscriber.drain(DRAIN_BYTES, &mut deliveries).map_err(failed)?;
                Ok(CaughtUp {
                    subscriber,
                    deliveries,
                    room,
                })
            };
            at_length(&shared.catch_ups, read).await
        }));
    }

    /// Puts what was drained into the outbox: one frame for each watcher and as many revisions as fit.
    fn deliver(&mut self, mut deliveries: Vec<Delivery>) {
        let several = spans_revisions(&deliveries);
        for delivery in deliveries.drain(..) {
            match delivery {
                Delivery::Events {
                    watch,
                    changes,
                    matched,
                    is_part,
                } => self.events(watch, &changes, &matched, is_part, several),
                Delivery::Compacted {
                    watch,
                    compact_revision,
                } => self.compacted(watch, compact_revision),
            }
        }
        self.deliveries = deliveries;
        self.outbox
            .finish(&self.registry, self.shared.config.max_message_bytes());
    }

    fn events(&mut self, id: WatchId, changes: &Changes, matched: &Matched, is_part: bool, several: bool) {
        let Some(watcher) = self.registry.get_mut(id) else {
            return;
        };
        watcher.idle = false;
        // While it catches up its events are older than what `created` told, and headers never go back.
        let told = changes.revision.max(watcher.created_at);
        let delivered = Delivered {
            id,
            watcher: *watcher,
            header: self.shared.header(told),
            changes,
            matched,
            is_part,
        };
        self.outbox
            .add(&delivered, several, self.shared.config.max_message_bytes());
    }

    fn compacted(&mut self, id: WatchId, compact_revision: Revision) {
        if self.registry.remove(id) {
            self.shared.metrics.watchers.fetch_sub(1, Relaxed);
            self.shared.metrics.watchers_compacted.fetch_add(1, Relaxed);
            self.outbox.forget(id);
            let mut frame = Frame::canceled(self.shared.current_header(), id);
            frame.compact_revision = compact_revision.0;
            self.outbox.push(frame);
        }
    }

    /// Everything up to the cursor is sent. `false`: a stream with a watcher that lags, or that has not reached its start
    /// yet, gets no answer, nor one without watchers; its client asks again.
    fn answer_progress(&mut self) -> bool {
        if self.registry.len() == 0 {
            return false;
        }
        if planted("progress-of-head") {
            let frame = Frame::new(self.shared.current_header(), NO_WATCH);
            self.outbox.push(frame);
            return true;
        }
        let synced = self.subscriber().synced_revision();
        if let Some(revision) = synced {
            self.outbox
                .push(Frame::new(self.shared.header(revision), NO_WATCH));
        }
        synced.is_some()
    }

    fn tick(&mut self) {
        let Source::Ready(subscriber) = &mut self.source else {
            return;
        };
        for (id, watcher) in self.registry.iter_mut() {
            let due = watcher.progress_notify && std::mem::replace(&mut watcher.idle, true);
            if due && let Some(revision) = subscriber.watcher_synced_revision(id) {
                self.outbox.push(Frame::new(self.shared.header(revision), id));
            }
        }
    }

    fn sent(&self, frame: &Frame) {
        self.shared.metrics.watch_responses_sent.fetch_add(1, Relaxed);
        self.shared
            .metrics
            .events_sent
            .fetch_add(frame.events() as u64, Relaxed);
    }
}

impl<R> Stream for WatchStream<R>
where
    R: Stream<Item = Result<WatchRequest, Status>> + Unpin,
{
    type Item = Result<Frame, Status>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = self.get_mut();
        loop {
            if let Some(frame) = this.outbox.pop() {
                this.sent(&frame);
                return Poll::Ready(Some(Ok(frame)));
            }
            // Whoever polls again has passed on what it was given before.
            if this.outbox.partial_bytes() == 0 {
                this.room = None;
            }
            match std::mem::replace(&mut this.state, State::Closed) {
                State::Open => this.state = State::Open,
                State::Closed => return Poll::Ready(None),
                State::Closing(status) => {
                    this.shared.metrics.handled(Method::Watch, status.code());
                    return Poll::Ready(Some(Err(status)));
                }
            }
            ready!(this.poll_step(cx));
        }
    }
}

impl<R> Drop for WatchStream<R> {
    fn drop(&mut self) {
        self.shared.metrics.watch_streams.fetch_sub(1, Relaxed);
        self.shared
            .metrics
            .watchers
            .fetch_sub(self.registry.len() as i64, Relaxed);
        if !matches!(self.state, State::Closed) {
            // The client went away.
            self.shared.metrics.handled(Method::Watch, Code::Cancelled);
        }
    }
}

fn failed(error: StoreError) -> Error {
    tracing::error!(%error, "watch events could not be read");
    error.into()
}

fn spans_revisions(deliveries: &[Delivery]) -> bool {
    let mut revisions = deliveries.iter().filter_map(|delivery| match delivery {
        Delivery::Events { changes, .. } => Some(changes.revision),
        Delivery::Compacted { .. } => None,
    });
    let first = revisions.next();
    revisions.any(|revision| Some(revision) != first)
}
