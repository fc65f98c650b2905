//! Watch streams that are not read, that get much at once, or that are closed by halves.

use futures_util::{StreamExt, stream};

use super::*;
use crate::watch::WatchStream;

/// What HTTP/2 lets a server send before the client has read any of it.
const WINDOW_BYTES: u32 = 65_535;

impl Member {
    /// A stream whose client buffers little.
    async fn narrow_watch(&self) -> Watching {
        let channel = Channel::from_shared(self.address.clone())
            .unwrap()
            .initial_stream_window_size(WINDOW_BYTES)
            .initial_connection_window_size(WINDOW_BYTES)
            .connect()
            .await
            .unwrap();
        self.watch_over(channel).await
    }

    /// So many keys of so many bytes, put and deleted at once; the revision that deleted them.
    async fn delete_many(&self, keys: usize, bytes: usize) -> i64 {
        let value = "v".repeat(bytes);
        for key in 0..keys {
            self.put(&format!("k{key:03}"), &value).await;
        }
        let delete = DeleteRangeRequest {
            key: "k".into(),
            range_end: "l".into(),
            prev_kv: false,
        };
        let deleted = self.kv().delete_range(delete).await.unwrap().into_inner();
        assert_eq!(deleted.deleted as usize, keys);
        deleted.header.unwrap().revision
    }
}

fn revision(response: &WatchResponse) -> i64 {
    response.header.unwrap().revision
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_closed_its_half_goes_on_watching() {
    let member = Member::start(EtcdConfig::default()).await;
    let mut stream = member.watch().await;
    stream.create(watch("k", "")).await;
    let Watching {
        requests,
        mut responses,
    } = stream;
    drop(requests);
    for _ in 0..2 {
        let put = member.put("k", "v").await;
        let response = responses.message().await.unwrap();
        let response = response.expect("the stream goes on");
        assert_eq!((response.events.len(), revision(&response)), (1, put));
    }
    member.server.shutdown().await;
    let ended = responses.message().await.unwrap_err();
    assert_eq!(ended.message(), "etcdserver: server stopped");
    member.stop().await;
}

/// Many watchers of one key and a client that reads late: what is handed out ahead of it is bounded by bytes, whatever
/// the number of watchers and revisions.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_stream_holds_does_not_grow_with_its_watchers() {
    const WATCHERS: usize = 1000;
    const PUTS: usize = 40;
    const AHEAD: u64 = 4000;
    let member = Member::start(EtcdConfig::default()).await;
    let mut stream = member.narrow_watch().await;
    for _ in 0..WATCHERS {
        stream.create(watch("k", "")).await;
    }
    for _ in 0..PUTS {
        member.put("k", "v").await;
    }
    let mut received = 0;
    let mut last = vec![1; WATCHERS];
    while received < (WATCHERS * PUTS) as u64 {
        let response = stream.next().await;
        received += response.events.len() as u64;
        for event in response.events {
            let last = &mut last[response.watch_id as usize];
            let revision = event.kv.unwrap().mod_revision;
            assert_eq!(revision, *last + 1, "watch {}", response.watch_id);
            *last = revision;
        }
        let handed_out = member.replica.store().hub().metrics().events_delivered;
        assert!(
            handed_out - received <= AHEAD,
            "{handed_out} handed out, {received} received"
        );
    }
    member.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn progress_speaks_of_what_was_sent_and_not_of_what_waits() {
    const PUTS: i64 = 30;
    let member = Member::start(EtcdConfig::default()).await;
    let mut stream = member.narrow_watch().await;
    stream.create(watch("k", "l")).await;
    let value = "v".repeat(15_000);
    // Keys of their own: all of it stays in the ring, which would count what they replace.
    for n in 0..PUTS {
        member.put(&format!("k{n:02}"), &value).await;
    }
    let mut told = 1;
    while told < PUTS + 1 {
        stream
            .send(RequestUnion::ProgressRequest(WatchProgressRequest {}))
            .await;
        let response = stream.next().await;
        if response.events.is_empty() {
            assert!(
                revision(&response) <= told,
                "progress to {} after {told}",
                revision(&response)
            );
        }
        for event in response.events {
            told += 1;
            assert_eq!(event.kv.unwrap().mod_revision, told);
        }
    }
    member.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_revision_that_was_read_in_parts_is_one_response_or_fragments() {
    let member = Member::start(EtcdConfig::default()).await;
    let deleted = member.delete_many(60, 100_000).await;
    let from = WatchCreateRequest {
        start_revision: deleted,
        prev_kv: true,
        ..watch("k", "l")
    };

    let mut whole = member.watch().await;
    whole.create(from.clone()).await;
    let response = whole.next().await;
    assert_eq!((response.events.len(), response.fragment), (60, false));
    assert_eq!(revision(&response), deleted);
    let is_whole =
        |event: &barque_proto::etcd::mvccpb::Event| event.prev_kv.as_ref().unwrap().value.len() == 100_000;
    assert!(response.events.iter().all(is_whole));

    let mut fragments = member.watch().await;
    fragments
        .create(WatchCreateRequest {
            fragment: true,
            ..from
        })
        .await;
    let (mut parts, mut keys) = (0, Vec::new());
    loop {
        let response = fragments.next().await;
        parts += 1;
        assert!(response.events.len() <= 20, "a message has a size");
        keys.extend(
            response
                .events
                .into_iter()
                .map(|event| text(&event.kv.unwrap().key)),
        );
        if !response.fragment {
            break;
        }
    }
    assert!(parts > 2, "{parts} parts");
    assert!(keys.iter().cloned().eq((0..60).map(|key| format!("k{key:03}"))));

    // After it both go on.
    let put = member.put("k", "v").await;
    for stream in [&mut whole, &mut fragments] {
        let response = stream.next().await;
        assert_eq!((response.events.len(), revision(&response)), (1, put));
    }
    member.stop().await;
}

/// A response of any size waits for one of few places; a watcher that is content with keys needs none.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn large_responses_wait_for_room() {
    let member = Member::start(EtcdConfig::default()).await;
    let deleted = member.delete_many(60, 100_000).await;
    let from = WatchCreateRequest {
        start_revision: deleted,
        ..watch("k", "l")
    };
    let places = Arc::clone(&member.server.shared.large_responses);
    let all = places
        .clone()
        .acquire_many_owned(places.available_permits() as u32);
    let taken = all.await.unwrap();

    let mut keys = member.watch().await;
    keys.create(from.clone()).await;
    assert_eq!(keys.next().await.events.len(), 60);

    let mut large = member.watch().await;
    large
        .create(WatchCreateRequest {
            prev_kv: true,
            ..from
        })
        .await;
    let waiting = tokio::time::timeout(Duration::from_millis(500), large.next()).await;
    assert!(waiting.is_err(), "there was no room for {waiting:?}");
    let count = taken.num_permits();
    drop(taken);
    assert_eq!(large.next().await.events.len(), 60);

    // The place is given back with the response, not with the stream.
    member.put("k", "v").await;
    assert_eq!(large.next().await.events.len(), 1);
    assert_eq!(places.available_permits(), count);
    member.stop().await;
}

/// One client that asks without end, in requests that have no answer, keeps neither its events nor other tasks back.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flood_of_requests_keeps_nothing_back() {
    let member = Member::start(EtcdConfig::default()).await;
    let request = |request| {
        Ok(WatchRequest {
            request_union: Some(request),
        })
    };
    let create = request(RequestUnion::CreateRequest(watch("k", "")));
    let unknown = move || request(RequestUnion::CancelRequest(WatchCancelRequest { watch_id: 77 }));
    let requests = stream::iter([create]).chain(stream::repeat_with(unknown));
    let shared = Arc::clone(&member.server.shared);
    let mut stream = WatchStream::new(shared, requests, Box::pin(std::future::pending()));
    assert!(stream.next().await.unwrap().unwrap().created);
    member.put("k", "v").await;
    assert_eq!(stream.next().await.unwrap().unwrap().events(), 1);
    drop(stream);
    member.stop().await;
}
