//! The body of a watch: initial state, events as frames, bookmarks, the end.
//!
//! A frame is made once per event and shape of change, and its bytes are shared by all watchers that see the
//! event alike. A slow client costs its cursor in the subscriber and one drained batch, never a queue.

use std::{
    collections::VecDeque,
    convert::Infallible,
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use barque_machinery::status::Status;
use barque_store::{
    KeyValue, Revision,
    watch::{Delivery, Event, EventKind, Subscriber},
};
use bytes::Bytes;
use http_body::{Body, Frame};
use serde_json::{Value, json};
use tokio::time::{Instant, Interval, MissedTickBehavior, Sleep};
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

use crate::{
    codec::{self, StoredRef},
    inflight::Admission,
    listing::{ItemWriter, Lister},
    metrics::ApiMetrics,
    negotiate::Shape,
    registry::{Clock, kv_ref},
    selection::{Selection, TermRef},
    tables::View,
};

pub struct WatchParts {
    /// Has one watcher, which starts where the initial state ends.
    pub subscriber: Subscriber,
    pub start: Start,
    pub view: View,
    pub selection: Selection,
    /// `None`: the client does not want bookmarks.
    pub bookmark_interval: Option<Duration>,
    pub timeout: Duration,
    /// What the ages in tables are counted from.
    pub now: Clock,
    pub shutdown: CancellationToken,
    pub metrics: Arc<ApiMetrics>,
    pub admission: Admission,
}

pub enum Start {
    Events,
    State {
        lister: Box<Lister>,
        writer: Box<ItemWriter>,
        wants_end_marker: bool,
    },
}

pub struct WatchBody {
    subscriber: Subscriber,
    start: Start,
    view: View,
    selection: Selection,
    bookmarks: Option<Interval>,
    deadline: Pin<Box<Sleep>>,
    shutdown: Pin<Box<WaitForCancellationFutureOwned>>,
    metrics: Arc<ApiMetrics>,
    now: Clock,
    _admission: Admission,
    queue: VecDeque<Bytes>,
    deliveries: Vec<Delivery>,
    is_over: bool,
}

/// What is taken from the subscriber, or listed, at once.
const BATCH_BYTES: usize = 64 * 1024;
/// Batches in which nothing was selected, before other tasks get their turn.
const MAX_EMPTY_BATCHES: usize = 16;

impl WatchBody {
    pub fn new(parts: WatchParts) -> Self {
        let bookmarks = parts.bookmark_interval.map(|period| {
            let mut interval = tokio::time::interval_at(Instant::now() + period, period);
            interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
            interval
        });
        Self {
            subscriber: parts.subscriber,
            start: parts.start,
            view: parts.view,
            selection: parts.selection,
            bookmarks,
            deadline: Box::pin(tokio::time::sleep(parts.timeout)),
            shutdown: Box::pin(parts.shutdown.cancelled_owned()),
            metrics: parts.metrics,
            now: parts.now,
            _admission: parts.admission,
            queue: VecDeque::new(),
            deliveries: Vec::new(),
            is_over: false,
        }
    }

    /// Lists a batch of the initial state; `false` when it is complete.
    fn list_more(&mut self) -> Result<bool, Status> {
        let Start::State {
            lister,
            writer,
            wants_end_marker,
        } = &mut self.start
        else {
            return Ok(false);
        };
        lister.fill(writer, BATCH_BYTES)?;
        let frames = writer.take()?;
        if !frames.is_empty() {
            self.queue.push_back(frames);
        }
        if lister.is_done() {
            if *wants_end_marker {
                let annotations = json!({ "k8s.io/initial-events-end": "true" });
                self.queue
                    .push_back(bookmark(&self.view, lister.revision(), Some(annotations)));
            }
            self.start = Start::Events;
        }
        Ok(true)
    }

    /// Turns what the subscriber has into frames; `true` when it has more at once.
    fn drain(&mut self) -> Result<bool, Status> {
        let mut deliveries = std::mem::take(&mut self.deliveries);
        let more = self
            .subscriber
            .drain(BATCH_BYTES, &mut deliveries)
            .map_err(Status::internal)?;
        for delivery in deliveries.drain(..) {
            match delivery {
                Delivery::Events { changes, matched, .. } => matched
                    .events(&changes)
                    .try_for_each(|event| self.push_event(event))?,
                Delivery::Compacted { compact_revision, .. } => {
                    let from = compact_revision.0;
                    return Err(Status::expired(format!(
                        "too old resource version: the history before {from} is gone"
                    )));
                }
            }
        }
        self.deliveries = deliveries;
        Ok(more)
    }

    fn push_event(&mut self, event: &Event) -> Result<(), Status> {
        let Some(change) = self.judge(event)? else {
            return Ok(());
        };
        let frame = if self.view.shape == Shape::Object {
            shared_frame(event, change)?
        } else {
            let object = self.view.one(change.stored(event)?, (self.now)())?;
            frame_of(change.name(), &object)
        };
        self.metrics.watch_events.add(1);
        self.queue.push_back(frame);
        Ok(())
    }

    /// What the event is to this watch: an object may enter or leave what is selected.
    fn judge(&self, event: &Event) -> Result<Option<Seen>, Status> {
        let is = match event.kind {
            EventKind::Put => self.selects(&event.kv)?,
            EventKind::Delete => false,
        };
        let put = event.kind == EventKind::Put;
        let was = match event.prev.exists() {
            false if put && event.kv.create_revision == event.kv.mod_revision => false,
            true if put && self.selection.is_everything() => true,
            _ => self.selects(self.previous(event)?)?,
        };
        Ok(match (was, is) {
            (false, true) => Some(Seen::Added),
            (true, true) => Some(Seen::Modified),
            (true, false) => Some(Seen::Deleted),
            (false, false) => None,
        })
    }

    /// What the object was before; large ones are read from disk by the first watcher that asks.
    fn previous<'e>(&self, event: &'e Event) -> Result<&'e KeyValue, Status> {
        let prev = self.subscriber.previous(event).map_err(Status::internal)?;
        // What it was is compacted, so it cannot be said how it changed: the client must list again.
        prev.ok_or_else(|| Status::expired("too old resource version: the previous version is gone"))
    }

    fn selects(&self, kv: &KeyValue) -> Result<bool, Status> {
        if self.selection.is_everything() {
            return Ok(true);
        }
        let terms: Vec<TermRef<'_>> = kv
            .terms
            .iter()
            .map(|t| (t.field.as_ref(), t.value.as_ref()))
            .collect();
        self.selection.matches(self.view.resource, kv_ref(kv), &terms)
    }

    fn push_bookmark(&mut self) {
        if let Some(revision) = self.subscriber.synced_revision() {
            self.queue.push_back(bookmark(&self.view, revision, None));
        }
    }

    fn fail(&mut self, status: &Status) {
        self.queue.push_back(error_frame(status));
        self.is_over = true;
    }

    /// Whether the watch is to end now, by its deadline or the server's.
    fn poll_end(&mut self, cx: &mut Context<'_>) -> bool {
        self.deadline.as_mut().poll(cx).is_ready() || self.shutdown.as_mut().poll(cx).is_ready()
    }

    /// Fills the queue; pending when there is nothing to send.
    fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if matches!(self.start, Start::State { .. }) {
            match self.list_more() {
                Ok(_) if !self.queue.is_empty() => return Poll::Ready(()),
                Ok(_) => {
                    cx.waker().wake_by_ref();
                    return Poll::Pending;
                }
                Err(status) => {
                    self.fail(&status);
                    return Poll::Ready(());
                }
            }
        }
        for _ in 0..MAX_EMPTY_BATCHES {
            if self.subscriber.poll_ready(cx).is_pending() {
                return self.poll_idle(cx);
            }
            if let Err(status) = self.drain() {
                self.fail(&status);
            }
            if !self.queue.is_empty() {
                return Poll::Ready(());
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// Nothing has happened: time for a bookmark, perhaps.
    fn poll_idle(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Some(interval) = &mut self.bookmarks else {
            return Poll::Pending;
        };
        if interval.poll_tick(cx).is_pending() {
            return Poll::Pending;
        }
        self.push_bookmark();
        // Registers for the next tick.
        if let Some(interval) = &mut self.bookmarks {
            let _ = interval.poll_tick(cx);
        }
        if self.queue.is_empty() {
            Poll::Pending
        } else {
            Poll::Ready(())
        }
    }
}

impl Body for WatchBody {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let this = &mut *self;
        loop {
            if let Some(frame) = this.queue.pop_front() {
                return Poll::Ready(Some(Ok(Frame::data(frame))));
            }
            if this.is_over {
                return Poll::Ready(None);
            }
            if this.poll_end(cx) {
                this.is_over = true;
                if this.bookmarks.is_some() && matches!(this.start, Start::Events) {
                    this.push_bookmark();
                }
                continue;
            }
            if this.poll_fill(cx).is_pending() {
                return Poll::Pending;
            }
        }
    }
}

/// How a watch sees an event; the index of the shared encoding.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Seen {
    Added = 0,
    Modified = 1,
    Deleted = 2,
}

impl Seen {
    fn name(self) -> &'static str {
        match self {
            Seen::Added => "ADDED",
            Seen::Modified => "MODIFIED",
            Seen::Deleted => "DELETED",
        }
    }

    /// The object to send: the last one that was selected, with the event's revision.
    fn stored(self, event: &Event) -> Result<StoredRef<'_>, Status> {
        let revision = event.kv.mod_revision.0;
        match self {
            Seen::Added | Seen::Modified => Ok(kv_ref(&event.kv)),
            Seen::Deleted => {
                let prev = event.prev.get();
                let prev = prev.ok_or_else(|| Status::internal("a deletion without the version before"))?;
                Ok(StoredRef {
                    revision,
                    ..kv_ref(prev)
                })
            }
        }
    }
}

/// The event's frame, made by the first watcher that needs it.
fn shared_frame(event: &Event, seen: Seen) -> Result<Bytes, Status> {
    let shared = &event.encodings.kubernetes[seen as usize];
    if let Some(frame) = shared.get() {
        return Ok(frame.clone());
    }
    // Checked before, so that what is made under the lock cannot fail.
    let stored = seen.stored(event)?;
    codec::check_readable(stored)?;
    let frame = shared.get_or_init(|| {
        let mut out = Vec::with_capacity(stored.value.len() + 96);
        match codec::splice_frame(&mut out, seen.name(), stored) {
            Ok(()) => out.into(),
            Err(status) => error_frame(&status),
        }
    });
    Ok(frame.clone())
}

fn bookmark(view: &View, revision: Revision, annotations: Option<Value>) -> Bytes {
    let mut metadata = json!({ "resourceVersion": revision.0.to_string() });
    if let Some(annotations) = annotations {
        metadata["annotations"] = annotations;
    }
    let resource = view.resource;
    let mut object = json!({ "kind": resource.kind, "apiVersion": resource.group_version.to_string(), "metadata": metadata });
    match view.shape {
        Shape::Object => {}
        Shape::PartialMetadata => {
            object = crate::tables::partial(&object);
        }
        Shape::Table => {
            object = view.empty_table(object["metadata"].take());
        }
    }
    frame_of("BOOKMARK", &object)
}

pub fn error_frame(status: &Status) -> Bytes {
    frame_of("ERROR", &status.to_value())
}

fn frame_of(kind: &str, object: &Value) -> Bytes {
    let mut frame = format!("{{\"type\":\"{kind}\",\"object\":{object}}}");
    frame.push('\n');
    frame.into()
}
