//! Strategic merge patch by cases, and by differences of random pods.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::{PatchError, PatchType, apply, schema};

fn patch_as(group: &str, kind: &str, object: &Value, patch: &Value) -> Result<Value, PatchError> {
    apply(
        PatchType::StrategicMerge,
        object,
        patch.to_string().as_bytes(),
        schema::of(group, kind),
    )
}

#[track_caller]
fn check(kind: (&str, &str), object: Value, patch: Value, expected: Value) {
    assert_eq!(
        patch_as(kind.0, kind.1, &object, &patch),
        Ok(expected),
        "{object}\n + {patch}"
    );
}

const POD: (&str, &str) = ("", "Pod");
const DEPLOYMENT: (&str, &str) = ("apps", "Deployment");

/// A pod's containers.
fn pod(containers: Value) -> Value {
    json!({"spec": {"containers": containers}})
}

#[test]
fn objects_merge_and_null_deletes() {
    check(
        POD,
        json!({"metadata": {"labels": {"a": "1", "b": "2"}}, "spec": {"nodeName": "n"}}),
        json!({"metadata": {"labels": {"b": null, "c": "3", "d": null}, "annotations": {"x": "y", "z": null}}}),
        json!({"metadata": {"labels": {"a": "1", "c": "3"}, "annotations": {"x": "y"}}, "spec": {"nodeName": "n"}}),
    );
}

#[test]
fn containers_merge_by_name_and_new_ones_come_first() {
    // The patch's order rules among its own elements; what only the server has keeps its place relative
    // to those that both have, and otherwise follows.
    check(
        POD,
        pod(json!([{"name": "a", "image": "a:1", "args": ["x", "y"]}, {"name": "b", "image": "b:1"}])),
        pod(json!([{"name": "b", "image": "b:2"}, {"name": "c", "image": "c:1", "env": null}])),
        pod(json!([
            {"name": "a", "image": "a:1", "args": ["x", "y"]},
            {"name": "b", "image": "b:2"},
            {"name": "c", "image": "c:1"},
        ])),
    );
    check(
        POD,
        pod(json!([{"name": "a"}])),
        pod(json!([{"name": "c"}])),
        pod(json!([{"name": "c"}, {"name": "a"}])),
    );
}

#[test]
fn an_element_is_deleted_by_its_merge_key() {
    check(
        POD,
        pod(json!([{"name": "a"}, {"name": "b"}])),
        pod(json!([{"name": "a", "$patch": "delete"}, {"name": "z", "$patch": "delete"}])),
        pod(json!([{"name": "b"}])),
    );
    let error = patch_as(
        "",
        "Pod",
        &pod(json!([{"name": "a"}])),
        &pod(json!([{"$patch": "delete"}])),
    );
    assert_eq!(
        error,
        Err(PatchError::Unmergeable(
            "an object in a list does not contain declared merge key: name".into()
        ))
    );
}

#[test]
fn errors_name_no_value() {
    let secret = json!({"kind": "Secret", "data": {"password": "aHVudGVyMg=="}});
    let unnamed = pod(json!([{"image": "aHVudGVyMg=="}]));
    let bare = json!({"spec": {}});
    let cases = [
        (
            "Secret",
            &secret,
            json!({"$setElementOrder/data": []}),
            "expected a list in field data, got an object",
        ),
        (
            "Pod",
            &unnamed,
            pod(json!([{"name": "a"}])),
            "an object in a list does not contain declared merge key: name",
        ),
        (
            "Pod",
            &bare,
            json!({"spec": {
                "containers": [{"name": "a", "image": "aHVudGVyMg=="}],
                "$setElementOrder/containers": [{"name": "b"}],
            }}),
            "The order in patch list doesn't match $setElementOrder list",
        ),
    ];
    for (kind, object, patch, text) in cases {
        let error = patch_as("", kind, object, &patch);
        assert_eq!(error, Err(PatchError::Unmergeable(text.into())), "{patch}");
    }
}

#[test]
fn a_list_is_replaced_by_directive_or_for_want_of_a_merge_key() {
    check(
        POD,
        pod(json!([{"name": "a", "image": "a"}, {"name": "b"}])),
        pod(json!([{"$patch": "replace"}, {"name": "a"}, {"name": "c"}])),
        pod(json!([{"name": "a"}, {"name": "c"}])),
    );
    check(
        POD,
        json!({"spec": {"tolerations": [{"key": "a"}, {"key": "b"}], "unheardOf": [{"name": "a"}]}}),
        json!({"spec": {"tolerations": [{"key": "c"}], "unheardOf": [{"name": "b", "x": null}]}}),
        json!({"spec": {"tolerations": [{"key": "c"}], "unheardOf": [{"name": "b"}]}}),
    );
    check(
        POD,
        pod(json!([{"name": "a", "command": ["x", "y"]}])),
        pod(json!([{"name": "a", "command": ["z"]}])),
        pod(json!([{"name": "a", "command": ["z"]}])),
    );
}

#[test]
fn an_object_is_replaced_or_deleted_by_directive() {
    check(
        POD,
        json!({"spec": {"securityContext": {"runAsUser": 1, "fsGroup": 2}, "nodeName": "n"}}),
        json!({"spec": {"securityContext": {"$patch": "replace", "fsGroup": 3}}}),
        json!({"spec": {"securityContext": {"fsGroup": 3}, "nodeName": "n"}}),
    );
    check(
        POD,
        json!({"spec": {"securityContext": {"runAsUser": 1}}}),
        json!({"spec": {"securityContext": {"$patch": "delete"}, "affinity": {"$patch": "delete"}}}),
        json!({"spec": {"securityContext": {}}}),
    );
    let unknown = patch_as(
        "",
        "Pod",
        &json!({"spec": {}}),
        &json!({"spec": {"$patch": "merge"}}),
    );
    assert!(matches!(unknown, Err(PatchError::Inapplicable(text)) if text.starts_with("unknown patch type")));
}

#[test]
fn an_element_is_replaced_as_a_whole() {
    // A directive other than delete inside an element concerns the list, not the element.
    check(
        POD,
        pod(json!([{"name": "a", "image": "a"}, {"name": "b"}])),
        pod(json!([{"name": "a", "$patch": "replace"}])),
        pod(json!([])),
    );
}

#[test]
fn lists_inside_lists_merge_by_their_own_keys() {
    let template = |containers: Value| json!({"spec": {"template": {"spec": {"containers": containers}}}});
    check(
        DEPLOYMENT,
        template(json!([{
            "name": "a",
            "env": [{"name": "X", "value": "1"}, {"name": "Y", "value": "2"}],
            "ports": [{"containerPort": 80, "name": "http"}, {"containerPort": 81}],
            "volumeMounts": [{"name": "v", "mountPath": "/a"}],
            "volumeDevices": [{"name": "d", "devicePath": "/dev/a"}],
        }])),
        template(json!([{
            "name": "a",
            "env": [{"name": "Y", "value": null, "valueFrom": {"fieldRef": {}}}, {"name": "X", "$patch": "delete"}],
            "ports": [{"containerPort": 80, "name": null, "protocol": "UDP"}],
            "volumeMounts": [{"name": "v", "mountPath": "/b"}],
            "volumeDevices": [{"devicePath": "/dev/a", "name": "e"}],
        }])),
        template(json!([{
            "name": "a",
            "env": [{"name": "Y", "valueFrom": {"fieldRef": {}}}],
            "ports": [{"containerPort": 80, "protocol": "UDP"}, {"containerPort": 81}],
            "volumeMounts": [{"name": "v", "mountPath": "/b"}, {"name": "v", "mountPath": "/a"}],
            "volumeDevices": [{"name": "e", "devicePath": "/dev/a"}],
        }])),
    );
}

#[test]
fn merge_keys_differ_by_type() {
    check(
        ("", "Service"),
        json!({"spec": {"ports": [{"port": 80, "name": "a"}, {"port": 443}]}}),
        json!({"spec": {"ports": [{"port": 443, "nodePort": 30000}]}}),
        json!({"spec": {"ports": [{"port": 80, "name": "a"}, {"port": 443, "nodePort": 30000}]}}),
    );
    check(
        ("", "Node"),
        json!({"spec": {"podCIDRs": ["a"], "taints": [{"key": "x"}]},
               "status": {"conditions": [{"type": "Ready", "status": "True"}, {"type": "DiskPressure"}],
                          "addresses": [{"type": "Hostname", "address": "h"}],
                          "images": [{"names": ["a"]}, {"names": ["b"]}]}}),
        json!({"spec": {"podCIDRs": ["b"], "taints": [{"key": "y"}]},
               "status": {"conditions": [{"type": "Ready", "status": "False"}],
                          "addresses": [{"type": "InternalIP", "address": "i"}],
                          "images": [{"names": ["c"]}]}}),
        json!({"spec": {"podCIDRs": ["b", "a"], "taints": [{"key": "y"}]},
               "status": {"conditions": [{"type": "Ready", "status": "False"}, {"type": "DiskPressure"}],
                          "addresses": [{"type": "InternalIP", "address": "i"}, {"type": "Hostname", "address": "h"}],
                          "images": [{"names": ["c"]}]}}),
    );
    check(
        ("example.org", "Anything"),
        json!({"metadata": {"ownerReferences": [{"uid": "1", "name": "a"}]}, "spec": {"containers": [{"name": "a"}]}}),
        json!({"metadata": {"ownerReferences": [{"uid": "1", "name": "b"}]}, "spec": {"containers": [{"name": "b"}]}}),
        json!({"metadata": {"ownerReferences": [{"uid": "1", "name": "b"}]}, "spec": {"containers": [{"name": "b"}]}}),
    );
}

#[test]
fn primitive_lists_are_sets() {
    let metadata = |fields: Value| json!({"metadata": fields});
    check(
        POD,
        metadata(json!({"finalizers": ["a", "b"]})),
        metadata(json!({"finalizers": ["c", "b"]})),
        metadata(json!({"finalizers": ["c", "a", "b"]})),
    );
    check(
        POD,
        metadata(json!({"finalizers": ["a", "b", "c"]})),
        metadata(json!({"$deleteFromPrimitiveList/finalizers": ["b", "z"]})),
        metadata(json!({"finalizers": ["a", "c"]})),
    );
    check(
        POD,
        metadata(json!({"finalizers": ["a", "b"]})),
        metadata(json!({
            "$deleteFromPrimitiveList/finalizers": ["a"],
            "$setElementOrder/finalizers": ["c", "b"],
            "finalizers": ["c"],
        })),
        metadata(json!({"finalizers": ["c", "b"]})),
    );
    check(
        POD,
        metadata(json!({})),
        metadata(json!({"$deleteFromPrimitiveList/finalizers": ["a"]})),
        metadata(json!({})),
    );
}

#[test]
fn element_order_is_set() {
    let ordered = |order: &[&str], containers: Value| {
        let order: Vec<Value> = order.iter().map(|name| json!({"name": name})).collect();
        json!({"spec": {"$setElementOrder/containers": order, "containers": containers}})
    };
    let live = || pod(json!([{"name": "a"}, {"name": "server"}, {"name": "b"}, {"name": "c"}]));
    check(
        POD,
        live(),
        ordered(&["c", "b", "a"], json!([{"name": "b", "image": "2"}])),
        // "server" stood before "c" live, so it goes before it.
        pod(json!([{"name": "server"}, {"name": "c"}, {"name": "b", "image": "2"}, {"name": "a"}])),
    );
    check(
        POD,
        live(),
        ordered(
            &["new", "a"],
            json!([{"name": "new"}, {"name": "b", "$patch": "delete"}]),
        ),
        pod(json!([{"name": "new"}, {"name": "a"}, {"name": "server"}, {"name": "c"}])),
    );
    check(
        POD,
        json!({"spec": {}}),
        ordered(
            &["x", "y"],
            json!([{"name": "x"}, {"name": "y", "$patch": "delete"}, {"name": "y", "env": null}]),
        ),
        pod(json!([{"name": "x"}, {"name": "y"}])),
    );
    // Without the list itself the order alone.
    check(
        POD,
        live(),
        json!({"spec": {"$setElementOrder/containers": [{"name": "b"}, {"name": "a"}]}}),
        pod(json!([{"name": "server"}, {"name": "b"}, {"name": "a"}, {"name": "c"}])),
    );
    let mismatch = patch_as(
        "",
        "Pod",
        &live(),
        &ordered(&["a", "b"], json!([{"name": "b"}, {"name": "a"}])),
    );
    assert!(
        matches!(mismatch, Err(PatchError::Unmergeable(text)) if text.starts_with("The order in patch list"))
    );
}

#[test]
fn retained_keys() {
    check(
        DEPLOYMENT,
        json!({"spec": {"strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1}}}}),
        json!({"spec": {"strategy": {"$retainKeys": ["type"], "type": "Recreate"}}}),
        json!({"spec": {"strategy": {"type": "Recreate"}}}),
    );
    check(
        POD,
        json!({"spec": {"volumes": [{"name": "v", "emptyDir": {}}, {"name": "w", "hostPath": {}}]}}),
        json!({"spec": {"volumes": [{"name": "v", "$retainKeys": ["name", "secret"], "secret": {"secretName": "s"}}]}}),
        json!({"spec": {"volumes": [{"name": "v", "secret": {"secretName": "s"}}, {"name": "w", "hostPath": {}}]}}),
    );
    let kept_too_little = patch_as(
        "apps",
        "Deployment",
        &json!({"spec": {"strategy": {}}}),
        &json!({"spec": {"strategy": {"$retainKeys": ["type"], "rollingUpdate": {}}}}),
    );
    assert_eq!(
        kept_too_little,
        Err(PatchError::Malformed("invalid patch format of retainKeys".into()))
    );
}

#[test]
fn directives_never_end_up_in_the_object() {
    check(
        POD,
        json!({}),
        json!({"spec": {
            "$setElementOrder/containers": [{"name": "a"}],
            "$retainKeys": ["containers"],
            "containers": [{"name": "a", "$retainKeys": ["name"]}, {"$patch": "replace"}],
        }}),
        pod(json!([{"name": "a"}])),
    );
}

#[test]
fn what_is_no_object_is_malformed() {
    for patch in [json!([]), json!("x"), json!(null)] {
        assert_eq!(
            patch_as("", "Pod", &json!({}), &patch),
            Err(PatchError::Malformed("invalid JSON document".into()))
        );
    }
}

/// Names with a number in each, from those in `numbers`.
fn names(prefix: &str, numbers: std::ops::Range<usize>) -> Vec<String> {
    numbers.map(|n| format!("{prefix}{n}")).collect()
}

// Lists of these sizes fit into one request. Searched element by element, they take a computer minutes.

#[test]
fn large_sets_merge() {
    const EACH: usize = 200_000;
    let live = names("a", 0..EACH);
    let mut patch = names("b", 0..EACH);
    // Both have the last one, and the patch has it twice.
    patch.extend([live[EACH - 1].clone(), live[EACH - 1].clone()]);
    let object = json!({"metadata": {"finalizers": live}});
    let merged = patch_as("", "Pod", &object, &json!({"metadata": {"finalizers": patch}}));
    // What the patch has goes first; what only the object has precedes what it preceded there.
    let expected = [names("b", 0..EACH), names("a", 0..EACH)].concat();
    assert!(merged == Ok(json!({"metadata": {"finalizers": expected}})));

    let deletion = json!({"metadata": {"$deleteFromPrimitiveList/finalizers": names("a", 1..EACH)}});
    let left = patch_as("", "Pod", &object, &deletion);
    assert!(left == Ok(json!({"metadata": {"finalizers": ["a0"]}})));
}

#[test]
fn large_keyed_lists_merge() {
    const EACH: usize = 100_000;
    let ports = |numbers: std::ops::Range<usize>, field: &str| -> Vec<Value> {
        numbers.map(|n| json!({"port": n, field: n})).collect()
    };
    let service = |ports: Vec<Value>| json!({"spec": {"ports": ports}});
    let live = service(ports(0..EACH, "nodePort"));

    let patch = service(ports(EACH / 2..EACH + EACH / 2, "targetPort"));
    let both = (EACH / 2..EACH).map(|n| json!({"port": n, "nodePort": n, "targetPort": n}));
    let expected = ports(0..EACH / 2, "nodePort")
        .into_iter()
        .chain(both)
        .chain(ports(EACH..EACH + EACH / 2, "targetPort"))
        .collect();
    assert!(patch_as("", "Service", &live, &patch) == Ok(service(expected)));

    let others = service(ports(EACH..2 * EACH, "nodePort"));
    let expected = [ports(EACH..2 * EACH, "nodePort"), ports(0..EACH, "nodePort")].concat();
    assert!(patch_as("", "Service", &live, &others) == Ok(service(expected)));

    let deletions = (1..EACH).map(|n| json!({"port": n, "$patch": "delete"}));
    let left = patch_as("", "Service", &live, &service(deletions.collect()));
    assert!(left == Ok(service(ports(0..1, "nodePort"))));

    let order: Vec<Value> = (0..EACH).rev().map(|n| json!({"port": n})).collect();
    let reversed = patch_as(
        "",
        "Service",
        &live,
        &json!({"spec": {"$setElementOrder/ports": order}}),
    );
    let expected = ports(0..EACH, "nodePort").into_iter().rev().collect();
    assert!(reversed == Ok(service(expected)));
}

#[test]
fn many_retained_keys() {
    const EACH: usize = 100_000;
    let labels = |numbers: std::ops::Range<usize>| -> Value {
        names("k", numbers)
            .into_iter()
            .map(|name| (name, json!("v")))
            .collect()
    };
    let mut patch = labels(EACH..2 * EACH);
    patch["$retainKeys"] = json!(names("k", 1..2 * EACH));
    let kept = patch_as(
        "",
        "Pod",
        &json!({"metadata": {"labels": labels(0..EACH)}}),
        &json!({"metadata": {"labels": patch}}),
    );
    assert!(kept == Ok(json!({"metadata": {"labels": labels(1..2 * EACH)}})));
}

#[test]
fn elements_that_occur_more_than_once() {
    // The first one is merged into, and all stay, side by side.
    check(
        POD,
        pod(json!([{"name": "a", "image": "1"}, {"name": "b"}, {"name": "a", "image": "2"}])),
        pod(json!([{"name": "a", "image": "3"}])),
        pod(json!([{"name": "a", "image": "3"}, {"name": "a", "image": "2"}, {"name": "b"}])),
    );
    // What the patch names again is what it just added.
    check(
        POD,
        pod(json!([{"name": "a"}])),
        pod(json!([{"name": "b", "image": "1"}, {"name": "b", "args": ["x"]}])),
        pod(json!([{"name": "b", "image": "1", "args": ["x"]}, {"name": "a"}])),
    );
    check(
        POD,
        pod(json!([{"name": "a", "image": "1"}, {"name": "b"}, {"name": "a", "image": "2"}])),
        pod(json!([{"name": "a", "$patch": "delete"}, {"name": "a", "$patch": "delete"}])),
        pod(json!([{"name": "b"}])),
    );
}

type Containers = Vec<(String, Vec<(String, u8)>)>;

/// Distinct container names, each with distinct variables.
fn containers() -> impl Strategy<Value = Containers> {
    let env = prop::collection::btree_map("[A-D]", any::<u8>(), 0..4);
    prop::collection::btree_map("[a-e]", env, 0..5)
        .prop_map(|all| {
            all.into_iter()
                .map(|(name, env)| (name, env.into_iter().collect()))
                .collect::<Containers>()
        })
        .prop_shuffle()
}

fn render(containers: &Containers) -> Value {
    let each = containers.iter().map(|(name, env)| {
        let env: Vec<Value> = env
            .iter()
            .map(|(name, value)| json!({"name": name, "value": value}))
            .collect();
        json!({"name": name, "env": env})
    });
    pod(each.collect())
}

/// The list patch that kubectl would compute: changed elements, deletions, and the order.
fn diff_list(from: &Value, to: &Value, field: &str, inner: Option<&str>) -> Value {
    let (old, new) = (
        from[field].as_array().expect("a list"),
        to[field].as_array().expect("a list"),
    );
    let named = |list: &[Value], name: &Value| list.iter().find(|element| element["name"] == *name).cloned();
    let mut patch: Vec<Value> = vec![];
    for element in new {
        match (named(old, &element["name"]), inner) {
            (Some(before), _) if before == *element => {}
            (Some(before), Some(inner)) => {
                let mut changes = diff_list(&before, element, inner, None);
                changes["name"] = element["name"].clone();
                patch.push(changes);
            }
            _ => patch.push(element.clone()),
        }
    }
    let gone = old
        .iter()
        .filter(|element| named(new, &element["name"]).is_none());
    patch.extend(gone.map(|element| json!({"name": element["name"], "$patch": "delete"})));
    let order: Vec<Value> = new
        .iter()
        .map(|element| json!({"name": element["name"]}))
        .collect();
    json!({field: patch, format!("$setElementOrder/{field}"): order})
}

proptest! {
    #[test]
    fn an_applied_difference_gives_the_other_object(from in containers(), to in containers()) {
        let (from, to) = (render(&from), render(&to));
        let patch = json!({"spec": diff_list(&from["spec"], &to["spec"], "containers", Some("env"))});
        prop_assert_eq!(patch_as("", "Pod", &from, &patch), Ok(to));
    }

    #[test]
    fn an_empty_patch_changes_nothing(object in containers()) {
        let object = render(&object);
        prop_assert_eq!(patch_as("", "Pod", &object, &json!({})), Ok(object.clone()));
        prop_assert_eq!(patch_as("", "Pod", &object, &json!({"spec": {"containers": []}})), Ok(object));
    }
}
