//! Rows by kind, as `kubectl get -o wide` prints them.

use serde_json::{Value, json};
use time::macros::datetime;

use super::*;

const NOW: OffsetDateTime = datetime!(2026-11-21 12:00 UTC);

fn cells(group: &str, kind: &str, object: &Value) -> Value {
    let layout = layout(group, kind);
    let row = layout.row(object, NOW, IncludeObject::None);
    let cells = row["cells"].as_array().expect("cells");
    assert_eq!(
        cells.len(),
        layout.columns.len(),
        "a cell for each column of {kind}"
    );
    row["cells"].clone()
}

fn object(name: &str, mut fields: Value) -> Value {
    fields["metadata"]["name"] = name.into();
    fields["metadata"]["creationTimestamp"] = "2026-11-21T11:55:30Z".into();
    fields
}

/// A pod's first four cells.
#[track_caller]
fn check_pod(pod: Value, ready: &str, status: &str, restarts: &str) {
    let cells = cells("", "Pod", &object("p", pod));
    assert_eq!(
        json!([cells[1], cells[2], cells[3]]),
        json!([ready, status, restarts])
    );
}

#[test]
fn column_names() {
    let names = |group, kind| -> Vec<String> {
        let columns = layout(group, kind).columns();
        let columns = columns.as_array().expect("columns");
        let name = |column: &Value| {
            let wide = if column["priority"] == 1 { "+" } else { "" };
            format!("{wide}{}", column["name"].as_str().expect("a name"))
        };
        columns.iter().map(name).collect()
    };
    assert_eq!(
        names("", "Pod"),
        [
            "Name",
            "Ready",
            "Status",
            "Restarts",
            "Age",
            "+IP",
            "+Node",
            "+Nominated Node",
            "+Readiness Gates"
        ]
    );
    assert_eq!(
        names("", "Node"),
        [
            "Name",
            "Status",
            "Roles",
            "Age",
            "Version",
            "+Internal-IP",
            "+External-IP",
            "+OS-Image",
            "+Kernel-Version",
            "+Container-Runtime"
        ]
    );
    assert_eq!(
        names("", "Event"),
        [
            "Last Seen",
            "Type",
            "Reason",
            "Object",
            "+Subobject",
            "+Source",
            "Message",
            "+First Seen",
            "+Count",
            "+Name"
        ]
    );
    assert_eq!(names("example.org", "Other"), ["Name", "Created At"]);
}

#[test]
fn pods_by_state() {
    let running = json!({"name": "a", "ready": true, "restartCount": 0, "state": {"running": {}}});
    let two = json!({"containers": [{"name": "a"}, {"name": "b"}]});
    check_pod(
        json!({"spec": two, "status": {"phase": "Pending"}}),
        "0/2",
        "Pending",
        "0",
    );
    check_pod(
        json!({"spec": two, "status": {"phase": "Running", "containerStatuses": [
            running, {"name": "b", "ready": false, "restartCount": 3,
                      "state": {"waiting": {"reason": "CrashLoopBackOff"}},
                      "lastState": {"terminated": {"finishedAt": "2026-11-21T11:59:00Z"}}}]}}),
        "1/2",
        "CrashLoopBackOff",
        "3 (60s ago)",
    );
    check_pod(
        json!({"spec": two, "status": {"phase": "Running",
            "conditions": [{"type": "Ready", "status": "True"}],
            "containerStatuses": [{"name": "b", "state": {"terminated": {"reason": "Completed"}}}, running]}}),
        "1/2",
        "Running",
        "0",
    );
    check_pod(
        json!({"spec": two, "status": {"phase": "Running",
            "containerStatuses": [{"name": "b", "state": {"terminated": {"reason": "Completed"}}}, running]}}),
        "1/2",
        "NotReady",
        "0",
    );
    check_pod(
        json!({"spec": two, "status": {"phase": "Failed", "containerStatuses": [
            {"state": {"terminated": {"exitCode": 2}}}, {"state": {"terminated": {"signal": 9}}}]}}),
        "0/2",
        "ExitCode:2",
        "0",
    );
    check_pod(
        json!({"spec": two, "status": {"phase": "Failed", "reason": "Evicted"}}),
        "0/2",
        "Evicted",
        "0",
    );
    check_pod(
        json!({"metadata": {"deletionTimestamp": "2026-11-21T11:59:00Z"}, "spec": two, "status": {"phase": "Running"}}),
        "0/2",
        "Terminating",
        "0",
    );
    check_pod(
        json!({"metadata": {"deletionTimestamp": "2026-11-21T11:59:00Z"}, "spec": two,
               "status": {"phase": "Running", "reason": "NodeLost"}}),
        "0/2",
        "Unknown",
        "0",
    );
    check_pod(
        json!({"spec": two, "status": {"phase": "Pending",
            "conditions": [{"type": "PodScheduled", "status": "False", "reason": "SchedulingGated"}]}}),
        "0/2",
        "SchedulingGated",
        "0",
    );
}

#[test]
fn pods_with_init_containers() {
    let spec = json!({
        "containers": [{"name": "a"}],
        "initContainers": [{"name": "side", "restartPolicy": "Always"}, {"name": "init"}],
    });
    let side =
        json!({"name": "side", "ready": true, "started": true, "restartCount": 1, "state": {"running": {}}});
    let with = |init: Value, more: Value| {
        let mut status = json!({"phase": "Pending", "initContainerStatuses": [side, init]});
        for (key, value) in more.as_object().expect("fields") {
            status[key] = value.clone();
        }
        json!({"spec": spec, "status": status})
    };
    check_pod(
        with(
            json!({"name": "init", "restartCount": 2, "state": {"running": {}}}),
            json!({}),
        ),
        "1/2",
        "Init:1/2",
        "3",
    );
    check_pod(
        with(
            json!({"name": "init", "state": {"terminated": {"exitCode": 1}}}),
            json!({}),
        ),
        "1/2",
        "Init:ExitCode:1",
        "1",
    );
    check_pod(
        with(
            json!({"name": "init", "state": {"waiting": {"reason": "ImagePullBackOff"}}}),
            json!({}),
        ),
        "1/2",
        "Init:ImagePullBackOff",
        "1",
    );
    check_pod(
        with(
            json!({"name": "init", "restartCount": 5, "state": {"terminated": {"exitCode": 0}}}),
            json!({"phase": "Running", "containerStatuses": [{"name": "a", "ready": true, "restartCount": 4, "state": {"running": {}}}]}),
        ),
        "2/2",
        "Running",
        "5",
    );
}

#[test]
fn a_pods_wide_cells_and_conditions() {
    let pod = object(
        "p",
        json!({
            "spec": {"nodeName": "n", "readinessGates": [{"conditionType": "x"}, {"conditionType": "y"}]},
            "status": {"phase": "Succeeded", "podIPs": [{"ip": "10.0.0.1"}, {"ip": "::1"}],
                       "conditions": [{"type": "x", "status": "True"}]},
        }),
    );
    assert_eq!(
        cells("", "Pod", &pod),
        json!([
            "p",
            "0/0",
            "Succeeded",
            "0",
            "4m30s",
            "10.0.0.1",
            "n",
            "<none>",
            "1/2"
        ])
    );
    let row = layout("", "Pod").row(&pod, NOW, IncludeObject::Metadata);
    assert_eq!(row["conditions"][0]["type"], "Completed");
    assert_eq!(row["object"]["kind"], "PartialObjectMetadata");
    assert_eq!(row["object"]["metadata"], pod["metadata"]);
    assert_eq!(row["object"].as_object().map(|fields| fields.len()), Some(3));
}

#[test]
fn nodes() {
    let node = object(
        "n",
        json!({
            "metadata": {"labels": {"node-role.kubernetes.io/worker": "", "node-role.kubernetes.io/edge": "", "kubernetes.io/role": "edge"}},
            "spec": {"unschedulable": true},
            "status": {"conditions": [{"type": "DiskPressure", "status": "False"}, {"type": "Ready", "status": "True"}],
                       "addresses": [{"type": "Hostname", "address": "h"}, {"type": "InternalIP", "address": "10.1.0.1"}],
                       "nodeInfo": {"kubeletVersion": "v1.33.0", "osImage": "Debian", "kernelVersion": "6.1"}},
        }),
    );
    assert_eq!(
        cells("", "Node", &node),
        json!([
            "n",
            "Ready,SchedulingDisabled",
            "edge,worker",
            "4m30s",
            "v1.33.0",
            "10.1.0.1",
            "<none>",
            "Debian",
            "6.1",
            "<unknown>"
        ])
    );
    let bare = cells("", "Node", &object("n", json!({})));
    assert_eq!((&bare[1], &bare[2]), (&json!("Unknown"), &json!("<none>")));
}

#[test]
fn services() {
    let check = |spec: Value, status: Value, expected: Value| {
        let cells = cells(
            "",
            "Service",
            &object("s", json!({"spec": spec, "status": status})),
        );
        assert_eq!(
            json!([cells[1], cells[2], cells[3], cells[4], cells[6]]),
            expected
        );
    };
    check(
        json!({"type": "ClusterIP", "clusterIP": "10.0.0.1", "clusterIPs": ["10.0.0.1"],
               "ports": [{"port": 80, "protocol": "TCP"}, {"port": 53, "protocol": "UDP", "nodePort": 30053}],
               "selector": {"b": "2", "a": "1"}}),
        json!({}),
        json!([
            "ClusterIP",
            "10.0.0.1",
            "<none>",
            "80/TCP,53:30053/UDP",
            "a=1,b=2"
        ]),
    );
    check(
        json!({"type": "LoadBalancer", "clusterIPs": ["10.0.0.1"], "externalIPs": ["9.9.9.9"]}),
        json!({"loadBalancer": {"ingress": [{"ip": "1.2.3.4"}, {"hostname": "lb.example"}]}}),
        json!([
            "LoadBalancer",
            "10.0.0.1",
            "1.2.3.4,lb.example,9.9.9.9",
            "<none>",
            "<none>"
        ]),
    );
    check(
        json!({"type": "LoadBalancer", "clusterIP": "None"}),
        json!({}),
        json!(["LoadBalancer", "None", "<pending>", "<none>", "<none>"]),
    );
    check(
        json!({"type": "ExternalName", "externalName": "x.example"}),
        json!({}),
        json!(["ExternalName", "<none>", "x.example", "<none>", "<none>"]),
    );
}

#[test]
fn workloads() {
    let spec = json!({
        "replicas": 3,
        "selector": {"matchLabels": {"app": "web"}, "matchExpressions": [
            {"key": "tier", "operator": "In", "values": ["b", "a"]}, {"key": "canary", "operator": "DoesNotExist"}]},
        "template": {"spec": {"containers": [{"name": "a", "image": "a:1"}, {"name": "b", "image": "b:1"}]}},
    });
    let status = json!({"replicas": 3, "readyReplicas": 2, "updatedReplicas": 1, "availableReplicas": 2});
    let object = object("w", json!({"spec": spec, "status": status}));
    assert_eq!(
        cells("apps", "Deployment", &object),
        json!([
            "w",
            "2/3",
            1,
            2,
            "4m30s",
            "a,b",
            "a:1,b:1",
            "app=web,!canary,tier in (a,b)"
        ])
    );
    assert_eq!(
        cells("apps", "ReplicaSet", &object),
        json!([
            "w",
            3,
            3,
            2,
            "4m30s",
            "a,b",
            "a:1,b:1",
            "app=web,!canary,tier in (a,b)"
        ])
    );
}

#[test]
fn small_kinds() {
    let cases = [
        (
            "",
            "Namespace",
            json!({"status": {"phase": "Active"}}),
            json!(["x", "Active", "4m30s"]),
        ),
        (
            "",
            "ConfigMap",
            json!({"data": {"a": "1", "b": "2"}, "binaryData": {"c": "AA=="}}),
            json!(["x", 3, "4m30s"]),
        ),
        (
            "",
            "Secret",
            json!({"type": "Opaque", "data": {"a": "AA=="}}),
            json!(["x", "Opaque", 1, "4m30s"]),
        ),
        (
            "coordination.k8s.io",
            "Lease",
            json!({"spec": {"holderIdentity": "me"}}),
            json!(["x", "me", "4m30s"]),
        ),
        (
            "example.org",
            "Other",
            json!({}),
            json!(["x", "2026-11-21T11:55:30Z"]),
        ),
    ];
    for (group, kind, fields, expected) in cases {
        assert_eq!(cells(group, kind, &object("x", fields)), expected, "{kind}");
    }
    assert_eq!(
        cells("", "Namespace", &json!({"metadata": {"name": "x"}}))[2],
        "<unknown>"
    );
}

#[test]
fn events() {
    let old = object(
        "e",
        json!({
            "type": "Normal", "reason": "Scheduled", "message": " Assigned.\n", "count": 4,
            "involvedObject": {"kind": "Pod", "name": "p", "fieldPath": "spec.containers{a}"},
            "source": {"component": "scheduler", "host": "m1"},
            "firstTimestamp": "2026-11-21T11:50:00Z", "lastTimestamp": "2026-11-21T11:59:30Z",
        }),
    );
    assert_eq!(
        cells("", "Event", &old),
        json!([
            "30s",
            "Normal",
            "Scheduled",
            "pod/p",
            "spec.containers{a}",
            "scheduler, m1",
            "Assigned.",
            "10m",
            4,
            "e"
        ])
    );
    let new = object(
        "e",
        json!({
            "type": "Normal", "reason": "R", "involvedObject": {"kind": "Node"}, "eventTime": "2026-11-21T11:59:00.123456Z",
            "reportingComponent": "agent", "firstTimestamp": null,
        }),
    );
    assert_eq!(
        cells("", "Event", &new),
        json!(["59s", "Normal", "R", "node", "", "agent", "", "59s", 1, "e"])
    );
    let mut series = new.clone();
    series["series"] = json!({"count": 7, "lastObservedTime": "2026-11-21T11:59:55.000000Z"});
    let cells = cells("", "Event", &series);
    assert_eq!(
        (&cells[0], &cells[7], &cells[8]),
        (&json!("5s"), &json!("59s"), &json!(7))
    );
}

#[test]
fn a_table() {
    let layout = layout("", "Secret");
    let secret = object("s", json!({"apiVersion": "v1", "kind": "Secret"}));
    let row = layout.row(&secret, NOW, IncludeObject::Object);
    assert_eq!(row["object"], secret);
    let table = layout.table(json!({"resourceVersion": "7"}), vec![row], true);
    assert_eq!(
        (&table["kind"], &table["apiVersion"]),
        (&json!("Table"), &json!("meta.k8s.io/v1"))
    );
    assert_eq!(table["metadata"]["resourceVersion"], "7");
    assert_eq!(table["columnDefinitions"][0]["format"], "name");
    assert_eq!(
        layout.table(json!({}), vec![], false)["columnDefinitions"],
        Value::Null
    );
    assert_eq!(IncludeObject::parse(""), Some(IncludeObject::Metadata));
    assert_eq!(IncludeObject::parse("All"), None);
}
