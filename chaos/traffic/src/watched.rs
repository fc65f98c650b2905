//! One watch of a client, over all the streams that it is created on: [`Watched`].

use barque_checks::history::{WatchKind, WatchRecord, WatchResponse};
use barque_proto::etcd::etcdserverpb::{WatchCreateRequest, watch_create_request::FilterType};
use rand::Rng;

use crate::{Recorder, choice::Choice};

/// How many watches on one stream: half of the streams have two, if there may be any, and some as many as may be.
pub fn how_many(choice: &mut Choice, most: u32) -> u32 {
    if most < 2 {
        return 1;
    }
    match choice.rng.random_range(0..20) {
        0..9 => 1,
        9..19 => 2,
        _ => most,
    }
}

/// Beyond so many a watch is of one key, so that a record of them all stays small.
const FEW: u32 = 3;

/// What stays the same from one member to the next.
struct Wanted {
    from: String,
    to: String,
    no_put: bool,
    no_delete: bool,
    prev_kv: bool,
    fragment: bool,
    progress_notify: bool,
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

/// What the watch is on the stream of now.
#[derive(Clone, Copy, Default)]
struct OnStream {
    id: i64,
    created: bool,
    asked_to_end: bool,
}

pub struct Watched {
    wanted: Wanted,
    place: Place,
    on_stream: Option<OnStream>,
    /// Of the history, as long as it is on a stream.
    pub record: Option<usize>,
}

impl Watched {
    /// `among`: how many there are on its stream.
    pub fn choose(choice: &mut Choice, prefix: &str, among: u32) -> Watched {
        Watched {
            wanted: Wanted::choose(choice, prefix, among),
            place: Place {
                complete: None,
                start: choice.rng.random_range(0..2),
            },
            on_stream: None,
            record: None,
        }
    }

    pub fn record(&self, client: u32, member: u32) -> WatchRecord {
        let wanted = &self.wanted;
        WatchRecord {
            client,
            member,
            from: wanted.from.clone(),
            to: wanted.to.clone(),
            start_revision: self.place.next(),
            no_put: wanted.no_put,
            no_delete: wanted.no_delete,
            prev_kv: wanted.prev_kv,
            fragment: wanted.fragment,
            resumed_from: self.place.complete,
            ..Default::default()
        }
    }

    /// The request that creates it on a stream.
    pub fn create(&mut self, id: i64) -> WatchCreateRequest {
        self.on_stream = Some(OnStream {
            id,
            ..OnStream::default()
        });
        let wanted = &self.wanted;
        let filters = [
            (wanted.no_put, FilterType::Noput),
            (wanted.no_delete, FilterType::Nodelete),
        ];
        let filters = filters.into_iter().filter(|(on, _)| *on);
        WatchCreateRequest {
            key: wanted.from.clone().into(),
            range_end: wanted.to.clone().into(),
            start_revision: self.place.next(),
            filters: filters.map(|(_, filter)| filter.into()).collect(),
            prev_kv: wanted.prev_kv,
            fragment: wanted.fragment,
            progress_notify: wanted.progress_notify,
            watch_id: id,
        }
    }

    pub fn id(&self) -> Option<i64> {
        self.on_stream.map(|on_stream| on_stream.id)
    }

    pub fn is_created(&self) -> bool {
        self.on_stream.is_some_and(|on_stream| on_stream.created)
    }

    /// The ID to cancel; `None`: it is not there yet, or was cancelled already.
    pub fn cancel(&mut self) -> Option<i64> {
        let on_stream = self.on_stream.as_mut()?;
        let cancels = on_stream.created && !on_stream.asked_to_end;
        on_stream.asked_to_end |= cancels;
        cancels.then_some(on_stream.id)
    }

    pub fn was_asked_to_end(&self) -> bool {
        self.on_stream.is_some_and(|on_stream| on_stream.asked_to_end)
    }

    /// It is on no stream any more.
    pub fn leave(&mut self) {
        (self.on_stream, self.record) = (None, None);
    }

    pub fn saw(&mut self, response: &WatchResponse, recorder: &Recorder) {
        let header_revision = response.header_revision;
        match &response.kind {
            WatchKind::Created => self.is_there(header_revision),
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
        if let Some(record) = self.record {
            recorder.watched(record, response.clone());
        }
    }

    fn is_there(&mut self, header_revision: i64) {
        if let Some(on_stream) = &mut self.on_stream {
            on_stream.created = true;
        }
        if self.place.complete.is_none() && self.place.start == 0 {
            // From now on: what was before is none of this watch's.
            self.place.complete = Some(header_revision);
        }
    }
}

impl Wanted {
    fn choose(choice: &mut Choice, prefix: &str, among: u32) -> Wanted {
        let (a, b) = (choice.key(), choice.key());
        let range = if among > FEW {
            0
        } else {
            choice.rng.random_range(0..4)
        };
        let (from, to) = match range {
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
            progress_notify: choice.rng.random_bool(0.3),
        }
    }
}
