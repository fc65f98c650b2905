//! The judge: kubectl, doing what people do with it.

use std::time::Duration;

use barque_chaos::cluster::{Cluster, Kubectl, Options};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::{api::Api, serving::Serving};

const PATIENCE: Duration = Duration::from_secs(60);

/// kubectl, and every failure told with what was called.
pub struct Judge {
    kubectl: Kubectl,
}

impl Judge {
    pub fn new(kubectl: Kubectl) -> Self {
        Self { kubectl }
    }

    async fn ok(&self, line: &str) -> String {
        self.ok_with(line, "").await
    }

    async fn ok_with(&self, line: &str, input: &str) -> String {
        let arguments: Vec<&str> = line.split_whitespace().collect();
        let output = self
            .kubectl
            .run_with_input(&arguments, input)
            .await
            .expect("kubectl starts");
        output
            .success()
            .unwrap_or_else(|e| panic!("kubectl {line}: {e:#}"))
    }

    async fn refused(&self, line: &str, input: &str) -> String {
        let arguments: Vec<&str> = line.split_whitespace().collect();
        let output = self
            .kubectl
            .run_with_input(&arguments, input)
            .await
            .expect("kubectl starts");
        assert!(!output.status.success(), "kubectl {line}: {}", output.stdout);
        output.stderr
    }

    async fn json(&self, line: &str) -> Value {
        let text = self.ok(&format!("{line} -o json")).await;
        serde_json::from_str(&text).expect("kubectl prints JSON")
    }
}

fn holds(text: &str, parts: &[&str]) {
    for part in parts {
        assert!(text.contains(part), "{part:?} is not in:\n{text}");
    }
}

fn deployment(image: &str, replicas: i64) -> String {
    json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": { "name": "web", "labels": { "app": "web" } },
        "spec": {
            "replicas": replicas, "selector": { "matchLabels": { "app": "web" } },
            "template": {
                "metadata": { "labels": { "app": "web" } },
                "spec": { "containers": [{ "name": "c", "image": image }] },
            },
        },
    })
    .to_string()
}

/// Everything, in an order in which each step finds what it needs.
pub async fn judge(judge: &Judge) {
    looking_around(judge).await;
    creating_and_reading(judge).await;
    applying(judge).await;
    patching(judge).await;
    replacing_in_conflict(judge).await;
    selecting_and_paging(judge).await;
    watching(judge).await;
    other_resources(judge).await;
    deleting(judge).await;
}

async fn looking_around(judge: &Judge) {
    holds(&judge.ok("version").await, &["Server Version: v1.33"]);
    let resources = judge.ok("api-resources").await;
    holds(
        &resources,
        &[
            "configmaps",
            "cm",
            "deployments",
            "deploy",
            "apps/v1",
            "leases",
            "coordination.k8s.io/v1",
        ],
    );
    holds(
        &judge.ok("api-versions").await,
        &["apps/v1", "coordination.k8s.io/v1", "v1"],
    );
    holds(
        &judge.ok("explain pod.spec.containers").await,
        &["FIELD: containers", "imagePullPolicy", "-required-"],
    );
    holds(
        &judge.ok("explain deployment").await,
        &["GROUP:      apps", "KIND:       Deployment", "VERSION:    v1"],
    );
    holds(&judge.ok("auth can-i create pods").await, &["yes"]);
    holds(&judge.refused("auth can-i create pods --as jane", "").await, &[]);
    holds(
        &judge.ok("auth whoami").await,
        &["system:masters", "system:authenticated"],
    );
    let forbidden = judge.refused("get pods --as jane", "").await;
    holds(
        &forbidden,
        &[
            "(Forbidden): pods is forbidden: User \"jane\" cannot list resource \"pods\" in API group \"\" in the namespace \"default\"",
        ],
    );
    holds(
        &judge.ok("get namespaces").await,
        &[
            "default",
            "kube-system",
            "kube-public",
            "kube-node-lease",
            "Active",
        ],
    );
    holds(
        &judge.ok("get --raw /readyz?verbose").await,
        &["readyz check passed"],
    );
}

async fn creating_and_reading(judge: &Judge) {
    holds(
        &judge.ok("create configmap m --from-literal=a=1").await,
        &["configmap/m created"],
    );
    let again = judge.refused("create configmap m --from-literal=a=1", "").await;
    holds(
        &again,
        &["failed to create configmap", "configmaps \"m\" already exists"],
    );
    holds(
        &judge.ok("get configmap m -o yaml").await,
        &["a: \"1\"", "kind: ConfigMap", "resourceVersion: "],
    );
    assert_eq!(judge.json("get cm m").await["data"]["a"], "1");
    holds(&judge.ok("get cm m -o wide").await, &["NAME", "DATA", "AGE", "m"]);
    assert_eq!(judge.ok("get cm m -o name").await.trim(), "configmap/m");
    assert_eq!(judge.ok("get cm m -o jsonpath={.data.a}").await, "1");
    holds(
        &judge.refused("get cm nothing", "").await,
        &["(NotFound): configmaps \"nothing\" not found"],
    );
    holds(
        &judge.ok("run p --image=i:1 --restart=Never").await,
        &["pod/p created"],
    );
    let wide = judge.ok("get pods -o wide").await;
    holds(
        &wide,
        &[
            "NAME", "READY", "STATUS", "RESTARTS", "AGE", "IP", "NODE", "0/1", "Pending",
        ],
    );
    holds(
        &judge.ok("describe pod p").await,
        &["Name:         p", "Image:", "i:1", "Status:       Pending"],
    );
    holds(&judge.ok("label pod p tier=front").await, &["pod/p labeled"]);
    holds(&judge.ok("annotate pod p note=x").await, &["pod/p annotated"]);
    let dry = judge
        .ok("create configmap dry --from-literal=a=1 --dry-run=server")
        .await;
    holds(&dry, &["configmap/dry created (server dry run)"]);
    judge.refused("get cm dry", "").await;
}

async fn applying(judge: &Judge) {
    let mut unknown: Value = serde_json::from_str(&deployment("i:1", 1)).expect("JSON");
    unknown["spec"]["foo"] = json!("bar");
    let strict = judge.refused("apply -f -", &unknown.to_string()).await;
    holds(&strict, &["strict decoding error: unknown field \"spec.foo\""]);
    let warned = judge
        .ok_with("apply --validate=ignore -f -", &unknown.to_string())
        .await;
    holds(&warned, &["deployment.apps/web created"]);
    holds(
        &judge.ok_with("apply -f -", &deployment("i:1", 1)).await,
        &["deployment.apps/web"],
    );
    holds(
        &judge.ok_with("apply -f -", &deployment("i:1", 1)).await,
        &["deployment.apps/web unchanged"],
    );
    holds(&judge.ok_with("diff -f -", &deployment("i:1", 1)).await, &[]);
    holds(
        &judge.ok_with("apply -f -", &deployment("i:2", 2)).await,
        &["deployment.apps/web configured"],
    );
    let live = judge.json("get deployment web").await;
    assert_eq!(live["spec"]["template"]["spec"]["containers"][0]["image"], "i:2");
    assert_eq!(
        (&live["spec"]["replicas"], &live["spec"]["foo"]),
        (&json!(2), &Value::Null)
    );
    let unknown = judge
        .refused("apply --dry-run=server -f -", &unknown.to_string())
        .await;
    holds(&unknown, &["unknown field \"spec.foo\""]);
    let invalid = judge.refused("apply -f -", &deployment("i:2", -1)).await;
    holds(
        &invalid,
        &["The Deployment \"web\" is invalid: spec.replicas: Invalid value: -1"],
    );
    let mistyped = deployment("i:2", 1).replace("\"replicas\":1", "\"replicas\":\"one\"");
    judge.refused("apply -f -", &mistyped).await;
    holds(
        &judge.ok("scale deployment web --replicas=4").await,
        &["deployment.apps/web scaled"],
    );
    holds(
        &judge.ok("get deploy").await,
        &["NAME", "READY", "UP-TO-DATE", "AVAILABLE", "web", "0/4"],
    );
    holds(
        &judge.ok("set image deployment/web c=i:3").await,
        &["deployment.apps/web image updated"],
    );
}

async fn patching(judge: &Judge) {
    let merge = r#"patch configmap m --type=merge -p {"data":{"b":"2"}}"#;
    holds(&judge.ok(merge).await, &["configmap/m patched"]);
    let json_patch = r#"patch configmap m --type=json -p [{"op":"replace","path":"/data/a","value":"9"}]"#;
    holds(&judge.ok(json_patch).await, &["configmap/m patched"]);
    let data = &judge.json("get cm m").await["data"];
    assert_eq!(data, &json!({"a": "9", "b": "2"}));
    let strategic = r#"patch deployment web -p {"spec":{"template":{"spec":{"containers":[{"name":"d","image":"j:1"}]}}}}"#;
    holds(&judge.ok(strategic).await, &["deployment.apps/web patched"]);
    let containers = &judge.json("get deployment web").await["spec"]["template"]["spec"]["containers"];
    assert_eq!(containers.as_array().map(Vec::len), Some(2), "{containers}");
    let failing = r#"patch configmap m --type=json -p [{"op":"test","path":"/data/a","value":"0"}]"#;
    judge.refused(failing, "").await;
}

/// What `kubectl edit` does when somebody else was faster.
async fn replacing_in_conflict(judge: &Judge) {
    let mut mine = judge.json("get cm m").await;
    judge
        .ok(r#"patch configmap m --type=merge -p {"data":{"c":"3"}}"#)
        .await;
    mine["data"]["a"] = json!("mine");
    let conflict = judge.refused("replace -f -", &mine.to_string()).await;
    holds(
        &conflict,
        &[
            "(Conflict)",
            "Operation cannot be fulfilled on configmaps \"m\": the object has been modified",
        ],
    );
    let mut fresh = judge.json("get cm m").await;
    fresh["data"]["a"] = json!("mine");
    holds(
        &judge.ok_with("replace -f -", &fresh.to_string()).await,
        &["configmap/m replaced"],
    );
}

async fn selecting_and_paging(judge: &Judge) {
    for i in 0..7 {
        judge
            .ok(&format!("create configmap page{i} --from-literal=i={i}"))
            .await;
        let parity = i % 2;
        judge
            .ok(&format!("label configmap page{i} parity={parity} set=page"))
            .await;
    }
    let names = async |line: &str| judge.ok(&format!("{line} -o name")).await.lines().count();
    assert_eq!(names("get cm -l set=page --chunk-size=2").await, 7);
    assert_eq!(names("get cm -l parity=0").await, 4);
    assert_eq!(names("get cm -l set,parity!=0").await, 3);
    assert_eq!(judge.ok("get cm -l parity --no-headers").await.lines().count(), 7);
    assert_eq!(names("get cm --field-selector metadata.name=page3").await, 1);
    holds(
        &judge.refused("get cm --field-selector spec.x=1", "").await,
        &["field label not supported: spec.x"],
    );
    let all = judge.ok("get pods,cm,ns -A --chunk-size=3").await;
    holds(
        &all,
        &["NAMESPACE", "pod/p", "configmap/page6", "namespace/default"],
    );
    holds(&judge.ok("get all").await, &["pod/p", "deployment.apps/web"]);
    assert_eq!(
        names("get pods --field-selector status.phase=Pending,spec.nodeName=").await,
        1
    );
}

async fn watching(judge: &Judge) {
    let mut lines = judge
        .kubectl
        .stream(&["get", "pods", "-w", "-l", "watched=yes"])
        .expect("kubectl starts");
    let mut json_lines = judge
        .kubectl
        .stream(&["get", "cm", "page0", "-w", "-o", "jsonpath={.data.i}{\"\\n\"}"])
        .expect("kubectl starts");
    assert_eq!(json_lines.expect_line(PATIENCE).await.expect("a line"), "0");
    judge.ok("run watched --image=i:1 --labels=watched=yes").await;
    holds(
        &lines.expect_line(PATIENCE).await.expect("a line"),
        &["NAME", "READY", "STATUS"],
    );
    holds(
        &lines.expect_line(PATIENCE).await.expect("a line"),
        &["watched", "Pending"],
    );
    judge
        .ok(r#"patch configmap page0 --type=merge -p {"data":{"i":"new"}}"#)
        .await;
    assert_eq!(json_lines.expect_line(PATIENCE).await.expect("a line"), "new");
    judge.ok("delete pod watched").await;
    holds(&lines.expect_line(PATIENCE).await.expect("a line"), &["watched"]);
}

async fn other_resources(judge: &Judge) {
    holds(
        &judge.ok("expose deployment web --port=80").await,
        &["service/web exposed"],
    );
    holds(
        &judge.ok("get service web").await,
        &["ClusterIP", "10.", "80/TCP"],
    );
    holds(
        &judge.ok("create secret generic s --from-literal=k=v").await,
        &["secret/s created"],
    );
    holds(&judge.ok("get secret s").await, &["Opaque", "1"]);
    let node = json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "n1"}});
    holds(
        &judge.ok_with("create -f -", &node.to_string()).await,
        &["node/n1 created"],
    );
    holds(
        &judge.ok("get nodes").await,
        &["NAME", "STATUS", "ROLES", "n1", "Unknown"],
    );
    holds(&judge.ok("cordon n1").await, &["node/n1 cordoned"]);
    let event = json!({
        "apiVersion": "v1", "kind": "Event", "metadata": { "name": "e", "namespace": "default" },
        "involvedObject": { "apiVersion": "v1", "kind": "Pod", "namespace": "default", "name": "p" },
        "reason": "Pulled", "message": "it came", "type": "Normal", "count": 1,
        "firstTimestamp": "2026-01-01T00:00:00Z", "lastTimestamp": "2026-01-01T00:00:00Z",
    });
    judge.ok_with("create -f -", &event.to_string()).await;
    holds(
        &judge.ok("get events").await,
        &["LAST SEEN", "TYPE", "REASON", "Pulled", "pod/p", "it came"],
    );
    holds(&judge.ok("events --for pod/p").await, &["Pulled", "it came"]);
    let lease = json!({
        "apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": { "name": "l" },
        "spec": { "holderIdentity": "me" },
    });
    judge.ok_with("create -f -", &lease.to_string()).await;
    holds(&judge.ok("get lease l").await, &["HOLDER", "me"]);
}

async fn deleting(judge: &Judge) {
    holds(&judge.ok("delete pod p").await, &["pod \"p\" deleted"]);
    holds(&judge.refused("delete pod p", "").await, &["(NotFound)"]);
    holds(
        &judge.ok("delete cm -l parity=0").await,
        &["configmap \"page0\" deleted", "configmap \"page6\" deleted"],
    );
    holds(
        &judge.ok("delete deployment web").await,
        &["deployment.apps \"web\" deleted"],
    );
    judge.ok("create namespace short").await;
    judge
        .ok("create configmap inside --from-literal=a=1 -n short")
        .await;
    holds(
        &judge.ok("delete namespace short --timeout=60s").await,
        &["namespace \"short\" deleted"],
    );
    judge.refused("get namespace short", "").await;
    assert_eq!(judge.ok("get cm -n short -o name").await, "");
}

#[tokio::test(flavor = "multi_thread")]
async fn is_content() {
    let api = Api::start().await;
    let serving = Serving::start(api.router()).await;
    let dir = TempDir::new().expect("a temporary directory");
    judge(&Judge::new(serving.kubectl(
        dir.path(),
        "admin",
        "system:masters",
    )))
    .await;
    let nobody = Judge::new(serving.kubectl(dir.path(), "nobody", "no-group"));
    holds(
        &nobody.refused("get nodes", "").await,
        &["User \"nobody\" cannot list resource \"nodes\""],
    );
}

/// The same with the program itself: three processes, TLS, client certificates, each master asked in turn.
#[tokio::test(flavor = "multi_thread")]
async fn is_content_with_three_masters() {
    let options = Options {
        api: true,
        tls: true,
        ..Default::default()
    };
    let cluster = Cluster::barque(3, options).await.expect("a cluster");
    let first = Judge::new(cluster.kubectl_of(0).expect("a kubeconfig"));
    judge(&first).await;
    first.ok("create configmap everywhere --from-literal=a=1").await;
    for master in 1..3 {
        let other = Judge::new(cluster.kubectl_of(master).expect("a kubeconfig"));
        assert_eq!(
            other.json("get cm everywhere").await["data"]["a"],
            "1",
            "what was acknowledged is read anywhere"
        );
    }
}
