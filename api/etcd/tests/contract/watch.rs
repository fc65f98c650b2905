//! Lines 19–25a: watches.

use barque_proto::etcd::{
    etcdserverpb::{DeleteRangeRequest, WatchCreateRequest, watch_create_request::FilterType},
    mvccpb::event::EventType,
};
use bytes::Bytes;

use crate::{
    client::{Target, always, op_delete, op_put, op_txn, put},
    watch_stream::{WatchStream, everything, from, mod_revision, since},
};

pub async fn created_comes_first(t: Target) {
    let first = t.put("k", "1").await;
    let second = t.put("k", "2").await;
    let mut stream = WatchStream::open(&t).await;
    stream.create(since(&t, first)).await;
    let created = stream.next().await;
    assert!(created.created && created.events.is_empty());
    assert_eq!(created.header.unwrap().revision, second);
    assert_eq!(stream.revisions(2).await, [first, second]);
}

pub async fn start_0_is_the_next_revision(t: Target) {
    t.put("k", "before").await;
    let mut stream = WatchStream::open(&t).await;
    stream.create(everything(&t)).await;
    stream.created().await;
    let after = t.put("k", "after").await;
    let response = stream.next().await;
    assert_eq!(
        response.events.iter().map(mod_revision).collect::<Vec<_>>(),
        [after]
    );
    assert_eq!(response.header.unwrap().revision, after);
}

pub async fn failed_creates(t: Target) {
    let mut stream = WatchStream::open(&t).await;
    stream
        .create(WatchCreateRequest {
            watch_id: 7,
            ..everything(&t)
        })
        .await;
    assert_eq!(stream.created().await, 7);
    let refused = [
        (
            WatchCreateRequest {
                watch_id: 7,
                ..everything(&t)
            },
            "mvcc: duplicate watch ID provided on the WatchStream",
        ),
        (from(t.key("b"), t.key("a"), 0), "mvcc: watcher range is empty"),
        (from(t.key("a"), t.key("a"), 0), "mvcc: watcher range is empty"),
    ];
    for (request, reason) in refused {
        stream.create(request).await;
        let response = stream.next().await;
        assert!(response.created && response.canceled, "{response:?}");
        assert_eq!((response.watch_id, response.cancel_reason.as_str()), (-1, reason));
    }
    // The stream and its first watch go on.
    let revision = t.put("k", "v").await;
    let response = stream.next().await;
    assert_eq!(
        (response.watch_id, mod_revision(&response.events[0])),
        (7, revision)
    );
}

pub async fn cancels(t: Target) {
    let mut stream = WatchStream::open(&t).await;
    stream.create(everything(&t)).await;
    let first = stream.created().await;
    // An unknown id gets no reply: the next response is the answer to the next create.
    stream.cancel(first + 1000).await;
    stream.create(everything(&t)).await;
    let second = stream.created().await;
    assert_ne!(first, second);
    stream.cancel(first).await;
    let response = stream.next().await;
    assert!(
        response.canceled && !response.created && response.events.is_empty(),
        "{response:?}"
    );
    assert_eq!((response.watch_id, response.compact_revision), (first, 0));
    t.put("k", "v").await;
    let response = stream.next().await;
    assert_eq!((response.watch_id, response.events.len()), (second, 1));
}

pub async fn a_compacted_start(t: Target) {
    let first = t.put("k", "1").await;
    t.put("k", "2").await;
    let compacted = t.put("k", "3").await;
    t.compact(compacted).await;
    let mut stream = WatchStream::open(&t).await;
    stream.create(since(&t, first)).await;
    let id = stream.created().await;
    let response = stream.next().await;
    assert!(
        response.canceled && !response.created && response.events.is_empty(),
        "{response:?}"
    );
    assert_eq!((response.watch_id, response.compact_revision), (id, compacted));
    // The stream goes on.
    stream.create(since(&t, compacted)).await;
    stream.created().await;
    assert_eq!(stream.revisions(1).await, [compacted]);
}

pub async fn progress_on_request(t: Target) {
    let mut stream = WatchStream::open(&t).await;
    for _ in 0..3 {
        stream.create(everything(&t)).await;
        stream.created().await;
    }
    let mut last = 0;
    for _ in 0..100 {
        last = t.put("k", "v").await;
        stream.request_progress().await;
    }
    // Progress may stay out while a watch is behind, but never runs ahead of an event.
    let mut seen = 0;
    let oracle = t.differs("progress-order");
    while seen < 300 {
        let response = stream.next().await;
        if response.events.is_empty() {
            assert_eq!(response.watch_id, -1);
            let complete = 3 * (response.header.unwrap().revision - (last - 100));
            assert!(
                oracle || seen >= complete,
                "progress to {complete} events after {seen}"
            );
        }
        seen += response.events.len() as i64;
    }
    // Once everything is delivered it is answered, at the latest when the watches count as synced.
    while stream.progress().await.header.unwrap().revision != last {}
}

/// Of a server that was started to tell it every half second.
pub async fn progress_comes_by_itself(t: Target) {
    let mut stream = WatchStream::open(&t).await;
    stream
        .create(WatchCreateRequest {
            progress_notify: true,
            ..everything(&t)
        })
        .await;
    let id = stream.created().await;
    let mut last = t.revision().await;
    for _ in 0..2 {
        let response = stream.next().await;
        assert!(response.events.is_empty() && !response.created, "{response:?}");
        assert_eq!(
            response.watch_id, id,
            "it is told to the watch, not to the stream"
        );
        let told = response.header.unwrap().revision;
        assert!(told >= last, "{told} after {last}");
        last = told;
    }
    let put = t.put("k", "v").await;
    assert_eq!(stream.revisions(1).await, [put]);
    while stream.next().await.header.unwrap().revision != put {}
}

pub async fn a_start_in_the_future(t: Target) {
    let now = t.put("k", "now").await;
    let mut stream = WatchStream::open(&t).await;
    stream.create(since(&t, now + 3)).await;
    let id = stream.created().await;
    stream.request_progress().await;
    if t.differs("future-progress") {
        let progress = stream.next().await;
        assert!(progress.events.is_empty() && progress.header.unwrap().revision < now + 3);
    }
    for _ in 0..4 {
        t.put("k", "later").await;
    }
    let response = stream.next().await;
    assert_eq!(
        (response.watch_id, response.events.first().map(mod_revision)),
        (id, Some(now + 3))
    );
    let rest = stream.revisions(2 - response.events.len()).await;
    assert!(rest.is_empty() || rest == [now + 4]);
}

pub async fn one_revision_is_one_response(t: Target) {
    let start = t.revision().await + 1;
    let mut live = WatchStream::open(&t).await;
    live.create(everything(&t)).await;
    live.created().await;
    let mut expected = Vec::new();
    for round in 0..20 {
        let operations: Vec<_> = (0..50)
            .map(|i| op_put(t.key(&format!("k{i:02}")), &round.to_string()))
            .collect();
        let revision = t.txn(always(operations)).await.header.unwrap().revision;
        expected.extend((0..50).map(|i| (revision, t.key(&format!("k{i:02}")))));
    }
    let mut catching_up = WatchStream::open(&t).await;
    catching_up.create(since(&t, start)).await;
    catching_up.created().await;
    for stream in [&mut live, &mut catching_up] {
        let mut seen = Vec::new();
        while seen.len() < expected.len() {
            let events = stream.events().await;
            assert_eq!(events.len() % 50, 0, "whole revisions only");
            seen.extend(
                events
                    .iter()
                    .map(|event| (mod_revision(event), event.kv.as_ref().unwrap().key.clone())),
            );
        }
        assert!(seen == expected, "unordered, repeated or lost");
    }
}

pub async fn fragments_on_request(t: Target) {
    for name in ["a", "b", "c", "d"] {
        t.try_put(put(t.key(name), &name.repeat(1 << 20))).await.unwrap();
    }
    let whole = WatchCreateRequest {
        prev_kv: true,
        ..everything(&t)
    };
    let mut in_one = WatchStream::open(&t).await;
    in_one.create(whole.clone()).await;
    in_one.created().await;
    let mut in_parts = WatchStream::open(&t).await;
    in_parts
        .create(WatchCreateRequest {
            fragment: true,
            ..whole
        })
        .await;
    in_parts.created().await;

    let (key, range_end) = t.all();
    let deleted = t
        .try_delete(DeleteRangeRequest {
            key,
            range_end,
            prev_kv: false,
        })
        .await
        .unwrap();
    assert_eq!(deleted.deleted, 4);
    let response = in_one.next().await;
    assert_eq!((response.events.len(), response.fragment), (4, false));

    let (mut parts, mut events) = (0, Vec::new());
    loop {
        let response = in_parts.next().await;
        parts += 1;
        events.extend(response.events);
        if !response.fragment {
            break;
        }
    }
    assert!(parts > 1);
    let keys: Vec<Bytes> = events
        .iter()
        .map(|event| event.kv.as_ref().unwrap().key.clone())
        .collect();
    assert_eq!(keys, ["a", "b", "c", "d"].map(|name| t.key(name)));
}

pub async fn history_and_present_join_without_gap(t: Target) {
    let mut expected = Vec::new();
    for i in 0..300 {
        expected.push(t.put(&format!("k{}", i % 7), "history").await);
    }
    let writer = tokio::spawn({
        let t = t.clone();
        async move {
            let mut revisions = Vec::new();
            for i in 0..300 {
                revisions.push(t.put(&format!("k{}", i % 7), "present").await);
            }
            revisions
        }
    });
    let mut streams = Vec::new();
    for start in [0, 1, 150, 299] {
        let mut stream = WatchStream::open(&t).await;
        stream.create(since(&t, expected[start])).await;
        stream.created().await;
        streams.push((start, stream));
    }
    expected.extend(writer.await.unwrap());
    for (start, mut stream) in streams {
        assert!(
            stream.revisions(600 - start).await == expected[start..],
            "from {start}"
        );
    }
}

pub async fn prev_kv(t: Target) {
    let before = t.put("k", "1").await;
    let mut stream = WatchStream::open(&t).await;
    stream
        .create(WatchCreateRequest {
            prev_kv: true,
            ..everything(&t)
        })
        .await;
    stream.created().await;
    t.put("k", "2").await;
    t.put("new", "1").await;
    t.delete("k").await;
    // In one revision: the state before the txn, not before the operation.
    t.txn(always(vec![
        op_txn(always(vec![op_put(t.key("new"), "2")])),
        op_txn(always(vec![op_delete(t.key("new"))])),
    ]))
    .await;
    let mut previous = Vec::new();
    while previous.len() < 5 {
        previous.extend(stream.events().await.into_iter().map(|event| event.prev_kv));
    }
    assert_eq!(previous[0].as_ref().unwrap().value, "1");
    assert_eq!(previous[0].as_ref().unwrap().mod_revision, before);
    assert_eq!(previous[1], None, "a create");
    assert_eq!(previous[2].as_ref().unwrap().value, "2");
    assert_eq!(previous[3].as_ref().unwrap().value, "1");
    assert_eq!(previous[4].as_ref().unwrap().value, "1");
}

pub async fn a_delete_carries_key_and_revision(t: Target) {
    let lease = t.grant(600).await;
    t.put_leased("k", lease).await;
    let mut stream = WatchStream::open(&t).await;
    stream.create(everything(&t)).await;
    stream.created().await;
    let revision = t.delete("k").await;
    let event = stream.events().await.remove(0);
    assert_eq!(event.r#type(), EventType::Delete);
    let kv = event.kv.unwrap();
    assert_eq!((kv.key, kv.mod_revision), (t.key("k"), revision));
    assert_eq!(
        (kv.create_revision, kv.version, kv.lease, kv.value.len()),
        (0, 0, 0, 0)
    );
    assert_eq!(event.prev_kv, None, "it was not asked for");
    t.revoke(lease).await;
}

pub async fn prev_kv_is_absent_when_compacted(t: Target) {
    t.put("k", "1").await;
    let second = t.put("k", "2").await;
    t.put("k", "3").await;
    t.compact(second).await;
    let mut stream = WatchStream::open(&t).await;
    stream
        .create(WatchCreateRequest {
            prev_kv: true,
            ..since(&t, second)
        })
        .await;
    stream.created().await;
    let mut events = stream.events().await;
    while events.len() < 2 {
        events.extend(stream.events().await);
    }
    assert_eq!((mod_revision(&events[0]), &events[0].prev_kv), (second, &None));
    assert_eq!(events[1].prev_kv.as_ref().unwrap().value, "2");
}

pub async fn a_start_at_the_compact_revision(t: Target) {
    t.put("k", "1").await;
    let second = t.put("k", "2").await;
    let third = t.put("k", "3").await;
    t.compact(second).await;
    let mut stream = WatchStream::open(&t).await;
    stream.create(since(&t, second)).await;
    stream.created().await;
    assert_eq!(stream.revisions(2).await, [second, third]);
}

pub async fn filters(t: Target) {
    let cases: [(&[FilterType], &[EventType]); 4] = [
        (&[], &[EventType::Put, EventType::Delete, EventType::Put]),
        (&[FilterType::Noput], &[EventType::Delete]),
        (&[FilterType::Nodelete], &[EventType::Put, EventType::Put]),
        (&[FilterType::Noput, FilterType::Nodelete], &[]),
    ];
    let start = t.revision().await + 1;
    let mut streams = Vec::new();
    for (filters, expected) in cases {
        let filters: Vec<i32> = filters.iter().map(|&filter| filter as i32).collect();
        let mut stream = WatchStream::open(&t).await;
        stream
            .create(WatchCreateRequest {
                filters: filters.clone(),
                ..everything(&t)
            })
            .await;
        stream.created().await;
        streams.push((stream, filters, expected));
    }
    t.put("k", "1").await;
    t.delete("k").await;
    t.put("k", "2").await;
    for (live, filters, expected) in streams {
        let mut history = WatchStream::open(&t).await;
        history
            .create(WatchCreateRequest {
                filters,
                ..since(&t, start)
            })
            .await;
        history.created().await;
        for mut stream in [live, history] {
            let mut seen = Vec::new();
            while seen.len() < expected.len() {
                seen.extend(stream.events().await.iter().map(|event| event.r#type()));
            }
            assert_eq!(seen, expected);
        }
    }
}

pub async fn chosen_ids(t: Target) {
    let mut stream = WatchStream::open(&t).await;
    stream
        .create(WatchCreateRequest {
            watch_id: 1,
            ..everything(&t)
        })
        .await;
    let mut ids = vec![stream.created().await];
    assert_eq!(ids, [1]);
    for _ in 0..3 {
        stream.create(everything(&t)).await;
        ids.push(stream.created().await);
    }
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), 4, "chosen and given ids do not meet");
    t.put("k", "v").await;
    let mut reached = Vec::new();
    for _ in 0..4 {
        reached.push(stream.next().await.watch_id);
    }
    reached.sort_unstable();
    assert_eq!(reached, ids);
}

pub async fn goes_on_when_the_client_closed_its_half(t: Target) {
    let mut stream = WatchStream::open(&t).await;
    stream.create(everything(&t)).await;
    stream.created().await;
    stream.close_requests();
    let first = t.put("k", "1").await;
    assert_eq!(stream.revisions(1).await, [first]);
    let second = t.put("k", "2").await;
    assert_eq!(stream.revisions(1).await, [second]);
}

pub async fn ranges_of_watches(t: Target) {
    let zero = Bytes::from_static(b"\0");
    let cases: [(Bytes, Bytes, &[&str]); 5] = [
        (t.key("b"), Bytes::new(), &["b"]),
        (t.key("b"), t.key("d"), &["b", "b\0", "c"]),
        (t.key("c"), zero.clone(), &["c", "d"]),
        (Bytes::new(), zero.clone(), &["a", "b", "b\0", "c", "d"]),
        (zero.clone(), zero, &["a", "b", "b\0", "c", "d"]),
    ];
    let mut streams = Vec::new();
    for (key, range_end, expected) in cases {
        let mut stream = WatchStream::open(&t).await;
        stream.create(from(key, range_end, 0)).await;
        stream.created().await;
        streams.push((stream, expected));
    }
    for name in ["a", "b", "b\0", "c", "d"] {
        t.put(name, "v").await;
    }
    for (mut stream, expected) in streams {
        let mut seen = Vec::new();
        while seen.len() < expected.len() {
            seen.extend(
                stream
                    .events()
                    .await
                    .into_iter()
                    .map(|event| event.kv.unwrap().key),
            );
        }
        assert_eq!(seen, expected.iter().map(|name| t.key(name)).collect::<Vec<_>>());
    }
}
