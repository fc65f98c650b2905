//! Everything around the objects: who may, what there is, health, starting over a foreign prefix.

use barque_apiserver::{ApiConfig, ApiServer, StartError};
use barque_proto::command::{Command, Put, command};
use http::{Method, StatusCode};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::api::{Api, start_replica};

#[tokio::test(flavor = "multi_thread")]
async fn who_may_do_what() {
    let api = Api::start().await;
    let check = async |token: &str, method: Method, path: &str, code: u16, text: &str| {
        let answer = api
            .send(method, path, &[("authorization", token)], Some("{}".into()))
            .await;
        assert_eq!(answer.code.as_u16(), code, "{path} {}", answer.body);
        assert!(answer.body.to_string().contains(text), "{}", answer.body);
    };
    check("", Method::GET, "/version", 200, "gitVersion").await;
    check("", Method::GET, "/readyz", 200, "ok").await;
    check("", Method::GET, "/api", 403, "cannot get path").await;
    check("Bearer nobody", Method::GET, "/api", 401, "Unauthorized").await;
    check("Bearer jane", Method::GET, "/api", 200, "APIVersions").await;
    let pods = "/api/v1/namespaces/default/pods";
    check("Bearer jane", Method::GET, pods, 403, "cannot list resource").await;
    check("Bearer root", Method::GET, pods, 200, "PodList").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn questions_about_oneself() {
    let api = Api::start().await;
    let ask = async |token: &str| {
        let body = json!({"spec": {"resourceAttributes": {"verb": "list", "resource": "pods"}}}).to_string();
        let path = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews";
        api.send(Method::POST, path, &[("authorization", token)], Some(body))
            .await
            .body["status"]["allowed"]
            .clone()
    };
    assert_eq!(
        (ask("Bearer root").await, ask("Bearer jane").await),
        (json!(true), json!(false))
    );
    let path = "/apis/authentication.k8s.io/v1/selfsubjectreviews";
    let me = api
        .send(
            Method::POST,
            path,
            &[("authorization", "Bearer jane")],
            Some("{}".into()),
        )
        .await;
    assert_eq!(me.body["status"]["userInfo"]["username"], "jane");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_there_is() {
    let api = Api::start().await;
    let accept = [(
        "accept",
        "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList,application/json",
    )];
    let aggregated = api.send(Method::GET, "/apis", &accept, None).await;
    assert!(
        aggregated.headers["content-type"]
            .to_str()
            .unwrap()
            .contains("as=APIGroupDiscoveryList")
    );
    assert_eq!(aggregated.body["items"][0]["metadata"]["name"], "apps");
    let plain = api.get("/apis").await.body;
    assert_eq!(plain["kind"], "APIGroupList");
    assert_eq!(
        api.get("/apis/apps/v1").await.body["resources"][0]["name"],
        "deployments"
    );
    assert_eq!(api.get("/apis/nothing.io").await.code, StatusCode::NOT_FOUND);
    let index = api.get("/openapi/v3").await.body;
    let url = index["paths"]["apis/apps/v1"]["serverRelativeURL"]
        .as_str()
        .unwrap()
        .to_owned();
    assert_eq!(api.get(&url).await.body["openapi"], "3.0.0");
    let protobuf = [(
        "accept",
        "application/com.github.proto-openapi.spec.v2@v1.0+protobuf",
    )];
    assert_eq!(
        api.send(Method::GET, "/openapi/v2", &protobuf, None).await.code,
        StatusCode::NOT_ACCEPTABLE
    );
    let verbose = api.get("/readyz?verbose").await.body;
    assert!(verbose.as_str().unwrap().contains("[+]etcd ok\n"), "{verbose}");
}

#[tokio::test(flavor = "multi_thread")]
async fn bodies_that_are_too_large_or_of_another_kind() {
    let api = Api::start().await;
    let path = "/api/v1/namespaces/default/configmaps";
    let large = json!({"metadata": {"name": "a"}, "data": {"k": "x".repeat(4 << 20)}}).to_string();
    assert_eq!(
        api.send(Method::POST, path, &[], Some(large)).await.code,
        StatusCode::PAYLOAD_TOO_LARGE
    );
    for (form, text, expect) in [
        ("application/cbor", "{}", StatusCode::UNSUPPORTED_MEDIA_TYPE),
        (
            "application/vnd.kubernetes.protobuf",
            "k8s",
            StatusCode::BAD_REQUEST,
        ),
        (
            "application/vnd.kubernetes.protobuf",
            "k8s\0\n\x05\x12\x03Job",
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
        ),
        (
            "application/vnd.kubernetes.protobuf",
            "k8s\0\n\x0f\n\x02v1\x12\tConfigMap\x12\x14\n\x06\n\x04wire\x12\n\n\x01k\x12\x05value",
            StatusCode::CREATED,
        ),
    ] {
        let answer = api
            .send(Method::POST, path, &[("content-type", form)], Some(text.into()))
            .await;
        assert_eq!(answer.code, expect, "{form} {text:?}");
    }
    let stored = api.send(Method::GET, &format!("{path}/wire"), &[], None).await;
    assert_eq!(stored.body["data"], json!({"k": "value"}));
    let yaml = "metadata:\n  name: a\ndata:\n  k: v\n".to_owned();
    let answer = api
        .send(
            Method::POST,
            path,
            &[("content-type", "application/yaml")],
            Some(yaml),
        )
        .await;
    assert_eq!(
        (answer.code, &answer.body["data"]["k"]),
        (StatusCode::CREATED, &json!("v"))
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_prefix_of_somebody_else_is_left_alone() {
    let dir = TempDir::new().unwrap();
    let replica = start_replica(dir.path()).await;
    let put = Put {
        key: "/registry/pods/default/a".into(),
        value: "theirs".into(),
        ..Default::default()
    };
    let command = Command {
        op: Some(command::Op::Put(put)),
        ..Default::default()
    };
    replica.propose(command).await.expect("a put");
    let server = ApiServer::new(replica.clone(), ApiConfig::default());
    assert!(matches!(
        server.run_background().await,
        Err(StartError::ForeignPrefix)
    ));
    assert!(!server.is_ready());
    replica.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_start_finds_its_own_prefix() {
    let api = Api::start().await;
    let before: Value = api.create_config_map("a", json!({})).await;
    api.server.shutdown().await;
    let again = ApiServer::new(api.replica.clone(), ApiConfig::default());
    again.run_background().await.expect("its own prefix");
    assert!(again.is_ready());
    assert_eq!(
        api.get("/api/v1/namespaces/default/configmaps/a").await.body,
        before
    );
    again.shutdown().await;
}
