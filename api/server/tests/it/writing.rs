//! Create, update, patch: what is stored, what is refused, and with which words.

use barque_proto::command::{Alarm, Command, alarm::Kind, command::Op};
use http::{Method, StatusCode};
use serde_json::{Value, json};

use crate::api::{Api, pod, version};

const PODS: &str = "/api/v1/namespaces/default/pods";
const MAPS: &str = "/api/v1/namespaces/default/configmaps";
const DEPLOYMENTS: &str = "/apis/apps/v1/namespaces/default/deployments";

fn deployment(name: &str) -> Value {
    json!({
        "metadata": { "name": name },
        "spec": {
            "selector": { "matchLabels": { "a": "b" } },
            "template": {
                "metadata": { "labels": { "a": "b" } },
                "spec": { "containers": [{ "name": "c", "image": "i" }] },
            },
        },
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_created_object_is_defaulted_and_found() {
    let api = Api::start().await;
    let created = api.post(PODS, pod("a")).await;
    assert_eq!(created.code, StatusCode::CREATED, "{}", created.body);
    let object = &created.body;
    assert_eq!(object["status"]["phase"], "Pending");
    assert_eq!(object["spec"]["restartPolicy"], "Always");
    assert!(object["metadata"]["uid"].is_string());
    let got = api.get(&format!("{PODS}/a")).await;
    assert_eq!((got.code, &got.body), (StatusCode::OK, object));
    let again = api.post(PODS, pod("a")).await;
    assert_eq!(again.code, StatusCode::CONFLICT);
    assert_eq!(
        (&again.body["reason"], &again.body["message"]),
        (&json!("AlreadyExists"), &json!("pods \"a\" already exists"))
    );
    let missing = api.get(&format!("{PODS}/b")).await;
    assert_eq!(
        (missing.code, &missing.body["message"]),
        (StatusCode::NOT_FOUND, &json!("pods \"b\" not found"))
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_created() {
    let api = Api::start().await;
    let check = async |path: &str, body: Value, code: u16, text: &str| {
        let answer = api.post(path, body).await;
        assert_eq!(answer.code.as_u16(), code, "{}", answer.body);
        let message = answer.body["message"].as_str().unwrap_or_default();
        assert!(message.contains(text), "{message}");
    };
    check(
        PODS,
        json!({"metadata": {"name": "x"}}),
        422,
        "Pod \"x\" is invalid: spec.containers: Required value",
    )
    .await;
    check(PODS, pod("X_"), 422, "metadata.name: Invalid value: \"X_\"").await;
    check(
        "/api/v1/namespaces/nowhere/pods",
        pod("x"),
        404,
        "namespaces \"nowhere\" not found",
    )
    .await;
    check(
        PODS,
        json!({"kind": "Node", "metadata": {"name": "x"}}),
        400,
        "cannot be handled as a Pod",
    )
    .await;
    check(
        PODS,
        json!({"metadata": {"name": "x", "namespace": "other"}}),
        400,
        "does not match the namespace",
    )
    .await;
    check(
        PODS,
        json!({"metadata": {"name": "x", "resourceVersion": "1"}}),
        400,
        "should not be set",
    )
    .await;
    check(
        DEPLOYMENTS,
        json!({"metadata": {"name": "x"}, "spec": {"replicas": "3"}}),
        400,
        "cannot unmarshal string",
    )
    .await;
    check(
        &format!("{PODS}?fieldValidation=Strict"),
        json!({"spec": {"foo": 1}}),
        400,
        "strict decoding error: unknown field \"spec.foo\"",
    )
    .await;
    check("/api/v1/pods", pod("x"), 405, "does not allow this method").await;
    check(
        "/api/v1/namespaces/default/things",
        json!({}),
        404,
        "could not find the requested resource",
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn unknown_fields_are_warned_of_and_dropped() {
    let api = Api::start().await;
    let mut object = pod("a");
    object["spec"]["foo"] = json!(1);
    let answer = api.post(PODS, object).await;
    assert_eq!(answer.code, StatusCode::CREATED);
    assert_eq!(
        answer.headers["warning"],
        "299 - \"unknown field \\\"spec.foo\\\"\""
    );
    assert_eq!(answer.body["spec"]["foo"], Value::Null);
}

#[tokio::test(flavor = "multi_thread")]
async fn names_are_generated() {
    let api = Api::start().await;
    let answer = api.post(MAPS, json!({"metadata": {"generateName": "x-"}})).await;
    assert_eq!(answer.code, StatusCode::CREATED);
    let name = answer.body["metadata"]["name"].as_str().unwrap();
    assert!(name.starts_with("x-") && name.len() == 7, "{name}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_update_rests_on_the_version_it_names() {
    let api = Api::start().await;
    let old = api.create_config_map("a", json!({})).await;
    let mut new = old.clone();
    new["data"]["k"] = json!("w");
    let path = format!("{MAPS}/a");
    let updated = api.put(&path, new.clone()).await;
    assert_eq!(
        (updated.code, &updated.body["data"]["k"]),
        (StatusCode::OK, &json!("w"))
    );
    assert!(version(&updated.body) > version(&old));
    new["data"]["k"] = json!("z");
    let stale = api.put(&path, new.clone()).await;
    assert_eq!(stale.code, StatusCode::CONFLICT);
    assert_eq!(
        stale.body["message"],
        "Operation cannot be fulfilled on configmaps \"a\": the object has been modified; please apply your changes to \
         the latest version and try again"
    );
    new["metadata"]["resourceVersion"] = json!("");
    assert_eq!(
        api.put(&path, new.clone()).await.code,
        StatusCode::OK,
        "without a version it is unconditional"
    );
    let same = api.put(&path, new).await;
    let got = api.get(&path).await;
    assert_eq!(same.body, got.body, "what changes nothing is not written");
    let missing = api
        .put(&format!("{MAPS}/b"), json!({"metadata": {"name": "b"}}))
        .await;
    assert_eq!(missing.code, StatusCode::NOT_FOUND);
}

#[tokio::test(flavor = "multi_thread")]
async fn patches_of_three_kinds() {
    let api = Api::start().await;
    assert_eq!(
        api.post(DEPLOYMENTS, deployment("a")).await.code,
        StatusCode::CREATED
    );
    let path = format!("{DEPLOYMENTS}/a");
    let merged = api.patch(&path, "merge", json!({"spec": {"replicas": 2}})).await;
    assert_eq!(
        (merged.code, &merged.body["spec"]["replicas"]),
        (StatusCode::OK, &json!(2)),
        "{}",
        merged.body
    );
    let json_patch = json!([{"op": "replace", "path": "/spec/replicas", "value": 3}]);
    let patched = api.patch(&path, "json", json_patch).await;
    assert_eq!(
        (patched.code, &patched.body["spec"]["replicas"]),
        (StatusCode::OK, &json!(3))
    );
    let add = json!({"spec": {"template": {"spec": {"containers": [{"name": "d", "image": "j"}]}}}});
    let strategic = api.patch(&path, "strategic-merge", add).await;
    assert_eq!(strategic.code, StatusCode::OK, "{}", strategic.body);
    assert_eq!(
        strategic.body["spec"]["template"]["spec"]["containers"]
            .as_array()
            .map(Vec::len),
        Some(2)
    );
    assert_eq!(strategic.body["metadata"]["generation"], 4);
    let apply = api.send(
        Method::PATCH,
        &path,
        &[("content-type", "application/apply-patch+yaml")],
        Some("{}".into()),
    );
    assert_eq!(apply.await.code, StatusCode::UNSUPPORTED_MEDIA_TYPE);
    let bad = api
        .patch(
            &format!("{path}?fieldValidation=Strict"),
            "merge",
            json!({"spec": {"foo": 1}}),
        )
        .await;
    assert_eq!(bad.code, StatusCode::UNPROCESSABLE_ENTITY);
    assert!(
        bad.body["message"]
            .as_str()
            .unwrap()
            .contains("unknown field \"spec.foo\""),
        "{}",
        bad.body
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn concurrent_patches_all_count() {
    let api = Api::start().await;
    api.create_config_map("a", json!({})).await;
    let path = format!("{MAPS}/a");
    let patches = (0..20).map(|i| api.patch(&path, "merge", json!({"data": {format!("k{i}"): "x"}})));
    for answer in futures_util::future::join_all(patches).await {
        assert_eq!(answer.code, StatusCode::OK, "{}", answer.body);
    }
    let got = api.get(&path).await;
    assert_eq!(got.body["data"].as_object().map(|d| d.len()), Some(21));
}

#[tokio::test(flavor = "multi_thread")]
async fn status_is_a_part_of_its_own() {
    let api = Api::start().await;
    api.post(PODS, pod("a")).await;
    let status = json!({"status": {"phase": "Running", "podIP": "10.0.0.1"}, "spec": {"nodeName": "n"}});
    let patched = api
        .patch(&format!("{PODS}/a/status"), "merge", status.clone())
        .await;
    assert_eq!(patched.body["status"]["phase"], "Running", "{}", patched.body);
    assert_eq!(patched.body["spec"]["nodeName"], Value::Null);
    let main = api
        .patch(
            &format!("{PODS}/a"),
            "merge",
            json!({"status": {"phase": "Failed"}}),
        )
        .await;
    assert_eq!(
        (main.code, &main.body["status"]["phase"]),
        (StatusCode::OK, &json!("Running"))
    );
    let immutable = api
        .patch(&format!("{PODS}/a"), "merge", json!({"spec": {"nodeName": "n"}}))
        .await;
    assert_eq!(immutable.code, StatusCode::UNPROCESSABLE_ENTITY);
    assert!(
        immutable.body["message"]
            .as_str()
            .unwrap()
            .contains("pod updates may not change fields other than")
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn scale_and_binding() {
    let api = Api::start().await;
    api.post(DEPLOYMENTS, deployment("a")).await;
    let path = format!("{DEPLOYMENTS}/a/scale");
    let scale = api.get(&path).await;
    assert_eq!(
        (&scale.body["spec"]["replicas"], &scale.body["status"]["selector"]),
        (&json!(1), &json!("a=b"))
    );
    let patched = api.patch(&path, "merge", json!({"spec": {"replicas": 5}})).await;
    assert_eq!(
        (patched.code, &patched.body["spec"]["replicas"]),
        (StatusCode::OK, &json!(5)),
        "{}",
        patched.body
    );
    let mut wanted = patched.body;
    wanted["spec"]["replicas"] = json!(0);
    assert_eq!(api.put(&path, wanted.clone()).await.code, StatusCode::OK);
    assert_eq!(
        api.put(&path, wanted).await.code,
        StatusCode::CONFLICT,
        "the version is old by now"
    );
    api.post(PODS, pod("p")).await;
    let binding = json!({"metadata": {"name": "p"}, "target": {"kind": "Node", "name": "n1"}});
    let path = format!("{PODS}/p/binding");
    assert_eq!(api.post(&path, binding.clone()).await.code, StatusCode::CREATED);
    let again = api.post(&path, binding).await;
    assert_eq!(again.code, StatusCode::CONFLICT);
    assert!(
        again.body["message"]
            .as_str()
            .unwrap()
            .contains("already assigned to node \"n1\"")
    );
    let bound = api.get(&format!("{PODS}?fieldSelector=spec.nodeName=n1")).await;
    assert_eq!(bound.body["items"][0]["metadata"]["name"], "p");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_binding_is_for_the_pod_that_the_scheduler_saw() {
    let api = Api::start().await;
    let seen = api.post(PODS, pod("p")).await.body;
    assert_eq!(api.delete(&format!("{PODS}/p")).await.body["status"], "Success");
    let pod = api.post(PODS, pod("p")).await.body;
    assert_ne!(seen["metadata"]["uid"], pod["metadata"]["uid"]);
    let path = format!("{PODS}/p/binding");
    let bind = async |metadata: Value| {
        let binding = json!({"metadata": metadata, "target": {"kind": "Node", "name": "n1"}});
        api.post(&path, binding).await
    };
    let uid = |pod: &Value| pod["metadata"]["uid"].clone();
    let version = |pod: &Value| pod["metadata"]["resourceVersion"].clone();
    let refused = [
        (json!({"name": "p", "uid": uid(&seen)}), StatusCode::CONFLICT),
        (
            json!({"name": "p", "uid": uid(&pod), "resourceVersion": version(&seen)}),
            StatusCode::CONFLICT,
        ),
        (json!({"name": "q"}), StatusCode::BAD_REQUEST),
    ];
    for (metadata, code) in refused {
        let answer = bind(metadata).await;
        assert_eq!(answer.code, code, "{}", answer.body);
        let stored = api.get(&format!("{PODS}/p")).await.body;
        assert_eq!(stored["metadata"], pod["metadata"], "nothing was written");
    }
    let right = json!({"name": "p", "uid": uid(&pod), "resourceVersion": version(&pod)});
    assert_eq!(bind(right).await.code, StatusCode::CREATED);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dry_run_changes_nothing() {
    let api = Api::start().await;
    let created = api.post(&format!("{PODS}?dryRun=All"), pod("a")).await;
    assert_eq!(
        (created.code, &created.body["status"]["phase"]),
        (StatusCode::CREATED, &json!("Pending"))
    );
    assert_eq!(api.get(&format!("{PODS}/a")).await.code, StatusCode::NOT_FOUND);
    api.create_config_map("m", json!({})).await;
    let patched = api
        .patch(
            &format!("{MAPS}/m?dryRun=All"),
            "merge",
            json!({"data": {"k": "w"}}),
        )
        .await;
    assert_eq!(patched.body["data"]["k"], "w");
    assert_eq!(
        api.delete(&format!("{MAPS}/m?dryRun=All")).await.code,
        StatusCode::OK
    );
    assert_eq!(api.get(&format!("{MAPS}/m")).await.body["data"]["k"], "v");
    assert_eq!(
        api.post(&format!("{MAPS}?dryRun=All"), json!({"metadata": {"name": "m"}}))
            .await
            .code,
        StatusCode::CONFLICT
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn an_address_is_given_out_once() {
    let api = Api::start().await;
    let path = "/api/v1/namespaces/default/services";
    let service = |name: &str, ip: &str| json!({"metadata": {"name": name}, "spec": {"clusterIP": ip, "ports": [{"port": 80}]}});
    let first = api.post(path, service("a", "10.96.7.7")).await;
    assert_eq!(first.code, StatusCode::CREATED, "{}", first.body);
    let taken = api.post(path, service("b", "10.96.7.7")).await;
    assert_eq!(taken.code, StatusCode::UNPROCESSABLE_ENTITY);
    assert!(
        taken.body["message"]
            .as_str()
            .unwrap()
            .contains("provided IP is already allocated"),
        "{}",
        taken.body
    );
    let drawn = api.post(path, service("c", "")).await;
    assert!(
        drawn.body["spec"]["clusterIP"]
            .as_str()
            .unwrap()
            .starts_with("10."),
        "{}",
        drawn.body
    );
    assert_eq!(api.delete(&format!("{path}/a")).await.code, StatusCode::OK);
    assert_eq!(
        api.post(path, service("b", "10.96.7.7")).await.code,
        StatusCode::CREATED,
        "free again"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn secrets_leases_and_events() {
    let api = Api::start().await;
    let secret = json!({"metadata": {"name": "s"}, "stringData": {"a": "x"}});
    let answer = api.post("/api/v1/namespaces/default/secrets", secret).await;
    assert_eq!(
        (&answer.body["data"]["a"], &answer.body["type"]),
        (&json!("eA=="), &json!("Opaque"))
    );
    assert_eq!(answer.body["stringData"], Value::Null);
    let lease =
        json!({"metadata": {"name": "l"}, "spec": {"holderIdentity": "x", "leaseDurationSeconds": 5}});
    let path = "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases/l";
    assert_eq!(
        api.put(path, lease).await.code,
        StatusCode::CREATED,
        "a put makes it"
    );
    let event = json!({
        "metadata": {"name": "e"}, "involvedObject": {"kind": "Pod", "namespace": "default", "name": "p", "uid": "u"},
        "reason": "Started", "type": "Normal",
    });
    let answer = api.post("/api/v1/namespaces/default/events", event).await;
    assert_eq!(answer.code, StatusCode::CREATED, "{}", answer.body);
    assert_eq!(
        api.replica.store().leases().unwrap().len(),
        1,
        "it hangs on a lease of the keyspace"
    );
    let found = api
        .get("/api/v1/events?fieldSelector=involvedObject.uid%3Du,reason%3DStarted")
        .await;
    assert_eq!(found.body["items"][0]["metadata"]["name"], "e");
}

/// Whoever holds a lock as a lease must not be overwritten by one who did not look.
#[tokio::test(flavor = "multi_thread")]
async fn a_lease_is_not_overwritten_unseen() {
    let api = Api::start().await;
    let path = "/apis/coordination.k8s.io/v1/namespaces/default/leases/l";
    let lease = |version: &str, holder: &str| {
        json!({
            "metadata": {"name": "l", "resourceVersion": version}, "spec": {"holderIdentity": holder},
        })
    };
    let made = api.put(path, lease("", "x")).await;
    assert_eq!(made.code, StatusCode::CREATED, "{}", made.body);
    for none in ["", "0"] {
        let refused = api.put(path, lease(none, "y")).await;
        assert_eq!(refused.code, StatusCode::UNPROCESSABLE_ENTITY, "{}", refused.body);
        assert_eq!(
            refused.body["message"],
            "leases.coordination.k8s.io \"l\" is invalid: metadata.resourceVersion: Invalid value: 0x0: must be \
             specified for an update"
        );
        assert_eq!(
            refused.body["details"]["causes"][0]["field"],
            "metadata.resourceVersion"
        );
    }
    let unset = json!({"metadata": {"resourceVersion": null}, "spec": {"holderIdentity": "y"}});
    let refused = api.patch(path, "merge", unset).await;
    assert_eq!(refused.code, StatusCode::UNPROCESSABLE_ENTITY, "{}", refused.body);
    let seen = made.body["metadata"]["resourceVersion"].as_str().unwrap();
    let taken = api.put(path, lease(seen, "y")).await;
    assert_eq!(taken.code, StatusCode::OK, "{}", taken.body);
    let patched = api
        .patch(path, "merge", json!({"spec": {"holderIdentity": "z"}}))
        .await;
    assert_eq!(
        (patched.code, &patched.body["spec"]["holderIdentity"]),
        (StatusCode::OK, &json!("z"))
    );
    assert_eq!(
        api.put(path, lease(seen, "x")).await.code,
        StatusCode::CONFLICT,
        "a version of before"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn an_update_of_an_object_that_is_gone_makes_no_other() {
    let api = Api::start().await;
    let gone = json!({"metadata": {"name": "l", "uid": "u"}});
    let path = "/apis/coordination.k8s.io/v1/namespaces/default/leases/l";
    let refused = api.put(path, gone.clone()).await;
    assert_eq!(refused.code, StatusCode::CONFLICT, "{}", refused.body);
    let message = refused.body["message"].as_str().unwrap();
    assert!(
        message.ends_with("Precondition failed: UID in precondition: u, UID in object meta: "),
        "{message}"
    );
    assert_eq!(api.get(path).await.code, StatusCode::NOT_FOUND);
    let missing = api.put(&format!("{MAPS}/l"), gone).await;
    assert_eq!(missing.code, StatusCode::NOT_FOUND, "{}", missing.body);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_update_makes_a_service_as_a_creation_does() {
    let api = Api::start().await;
    let path = "/api/v1/namespaces/default/services/s";
    let service = json!({"metadata": {"name": "s"}, "spec": {"ports": [{"port": 80}]}});
    let made = api.put(path, service).await;
    assert_eq!(made.code, StatusCode::CREATED, "{}", made.body);
    assert!(made.body["spec"]["clusterIP"].is_string(), "{}", made.body);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_nests_too_deeply_to_be_read_again_is_not_stored() {
    let api = Api::start().await;
    let nested = |levels: usize| format!("{}{}", r#"{"f:a":"#.repeat(levels - 1) + "{", "}".repeat(levels));
    // The object, its metadata, the list of managed fields, its entry.
    let around = 4;
    let protobuf = "application/vnd.kubernetes.protobuf";
    for (name, levels, code) in [("deep", 100 - around, 201), ("deeper", 101 - around, 400)] {
        let text = nested(levels);
        let made = api.post_bytes(MAPS, protobuf, config_map_with(name, &text)).await;
        assert_eq!(made.code.as_u16(), code, "{}", made.body);
        let fields: Value = serde_json::from_str(&text).unwrap();
        let json =
            json!({"metadata": {"name": format!("{name}-json"), "managedFields": [{"fieldsV1": fields}]}});
        let made = api.post(MAPS, json).await;
        assert_eq!(made.code.as_u16(), code, "{}", made.body);
    }
    // Beyond what the parser of stored objects takes, with what is around it.
    let deepest = config_map_with("deepest", &nested(125));
    let refused = api.post_bytes(MAPS, protobuf, deepest).await;
    assert_eq!(
        (refused.code, &refused.body["message"]),
        (
            StatusCode::BAD_REQUEST,
            &json!("the object nests more than 100 levels deep")
        )
    );
    let fields: Value = serde_json::from_str(&nested(101 - around)).unwrap();
    let patch = json!({"metadata": {"managedFields": [{"fieldsV1": fields}]}});
    let path = format!("{MAPS}/deep");
    let refused = api.patch(&path, "merge", patch).await;
    assert_eq!(refused.code, StatusCode::BAD_REQUEST, "{}", refused.body);
    assert_eq!(api.delete(&path).await.code, StatusCode::OK);
}

/// A field of a protobuf message whose wire type is that of texts and messages.
fn part(number: u64, bytes: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    for mut rest in [(number << 3) | 2, bytes.len() as u64] {
        while rest > 0x7f {
            out.push((rest & 0x7f) as u8 | 0x80);
            rest >>= 7;
        }
        out.push(rest as u8);
    }
    out.extend_from_slice(bytes);
    out
}

/// A ConfigMap in protobuf, with one entry of managed fields.
fn config_map_with(name: &str, fields: &str) -> Vec<u8> {
    let fields = part(7, &part(1, fields.as_bytes()));
    let managed_fields = part(17, &fields);
    let metadata = part(1, &[part(1, name.as_bytes()), managed_fields].concat());
    let kind = [part(1, b"v1"), part(2, b"ConfigMap")].concat();
    [b"k8s\0".to_vec(), part(1, &kind), part(2, &metadata)].concat()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_corrupt_cluster_changes_no_objects_and_shows_those_it_has() {
    let api = Api::start().await;
    api.create_config_map("kept", json!({})).await;
    let alarm = |active| Command {
        op: Some(Op::Alarm(Alarm {
            kind: Kind::Corrupt.into(),
            member_id: 1,
            active,
        })),
        ..Command::default()
    };
    api.replica.propose(alarm(true)).await.expect("an alarm");
    let new = || json!({ "metadata": { "name": "new" } });
    for refused in [
        api.post(MAPS, new()).await,
        api.delete(&format!("{MAPS}/kept")).await,
    ] {
        assert_eq!(refused.code, StatusCode::INTERNAL_SERVER_ERROR);
        let message = &refused.body["message"];
        assert_eq!(
            message,
            &json!("Internal error occurred: etcdserver: corrupt cluster")
        );
    }
    assert_eq!(api.get(&format!("{MAPS}/kept")).await.code, StatusCode::OK);
    api.replica
        .propose(alarm(false))
        .await
        .expect("an alarm disarmed");
    assert_eq!(api.post(MAPS, new()).await.code, StatusCode::CREATED);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_database_takes_no_objects_and_gives_up_those_it_has() {
    let api = Api::start().await;
    api.create_config_map("kept", json!({})).await;
    let alarm = |active| Command {
        op: Some(Op::Alarm(Alarm {
            kind: Kind::Nospace.into(),
            member_id: 1,
            active,
        })),
        ..Command::default()
    };
    api.replica.propose(alarm(true)).await.expect("an alarm");
    let new = || json!({ "metadata": { "name": "new" } });
    let refused = api.post(MAPS, new()).await;
    assert_eq!(
        refused.code,
        StatusCode::INTERNAL_SERVER_ERROR,
        "{}",
        refused.body
    );
    assert_eq!(
        (
            &refused.body["kind"],
            &refused.body["reason"],
            &refused.body["message"]
        ),
        (
            &json!("Status"),
            &json!("InternalError"),
            &json!("Internal error occurred: etcdserver: mvcc: database space exceeded")
        )
    );
    assert_eq!(api.get(&format!("{MAPS}/kept")).await.code, StatusCode::OK);
    assert_eq!(api.delete(&format!("{MAPS}/kept")).await.code, StatusCode::OK);
    api.replica
        .propose(alarm(false))
        .await
        .expect("an alarm disarmed");
    let created = api.post(MAPS, new()).await;
    assert_eq!(created.code, StatusCode::CREATED, "{}", created.body);
}
