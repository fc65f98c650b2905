//! Lists: pages, versions, selectors, tables.

use barque_proto::command::{Command, Compact, command};
use http::{Method, StatusCode};
use serde_json::{Value, json};

use crate::api::{Api, pod, version};

const MAPS: &str = "/api/v1/namespaces/default/configmaps";

fn names(list: &Value) -> Vec<&str> {
    list["items"]
        .as_array()
        .unwrap()
        .iter()
        .map(|o| o["metadata"]["name"].as_str().unwrap())
        .collect()
}

async fn compact(api: &Api, revision: i64) {
    let command = Command {
        op: Some(command::Op::Compact(Compact { revision })),
        ..Default::default()
    };
    api.replica.propose(command).await.expect("a compaction");
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_show_one_state() {
    let api = Api::start().await;
    for i in 0..7 {
        api.create_config_map(&format!("a{i}"), json!({})).await;
    }
    let first = api.get(&format!("{MAPS}?limit=3")).await.body;
    assert_eq!(names(&first), ["a0", "a1", "a2"]);
    assert_eq!(first["metadata"]["remainingItemCount"], 4);
    api.create_config_map("a3b", json!({})).await;
    api.delete(&format!("{MAPS}/a4")).await;
    let token = first["metadata"]["continue"].as_str().unwrap();
    let second = api.get(&format!("{MAPS}?limit=3&continue={token}")).await.body;
    assert_eq!(names(&second), ["a3", "a4", "a5"], "as of the first page");
    assert_eq!(version(&second), version(&first));
    let token = second["metadata"]["continue"].as_str().unwrap();
    let third = api.get(&format!("{MAPS}?limit=3&continue={token}")).await.body;
    assert_eq!(
        (names(&third), third["metadata"].get("continue")),
        (vec!["a6"], None)
    );
    let now = api.get(MAPS).await.body;
    assert_eq!(names(&now), ["a0", "a1", "a2", "a3", "a3b", "a5", "a6"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_whose_state_is_compacted_says_how_to_go_on() {
    let api = Api::start().await;
    for i in 0..4 {
        api.create_config_map(&format!("a{i}"), json!({})).await;
    }
    let first = api.get(&format!("{MAPS}?limit=2")).await.body;
    let last = api.create_config_map("a9", json!({})).await;
    compact(&api, version(&last)).await;
    let token = first["metadata"]["continue"].as_str().unwrap();
    let expired = api.get(&format!("{MAPS}?limit=2&continue={token}")).await;
    assert_eq!(
        (expired.code, &expired.body["reason"]),
        (StatusCode::GONE, &json!("Expired"))
    );
    let token = expired.body["metadata"]["continue"].as_str().unwrap();
    let rest = api.get(&format!("{MAPS}?continue={token}")).await.body;
    assert_eq!(names(&rest), ["a2", "a3", "a9"], "the rest, as of now");
    let old = api
        .get(&format!(
            "{MAPS}?resourceVersion={}&resourceVersionMatch=Exact",
            version(&first)
        ))
        .await;
    assert_eq!(old.code, StatusCode::GONE);
}

#[tokio::test(flavor = "multi_thread")]
async fn versions_of_lists() {
    let api = Api::start().await;
    let old = api.create_config_map("a", json!({})).await;
    api.create_config_map("b", json!({})).await;
    let at = version(&old);
    let exact = api
        .get(&format!("{MAPS}?resourceVersion={at}&resourceVersionMatch=Exact"))
        .await
        .body;
    assert_eq!((names(&exact), version(&exact)), (vec!["a"], at));
    let newer = api.get(&format!("{MAPS}?resourceVersion={at}")).await.body;
    assert_eq!(names(&newer), ["a", "b"]);
    for future in [at + 1000, i64::MAX] {
        for path in [MAPS, format!("{MAPS}/a").as_str()] {
            let answer = api.get(&format!("{path}?resourceVersion={future}")).await;
            assert_eq!(
                (answer.code, &answer.body["reason"]),
                (StatusCode::GATEWAY_TIMEOUT, &json!("Timeout"))
            );
            assert_eq!(
                answer.body["details"]["causes"][0]["reason"],
                "ResourceVersionTooLarge"
            );
            assert!(
                answer.body["message"]
                    .as_str()
                    .unwrap()
                    .contains("Too large resource version")
            );
        }
    }
    let wrong = api.get(&format!("{MAPS}?resourceVersion=x")).await;
    assert_eq!(wrong.code, StatusCode::BAD_REQUEST);
}

#[tokio::test(flavor = "multi_thread")]
async fn selectors_by_index_and_by_terms() {
    let api = Api::start().await;
    api.create_config_map("a", json!({"app": "web", "tier": "1"}))
        .await;
    api.create_config_map("b", json!({"app": "web", "tier": "2"}))
        .await;
    api.create_config_map("c", json!({"app": "db"})).await;
    api.create_config_map("d", json!({})).await;
    let check = async |query: &str, expect: &[&str]| {
        let list = api.get(&format!("{MAPS}?{query}")).await.body;
        assert_eq!(names(&list), expect, "{query}");
    };
    check("labelSelector=app%3Dweb", &["a", "b"]).await;
    check("labelSelector=app%3Dweb,tier%20in%20(2,3)", &["b"]).await;
    check("labelSelector=app!%3Dweb", &["c", "d"]).await;
    check("labelSelector=!app", &["d"]).await;
    check("labelSelector=app&limit=2", &["a", "b"]).await;
    check("fieldSelector=metadata.name%3Dc", &["c"]).await;
    check("fieldSelector=metadata.name!%3Dc&labelSelector=app", &["a", "b"]).await;
    let page = api
        .get(&format!("{MAPS}?labelSelector=app%3Dweb&limit=1"))
        .await
        .body;
    assert_eq!(
        (names(&page), page["metadata"].get("remainingItemCount")),
        (vec!["a"], None)
    );
    let token = page["metadata"]["continue"].as_str().unwrap();
    check(
        &format!("labelSelector=app%3Dweb&limit=1&continue={token}"),
        &["b"],
    )
    .await;
    let all = api
        .get("/api/v1/configmaps?fieldSelector=metadata.namespace%3Ddefault")
        .await
        .body;
    assert_eq!(names(&all).len(), 4);
    for query in [
        "fieldSelector=spec.x%3D1",
        "labelSelector=a%20b",
        "fieldSelector=a",
        "continue=zzz",
        "limit=x",
    ] {
        assert_eq!(
            api.get(&format!("{MAPS}?{query}")).await.code,
            StatusCode::BAD_REQUEST,
            "{query}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn unbound_pods_are_found_by_their_empty_field() {
    let api = Api::start().await;
    for name in ["a", "b"] {
        api.post("/api/v1/namespaces/default/pods", pod(name)).await;
    }
    let binding = json!({"metadata": {"name": "a"}, "target": {"name": "n1"}});
    api.post("/api/v1/namespaces/default/pods/a/binding", binding)
        .await;
    let list = api.get("/api/v1/pods?fieldSelector=spec.nodeName%3D").await.body;
    assert_eq!(names(&list), ["b"]);
    let list = api
        .get("/api/v1/pods?fieldSelector=spec.nodeName!%3D,status.phase%3DPending")
        .await
        .body;
    assert_eq!(names(&list), ["a"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn tables_and_metadata() {
    let api = Api::start().await;
    for i in 0..3 {
        api.create_config_map(&format!("a{i}"), json!({})).await;
    }
    let accept = [(
        "accept",
        "application/json;as=Table;v=v1;g=meta.k8s.io,application/json",
    )];
    let table = api
        .send(Method::GET, &format!("{MAPS}?limit=2"), &accept, None)
        .await
        .body;
    assert_eq!(
        (&table["kind"], &table["columnDefinitions"][0]["name"]),
        (&json!("Table"), &json!("Name"))
    );
    assert_eq!(table["rows"].as_array().map(Vec::len), Some(2));
    assert_eq!(table["rows"][1]["cells"][0], "a1");
    assert_eq!(table["rows"][1]["object"]["kind"], "PartialObjectMetadata");
    assert!(table["metadata"]["continue"].is_string());
    let one = api
        .send(Method::GET, &format!("{MAPS}/a1"), &accept, None)
        .await
        .body;
    assert_eq!(
        (&one["kind"], &one["rows"][0]["cells"][0]),
        (&json!("Table"), &json!("a1"))
    );
    let accept = [(
        "accept",
        "application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io",
    )];
    let list = api.send(Method::GET, MAPS, &accept, None).await.body;
    assert_eq!(
        (&list["kind"], &list["items"][0]["data"]),
        (&json!("PartialObjectMetadataList"), &Value::Null)
    );
    let none = api
        .send(
            Method::GET,
            MAPS,
            &[("accept", "application/vnd.kubernetes.protobuf")],
            None,
        )
        .await;
    assert_eq!(none.code, StatusCode::NOT_ACCEPTABLE);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_value_that_is_not_ours_is_an_error_and_no_crash() {
    let api = Api::start().await;
    api.create_config_map("a", json!({})).await;
    let put = barque_proto::command::Put {
        key: "/registry/configmaps/default/b".into(),
        value: "k8s\0rubbish".into(),
        ..Default::default()
    };
    let command = Command {
        op: Some(command::Op::Put(put)),
        ..Default::default()
    };
    api.replica.propose(command).await.expect("a put");
    let got = api.get(&format!("{MAPS}/b")).await;
    assert_eq!(got.code, StatusCode::INTERNAL_SERVER_ERROR);
    assert!(
        got.body["message"]
            .as_str()
            .unwrap()
            .contains("/registry/configmaps/default/b"),
        "{}",
        got.body
    );
    assert_eq!(api.get(MAPS).await.code, StatusCode::INTERNAL_SERVER_ERROR);
    assert_eq!(api.get(&format!("{MAPS}/a")).await.code, StatusCode::OK);
}
