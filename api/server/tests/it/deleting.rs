//! Deletes: at once, gracefully, behind finalizers, of collections and of whole namespaces.

use barque_proto::command::{Command, DeleteRange, IndexTerm, Put, command};
use http::{Method, StatusCode};
use serde_json::json;

use crate::api::{Api, pod};

const PODS: &str = "/api/v1/namespaces/default/pods";
const MAPS: &str = "/api/v1/namespaces/default/configmaps";

#[tokio::test(flavor = "multi_thread")]
async fn at_once_and_only_under_its_preconditions() {
    let api = Api::start().await;
    let object = api.create_config_map("a", json!({})).await;
    let path = format!("{MAPS}/a");
    let wrong = json!({"preconditions": {"uid": "other"}}).to_string();
    let answer = api.send(Method::DELETE, &path, &[], Some(wrong)).await;
    assert_eq!(answer.code, StatusCode::CONFLICT);
    assert!(
        answer.body["message"]
            .as_str()
            .unwrap()
            .contains("Precondition failed: UID in precondition: other")
    );
    let right = json!({"preconditions": {"uid": object["metadata"]["uid"]}}).to_string();
    let answer = api.send(Method::DELETE, &path, &[], Some(right)).await;
    assert_eq!(
        (answer.code, &answer.body["status"]),
        (StatusCode::OK, &json!("Success"))
    );
    assert_eq!(answer.body["details"]["uid"], object["metadata"]["uid"]);
    assert_eq!(api.delete(&path).await.code, StatusCode::NOT_FOUND);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_finalizer_holds_an_object() {
    let api = Api::start().await;
    let object = json!({"metadata": {"name": "a", "finalizers": ["x.io/hold"]}});
    assert_eq!(api.post(MAPS, object).await.code, StatusCode::CREATED);
    let path = format!("{MAPS}/a");
    let marked = api.delete(&path).await;
    assert!(
        marked.body["metadata"]["deletionTimestamp"].is_string(),
        "{}",
        marked.body
    );
    let more = api
        .patch(
            &path,
            "merge",
            json!({"metadata": {"finalizers": ["x.io/hold", "x.io/more"]}}),
        )
        .await;
    assert_eq!(more.code, StatusCode::UNPROCESSABLE_ENTITY, "no new ones now");
    let released = api
        .patch(&path, "merge", json!({"metadata": {"finalizers": null}}))
        .await;
    assert_eq!(released.code, StatusCode::OK, "{}", released.body);
    assert_eq!(api.get(&path).await.code, StatusCode::NOT_FOUND);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bound_pod_waits_for_its_node() {
    let api = Api::start().await;
    api.post(PODS, pod("free")).await;
    assert_eq!(
        api.delete(&format!("{PODS}/free")).await.body["status"],
        "Success"
    );
    api.post(PODS, pod("bound")).await;
    let binding = json!({"metadata": {"name": "bound"}, "target": {"name": "n"}});
    api.post(&format!("{PODS}/bound/binding"), binding).await;
    let marked = api.delete(&format!("{PODS}/bound")).await;
    assert_eq!(
        marked.body["metadata"]["deletionGracePeriodSeconds"], 30,
        "{}",
        marked.body
    );
    let again = api.delete(&format!("{PODS}/bound")).await;
    assert_eq!(
        again.body["metadata"]["deletionTimestamp"],
        marked.body["metadata"]["deletionTimestamp"]
    );
    let gone = api.delete(&format!("{PODS}/bound?gracePeriodSeconds=0")).await;
    assert_eq!(gone.body["status"], "Success", "{}", gone.body);
    assert_eq!(
        api.get(&format!("{PODS}/bound")).await.code,
        StatusCode::NOT_FOUND
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_collection_by_selector() {
    let api = Api::start().await;
    for i in 0..5 {
        api.create_config_map(&format!("a{i}"), json!({"parity": (i % 2).to_string()}))
            .await;
    }
    assert_eq!(
        api.delete(&format!("{MAPS}?labelSelector=parity%3D0")).await.code,
        StatusCode::OK
    );
    let left = api.get(MAPS).await;
    let names: Vec<_> = left.body["items"]
        .as_array()
        .unwrap()
        .iter()
        .map(|o| &o["metadata"]["name"])
        .collect();
    assert_eq!(names, ["a1", "a3"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_namespace_goes_when_it_is_empty_and_nothing_stays_behind() {
    let api = Api::start().await;
    assert_eq!(
        api.post("/api/v1/namespaces", json!({"metadata": {"name": "n"}}))
            .await
            .code,
        StatusCode::CREATED
    );
    let maps = "/api/v1/namespaces/n/configmaps";
    api.post(maps, json!({"metadata": {"name": "plain"}})).await;
    api.post(
        maps,
        json!({"metadata": {"name": "held", "finalizers": ["x.io/hold"]}}),
    )
    .await;
    api.post("/api/v1/namespaces/n/pods", pod("p")).await;
    let mut pods = api.watch("/api/v1/namespaces/n/pods?watch=1").await;
    let mut held = api
        .watch(&format!("{maps}?watch=1&fieldSelector=metadata.name%3Dheld"))
        .await;
    let mut namespaces = api
        .watch("/api/v1/namespaces?watch=1&fieldSelector=metadata.name%3Dn")
        .await;
    assert_eq!(
        (pods.event().await.0, held.event().await.0),
        ("ADDED".into(), "ADDED".into())
    );
    assert_eq!(namespaces.event().await.0, "ADDED");
    let marked = api.delete("/api/v1/namespaces/n").await;
    assert_eq!(marked.body["status"]["phase"], "Terminating", "{}", marked.body);
    let refused = api.post(maps, json!({"metadata": {"name": "late"}})).await;
    assert_eq!(refused.code, StatusCode::FORBIDDEN);
    assert!(
        refused.body["message"]
            .as_str()
            .unwrap()
            .contains("because it is being terminated"),
        "{}",
        refused.body
    );
    let cause = json!({
        "reason": "NamespaceTerminating", "message": "namespace n is being terminated",
        "field": "metadata.namespace",
    });
    assert_eq!(refused.body["details"]["causes"], json!([cause]));
    assert_eq!(pods.event().await.0, "DELETED");
    assert_eq!(
        held.event().await.0,
        "MODIFIED",
        "marked, and held by its finalizer"
    );
    assert_eq!(api.get("/api/v1/namespaces/n").await.code, StatusCode::OK);
    api.patch(
        &format!("{maps}/held"),
        "merge",
        json!({"metadata": {"finalizers": null}}),
    )
    .await;
    assert_eq!(held.event().await.0, "DELETED");
    while namespaces.event().await.0 != "DELETED" {}
    assert_eq!(api.get("/api/v1/namespaces/n").await.code, StatusCode::NOT_FOUND);
    assert_eq!(api.get(maps).await.body["items"], json!([]));
}

#[tokio::test(flavor = "multi_thread")]
async fn only_a_delete_makes_a_namespace_go_and_nothing_calls_it_back() {
    let api = Api::start().await;
    let (namespace, maps) = ("/api/v1/namespaces/n", "/api/v1/namespaces/n/configmaps");
    api.post("/api/v1/namespaces", json!({"metadata": {"name": "n"}}))
        .await;
    let held = json!({"metadata": {"name": "held", "finalizers": ["x.io/hold"]}});
    assert_eq!(api.post(maps, held).await.code, StatusCode::CREATED);
    let set_phase = async |phase: &str| {
        let patch = json!({"status": {"phase": phase}});
        api.patch(&format!("{namespace}/status"), "merge", patch).await
    };
    let refused = set_phase("Terminating").await;
    assert_eq!(refused.code, StatusCode::UNPROCESSABLE_ENTITY, "{}", refused.body);
    assert_eq!(refused.body["reason"], "Invalid");
    assert_eq!(api.get(namespace).await.body["status"]["phase"], "Active");
    let object = api.get(&format!("{maps}/held")).await;
    assert!(
        object.body["metadata"]["deletionTimestamp"].is_null(),
        "{}",
        object.body
    );
    let more = api.post(maps, json!({"metadata": {"name": "more"}})).await;
    assert_eq!(more.code, StatusCode::CREATED, "{}", more.body);

    assert_eq!(api.delete(namespace).await.code, StatusCode::OK);
    let refused = set_phase("Active").await;
    assert_eq!(refused.code, StatusCode::UNPROCESSABLE_ENTITY, "{}", refused.body);
    let late = api.post(maps, json!({"metadata": {"name": "late"}})).await;
    assert_eq!(late.code, StatusCode::FORBIDDEN, "{}", late.body);
}

#[tokio::test(flavor = "multi_thread")]
async fn some_namespaces_stay_whoever_asks() {
    let api = Api::start().await;
    for name in ["default", "kube-system", "kube-public"] {
        let path = format!("/api/v1/namespaces/{name}");
        let refused = api.delete(&path).await;
        assert_eq!(refused.code, StatusCode::FORBIDDEN, "{}", refused.body);
        let text = format!("namespaces \"{name}\" is forbidden: this namespace may not be deleted");
        assert_eq!(
            (&refused.body["reason"], &refused.body["message"]),
            (&json!("Forbidden"), &json!(text))
        );
        assert_eq!(api.get(&path).await.body["status"]["phase"], "Active");
    }
    let marked = api.delete("/api/v1/namespaces/kube-node-lease").await;
    assert_eq!(marked.body["status"]["phase"], "Terminating", "{}", marked.body);
}

#[tokio::test(flavor = "multi_thread")]
async fn namespaces_go_one_by_one() {
    let api = Api::start().await;
    let refused = api.delete("/api/v1/namespaces").await;
    assert_eq!(
        (refused.code, &refused.body["reason"]),
        (StatusCode::METHOD_NOT_ALLOWED, &json!("MethodNotAllowed"))
    );
    let list = api.get("/api/v1/namespaces").await.body;
    assert!(
        list["items"]
            .as_array()
            .unwrap()
            .iter()
            .all(|n| n["status"]["phase"] == "Active"),
        "{list}"
    );
    let resources = api.get("/api/v1").await.body;
    let has_verb = |name: &str| {
        let all = resources["resources"].as_array().unwrap();
        let resource = all.iter().find(|r| r["name"] == name).unwrap();
        resource["verbs"]
            .as_array()
            .unwrap()
            .contains(&json!("deletecollection"))
    };
    assert_eq!((has_verb("namespaces"), has_verb("pods")), (false, true));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_object_that_cannot_be_deleted_holds_up_its_own_namespace_only() {
    let api = Api::start().await;
    for name in ["a", "b"] {
        create_namespace(&api, name).await;
        let secret = json!({"metadata": {"name": "s"}});
        api.post(&format!("/api/v1/namespaces/{name}/secrets"), secret)
            .await;
    }
    // Worked off before the secrets, as "a" is before "b"; and nobody can read it.
    let broken = "/registry/configmaps/a/broken";
    let put = Put {
        key: broken.into(),
        value: "{".into(),
        splice_offset: 1,
        ..Default::default()
    };
    propose(&api, command::Op::Put(put)).await;
    let watch_of = async |name: &str| {
        let selector = format!("fieldSelector=metadata.name%3D{name}&timeoutSeconds=60");
        api.watch(&format!("/api/v1/namespaces?watch=1&{selector}")).await
    };
    let (mut a, mut b) = (watch_of("a").await, watch_of("b").await);
    let mut secrets = api
        .watch("/api/v1/namespaces/a/secrets?watch=1&timeoutSeconds=60")
        .await;
    for name in ["a", "b"] {
        let marked = api.delete(&format!("/api/v1/namespaces/{name}")).await;
        assert_eq!(marked.code, StatusCode::OK, "{}", marked.body);
    }
    while secrets.event().await.0 != "DELETED" {}
    while b.event().await.0 != "DELETED" {}
    let held = api.get("/api/v1/namespaces/a").await;
    assert_eq!(held.body["status"]["phase"], "Terminating", "{}", held.body);
    let delete = DeleteRange {
        key: broken.into(),
        ..Default::default()
    };
    propose(&api, command::Op::DeleteRange(delete)).await;
    while a.event().await.0 != "DELETED" {}
}

/// As a status write could leave it once.
#[tokio::test(flavor = "multi_thread")]
async fn a_namespace_that_nobody_deleted_is_not_emptied_whatever_its_phase() {
    let api = Api::start().await;
    for name in ["a", "b"] {
        create_namespace(&api, name).await;
    }
    let maps = "/api/v1/namespaces/a/configmaps";
    api.post(maps, json!({"metadata": {"name": "kept"}})).await;
    put_terminating(&api, "a").await;
    assert_eq!(
        api.get("/api/v1/namespaces/a").await.body["status"]["phase"],
        "Terminating"
    );
    let mut namespaces = api
        .watch("/api/v1/namespaces?watch=1&fieldSelector=metadata.name%3Db")
        .await;
    // They are worked off by name: when this one is gone, the other was looked at.
    api.delete("/api/v1/namespaces/b").await;
    while namespaces.event().await.0 != "DELETED" {}
    let kept = api.get(&format!("{maps}/kept")).await;
    assert_eq!(kept.code, StatusCode::OK, "{}", kept.body);
    assert_eq!(
        api.get("/api/v1/namespaces/a").await.body["spec"]["finalizers"],
        json!(["kubernetes"])
    );
}

/// Writes a namespace past the API: its phase says that it is being deleted, nothing else does.
async fn put_terminating(api: &Api, name: &str) {
    let head = r#"{"apiVersion":"v1","kind":"Namespace","metadata":{"#;
    let rest = r#"},"spec":{"finalizers":["kubernetes"]},"status":{"phase":"Terminating"}}"#;
    let put = Put {
        key: format!("/registry/namespaces/{name}").into(),
        value: format!("{head}\"name\":\"{name}\"{rest}").into(),
        terms: vec![IndexTerm {
            field: "f/status.phase".into(),
            value: "Terminating".into(),
        }],
        splice_offset: u32::try_from(head.len()).unwrap(),
        ..Default::default()
    };
    propose(api, command::Op::Put(put)).await;
}

async fn create_namespace(api: &Api, name: &str) {
    let created = api
        .post("/api/v1/namespaces", json!({"metadata": {"name": name}}))
        .await;
    assert_eq!(created.code, StatusCode::CREATED, "{}", created.body);
}

/// Changes the keyspace past the API.
async fn propose(api: &Api, op: command::Op) {
    let command = Command {
        op: Some(op),
        ..Default::default()
    };
    api.replica.propose(command).await.expect("a change");
}
