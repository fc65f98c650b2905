//! Watches: where they start, what selectors make of changes, bookmarks, ends.

use std::time::Duration;

use barque_apiserver::ApiConfig;
use barque_proto::command::{Command, Compact, command};
use serde_json::json;

use crate::api::{Api, version};

const MAPS: &str = "/api/v1/namespaces/default/configmaps";

#[tokio::test(flavor = "multi_thread")]
async fn from_now_from_nothing_and_from_a_version() {
    let api = Api::start().await;
    let a = version(&api.create_config_map("a", json!({})).await);
    let b = version(&api.create_config_map("b", json!({})).await);
    let mut from_state = api.watch(&format!("{MAPS}?watch=true")).await;
    assert_eq!(from_state.event().await, ("ADDED".into(), "a".into(), a));
    assert_eq!(from_state.event().await, ("ADDED".into(), "b".into(), b));
    let mut from_a = api.watch(&format!("{MAPS}?watch=true&resourceVersion={a}")).await;
    assert_eq!(from_a.event().await, ("ADDED".into(), "b".into(), b));
    let changed = api
        .patch(&format!("{MAPS}/a"), "merge", json!({"data": {"k": "w"}}))
        .await
        .body;
    api.delete(&format!("{MAPS}/b")).await;
    for watch in [&mut from_state, &mut from_a] {
        assert_eq!(
            watch.event().await,
            ("MODIFIED".into(), "a".into(), version(&changed))
        );
        let gone = watch.next().await;
        assert_eq!(
            (&gone["type"], &gone["object"]["data"]["k"]),
            (&json!("DELETED"), &json!("v"))
        );
        assert_eq!(
            version(&gone["object"]),
            version(&changed) + 1,
            "the delete's own revision"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn entering_and_leaving_a_selector() {
    let api = Api::start().await;
    api.create_config_map("a", json!({"app": "web"})).await;
    let mut web = api
        .watch(&format!("{MAPS}?watch=true&labelSelector=app%3Dweb"))
        .await;
    let mut named = api
        .watch(&format!("{MAPS}?watch=true&fieldSelector=metadata.name%3Da"))
        .await;
    let relabel = async |app: &str| {
        let patch = json!({"metadata": {"labels": {"app": app}}});
        version(&api.patch(&format!("{MAPS}/a"), "merge", patch).await.body)
    };
    assert_eq!(web.event().await.0, "ADDED");
    assert_eq!(named.event().await.0, "ADDED");
    let left = relabel("db").await;
    relabel("cache").await;
    let back = relabel("web").await;
    let gone = web.next().await;
    assert_eq!(
        (&gone["type"], &gone["object"]["metadata"]["labels"]["app"]),
        (&json!("DELETED"), &json!("web"))
    );
    assert_eq!(version(&gone["object"]), left);
    assert_eq!(web.event().await, ("ADDED".into(), "a".into(), back));
    for _ in 0..3 {
        assert_eq!(named.event().await.0, "MODIFIED");
    }
}

/// Events leave large objects in the store: what was there before is read for those who need it.
#[tokio::test(flavor = "multi_thread")]
async fn large_objects_that_leave_are_told_as_they_were() {
    let api = Api::start().await;
    api.create_config_map("a", json!({"app": "web"})).await;
    let large = "v".repeat(50_000);
    let selected = format!("{MAPS}?watch=true&labelSelector=app%3Dweb");
    let mut watches = vec![api.watch(&selected).await, api.watch(&selected).await];
    let mut all = api.watch(&format!("{MAPS}?watch=true")).await;
    let patch = async |patch| version(&api.patch(&format!("{MAPS}/a"), "merge", patch).await.body);
    let grown = patch(json!({"data": {"k": large}})).await;
    let left = patch(json!({"metadata": {"labels": {"app": "db"}}})).await;
    let back = patch(json!({"metadata": {"labels": {"app": "web"}}})).await;
    api.delete(&format!("{MAPS}/a")).await;
    watches.push(api.watch(&format!("{selected}&resourceVersion={grown}")).await);
    for (at, watch) in watches.iter_mut().enumerate() {
        if at < 2 {
            assert_eq!(watch.event().await.0, "ADDED");
            assert_eq!(watch.event().await, ("MODIFIED".into(), "a".into(), grown));
        }
        for (end, app) in [(left, "web"), (back + 1, "web")] {
            let gone = watch.next().await;
            assert_eq!(gone["type"], "DELETED");
            assert_eq!(gone["object"]["data"]["k"], large);
            assert_eq!(gone["object"]["metadata"]["labels"]["app"], app);
            assert_eq!(version(&gone["object"]), end);
            if end == left {
                assert_eq!(watch.event().await, ("ADDED".into(), "a".into(), back));
            }
        }
    }
    let mut kinds = vec![];
    while kinds.last().is_none_or(|kind| kind != "DELETED") {
        kinds.push(all.event().await.0);
    }
    assert_eq!(kinds, ["ADDED", "MODIFIED", "MODIFIED", "MODIFIED", "DELETED"]);
}

/// It waits for what the cluster has not reached: for the last version, in vain.
#[tokio::test(flavor = "multi_thread")]
async fn from_the_last_version_there_can_be_nothing_comes() {
    let api = Api::start().await;
    let last = i64::MAX;
    let mut watch = api
        .watch(&format!(
            "{MAPS}?watch=true&resourceVersion={last}&timeoutSeconds=1"
        ))
        .await;
    api.create_config_map("a", json!({})).await;
    assert_eq!(watch.try_next().await, None);
}

#[tokio::test(flavor = "multi_thread")]
async fn too_old_is_told_in_the_stream() {
    let api = Api::start().await;
    let first = version(&api.create_config_map("a", json!({})).await);
    let last = version(&api.create_config_map("b", json!({})).await);
    let command = Command {
        op: Some(command::Op::Compact(Compact { revision: last })),
        ..Default::default()
    };
    api.replica.propose(command).await.expect("a compaction");
    let mut watch = api
        .watch(&format!("{MAPS}?watch=true&resourceVersion={first}"))
        .await;
    let frame = watch.next().await;
    assert_eq!(
        (
            &frame["type"],
            &frame["object"]["code"],
            &frame["object"]["reason"]
        ),
        (&json!("ERROR"), &json!(410), &json!("Expired"))
    );
    assert!(
        frame["object"]["message"]
            .as_str()
            .unwrap()
            .starts_with("too old resource version")
    );
    assert_eq!(watch.try_next().await, None);
    let mut fine = api
        .watch(&format!("{MAPS}?watch=true&resourceVersion={last}"))
        .await;
    let next = version(&api.create_config_map("c", json!({})).await);
    assert_eq!(fine.event().await, ("ADDED".into(), "c".into(), next));
}

#[tokio::test(flavor = "multi_thread")]
async fn initial_events_end_with_a_marked_bookmark() {
    let api = Api::start().await;
    let a = version(&api.create_config_map("a", json!({})).await);
    let query =
        "watch=true&sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true";
    let mut watch = api.watch(&format!("{MAPS}?{query}")).await;
    assert_eq!(watch.event().await, ("ADDED".into(), "a".into(), a));
    let bookmark = watch.next().await;
    assert_eq!(bookmark["type"], "BOOKMARK");
    assert_eq!(
        bookmark["object"]["metadata"]["annotations"]["k8s.io/initial-events-end"],
        "true"
    );
    assert!(version(&bookmark["object"]) >= a);
    let b = version(&api.create_config_map("b", json!({})).await);
    assert_eq!(watch.event().await, ("ADDED".into(), "b".into(), b));
}

#[tokio::test(flavor = "multi_thread")]
async fn bookmarks_tell_progress_and_a_timeout_ends() {
    let config = ApiConfig {
        bookmark_interval: Duration::from_millis(50),
        ..Default::default()
    };
    let api = Api::start_with(config).await;
    let secrets = "/api/v1/namespaces/default/secrets?watch=true&resourceVersion=";
    let start = version(&api.create_config_map("a", json!({})).await);
    let mut watch = api
        .watch(&format!("{secrets}{start}&allowWatchBookmarks=true"))
        .await;
    let elsewhere = version(&api.create_config_map("b", json!({})).await);
    loop {
        let (kind, _, revision) = watch.event().await;
        assert_eq!(kind, "BOOKMARK");
        if revision >= elsewhere {
            break;
        }
    }
    let mut short = api.watch(&format!("{secrets}{start}&timeoutSeconds=1")).await;
    assert_eq!(short.try_next().await, None);
}

#[tokio::test(flavor = "multi_thread")]
async fn shutdown_ends_watches() {
    let api = Api::start().await;
    let mut watch = api.watch(&format!("{MAPS}?watch=true")).await;
    api.server.shutdown().await;
    assert_eq!(watch.try_next().await, None);
    assert_eq!(api.server.watches(), 1, "the slot is held as long as the body is");
    drop(watch);
    assert_eq!(api.server.watches(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn tables_are_watched_too() {
    let api = Api::start().await;
    api.create_config_map("a", json!({})).await;
    let accept = [("accept", "application/json;as=Table;v=v1;g=meta.k8s.io")];
    let mut watch = api.watch_with(&format!("{MAPS}?watch=true"), &accept).await;
    let frame = watch.next().await;
    assert_eq!(
        (&frame["type"], &frame["object"]["kind"]),
        (&json!("ADDED"), &json!("Table"))
    );
    assert_eq!(frame["object"]["rows"][0]["cells"][0], "a");
    api.delete(&format!("{MAPS}/a")).await;
    let frame = watch.next().await;
    assert_eq!(
        (&frame["type"], &frame["object"]["rows"][0]["cells"][0]),
        (&json!("DELETED"), &json!("a"))
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn one_watch_too_many_is_refused() {
    let api = Api::start_with(ApiConfig {
        max_watches: 1,
        ..Default::default()
    })
    .await;
    let watch = api.watch(&format!("{MAPS}?watch=true")).await;
    let refused = api.get(&format!("{MAPS}?watch=true")).await;
    assert_eq!(
        (refused.code.as_u16(), &refused.headers["retry-after"]),
        (429, &http::HeaderValue::from_static("1"))
    );
    drop(watch);
    api.watch(&format!("{MAPS}?watch=true")).await;
}
