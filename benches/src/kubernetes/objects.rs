//! The objects that the load consists of.

use serde_json::{Value, json};

/// A pod of about 2.4 KB as stored: what a deployment's pod looks like once the defaults are in.
pub fn pod(number: usize) -> Value {
    let environment: Vec<Value> = (0..19)
        .map(|i| json!({"name": format!("SETTING_{i:02}"), "value": format!("a value of some length {number:06} {i:02}")}))
        .collect();
    json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": format!("web-{number:06}"),
            "namespace": "default",
            "labels": {"app": "web", "tier": format!("tier-{}", number % 10), "pod-template-hash": "5d4f8c7b9"},
            "annotations": {"bench.example/description": "one of many pods that a list returns ".repeat(8)},
        },
        "spec": {
            "containers": [{
                "name": "web",
                "image": "registry.example/web:1.2.3",
                "env": environment,
                "ports": [{"containerPort": 8080, "protocol": "TCP"}],
                "resources": {"requests": {"cpu": "100m", "memory": "128Mi"}, "limits": {"memory": "256Mi"}},
            }],
            "restartPolicy": "Always",
            "terminationGracePeriodSeconds": 30,
        },
    })
}

/// The object whose changes are watched, about 1.5 KB; `sent` is when it was changed.
pub fn config_map(sent: u64) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": "watched", "namespace": "default"},
        "data": {"sent": format!("{sent:020}"), "padding": "p".repeat(1200)},
    })
}
