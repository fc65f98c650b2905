//! Stored bytes are what lists and watches send: counted, over 10,000 pods and 1,000 watchers.
//!
//! Alone in its process, for the counters are the process's.

#[path = "it/api.rs"]
#[allow(
    dead_code,
    reason = "shared with the other test binary, which uses more of it"
)]
mod api;

use barque_machinery::counters::{FRAMES_ENCODED, OBJECTS_DECODED, OBJECTS_ENCODED};
use futures_util::{StreamExt, stream};
use http::StatusCode;
use serde_json::json;

use crate::api::{Api, pod, version};

const PODS: usize = 10_000;
const WATCHERS: usize = 1_000;
const PATH: &str = "/api/v1/namespaces/default/pods";

fn counts() -> (u64, u64, u64) {
    (OBJECTS_DECODED.get(), OBJECTS_ENCODED.get(), FRAMES_ENCODED.get())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_list_and_a_fan_out_decode_nothing_and_encode_once() {
    let api = Api::start().await;
    let creates = stream::iter(0..PODS)
        .map(|i| api.post(PATH, pod(&format!("p{i:05}"))))
        .buffer_unordered(128);
    let created = creates
        .filter(|answer| std::future::ready(answer.code == StatusCode::CREATED))
        .count()
        .await;
    assert_eq!(created, PODS);

    let (decoded, encoded, _) = counts();
    let list = api.get(PATH).await.body;
    assert_eq!(list["items"].as_array().map(Vec::len), Some(PODS));
    assert_eq!(
        (OBJECTS_DECODED.get() - decoded, OBJECTS_ENCODED.get() - encoded),
        (0, 0),
        "LIST of {PODS}"
    );

    let from = version(&list);
    let mut watches = Vec::new();
    for i in 0..WATCHERS {
        // Half of them select, by terms.
        let selector = if i % 2 == 0 {
            ""
        } else {
            "&labelSelector=app%3Dweb"
        };
        watches.push(
            api.watch(&format!("{PATH}?watch=true&resourceVersion={from}{selector}"))
                .await,
        );
    }
    let (decoded, encoded, frames) = counts();
    let changed = api
        .patch(
            &format!("{PATH}/p00007"),
            "merge",
            json!({"metadata": {"annotations": {"a": "b"}}}),
        )
        .await;
    assert_eq!(changed.code, StatusCode::OK);
    for watch in &mut watches {
        assert_eq!(
            watch.event().await,
            ("MODIFIED".into(), "p00007".into(), version(&changed.body))
        );
    }
    // The patch itself decodes what it changes, and encodes the result.
    assert_eq!(
        OBJECTS_DECODED.get() - decoded,
        1,
        "an event for {WATCHERS} watchers"
    );
    assert_eq!(OBJECTS_ENCODED.get() - encoded, 1);
    assert_eq!(FRAMES_ENCODED.get() - frames, 1);
}
