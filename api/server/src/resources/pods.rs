//! Pods: once made, hardly anything of their spec changes; bound ones are deleted by their node.

use barque_machinery::{field_error::FieldError, gvk::GroupVersion, metadata, name};
use serde_json::{Value, json};

use super::{default, items, object_at, pod_template, text};
use crate::resource::{Resource, Strategy, Subresource};

pub static PODS: Resource = Resource {
    group_version: GroupVersion::new("", "v1"),
    plural: "pods",
    singular: "pod",
    kind: "Pod",
    short_names: &["po"],
    categories: &["all"],
    namespaced: true,
    subresources: &[Subresource::Status, Subresource::Binding],
    selectable: &[
        "spec.nodeName",
        "spec.restartPolicy",
        "spec.schedulerName",
        "spec.serviceAccountName",
        "spec.hostNetwork",
        "status.phase",
        "status.podIP",
        "status.nominatedNodeName",
    ],
    indexed: &["spec.nodeName", "status.phase"],
    name_check: name::dns1123_subdomain,
    has_generation: true,
    create_on_update: false,
    expires: false,
    strategy: &Pods,
};

struct Pods;

impl Strategy for Pods {
    fn set_defaults(&self, object: &mut Value) {
        if object["spec"].is_object() {
            pod_template::set_defaults(&mut object["spec"]);
            if let Some(spec) = object_at(object, "spec") {
                default(spec, "enableServiceLinks", true);
            }
        }
    }

    fn prepare_create(&self, object: &mut Value) {
        object["status"] = json!({ "phase": "Pending", "qosClass": qos_class(&object["spec"]) });
    }

    fn validate(&self, object: &Value, errors: &mut Vec<FieldError>) {
        pod_template::validate(&object["spec"], "spec", errors);
    }

    fn validate_update(&self, new: &Value, old: &Value, errors: &mut Vec<FieldError>) {
        if frozen(&new["spec"]) != frozen(&old["spec"]) {
            errors.push(FieldError::forbidden("spec", UPDATE_TEXT));
        }
    }

    /// An unbound pod is gone at once; a bound one when its node says so.
    fn grace_period_s(&self, object: &Value, asked_s: Option<i64>) -> Option<i64> {
        let spec = &object["spec"];
        if text(spec, "nodeName").is_empty() {
            return None;
        }
        if matches!(text(&object["status"], "phase"), "Succeeded" | "Failed") {
            return None;
        }
        let seconds = asked_s
            .or(spec["terminationGracePeriodSeconds"].as_i64())
            .unwrap_or(30);
        // A negative one means one second.
        let seconds = if seconds < 0 { 1 } else { seconds };
        (seconds > 0).then_some(seconds)
    }
}

const UPDATE_TEXT: &str = "pod updates may not change fields other than `spec.containers[*].image`,\
     `spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to existing \
     tolerations),`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)";

/// The spec without what may be changed.
fn frozen(spec: &Value) -> Value {
    let mut frozen = spec.clone();
    for list in ["containers", "initContainers"] {
        for container in frozen
            .get_mut(list)
            .and_then(Value::as_array_mut)
            .into_iter()
            .flatten()
        {
            crate::registry::remove(container, "image");
        }
    }
    for field in ["activeDeadlineSeconds", "tolerations", "schedulingGates"] {
        crate::registry::remove(&mut frozen, field);
    }
    if frozen["terminationGracePeriodSeconds"]
        .as_i64()
        .is_some_and(|s| s < 0)
    {
        frozen["terminationGracePeriodSeconds"] = 1.into();
    }
    frozen
}

/// Guaranteed: every container limits CPU and memory and requests no less; BestEffort: none asks for anything.
fn qos_class(spec: &Value) -> &'static str {
    let containers = || items(spec, "containers").chain(items(spec, "initContainers"));
    let asks = |c: &Value| {
        ["requests", "limits"].iter().any(|kind| {
            ["cpu", "memory"]
                .iter()
                .any(|name| !c["resources"][kind][name].is_null())
        })
    };
    let is_fixed = |c: &Value| {
        ["cpu", "memory"].iter().all(|name| {
            let (limit, request) = (&c["resources"]["limits"][name], &c["resources"]["requests"][name]);
            !limit.is_null() && limit == request
        })
    };
    if !containers().any(asks) {
        "BestEffort"
    } else if containers().all(is_fixed) {
        "Guaranteed"
    } else {
        "Burstable"
    }
}

/// Binds a pod to a node; the reason why not when it is bound already.
pub fn bind(pod: &mut Value, node: &str, annotations: &Value, now: &str) -> Result<(), String> {
    match text(&pod["spec"], "nodeName") {
        "" => {}
        bound => {
            return Err(format!(
                "pod {} is already assigned to node {bound:?}",
                text(&pod["metadata"], "name")
            ));
        }
    }
    if metadata::Meta::of(pod).is_deleting() {
        return Err(format!(
            "pod {} is being deleted, cannot be assigned to a host",
            text(&pod["metadata"], "name")
        ));
    }
    pod["spec"]["nodeName"] = node.into();
    if let (Some(new), Some(old)) = (
        annotations.as_object(),
        pod.get_mut("metadata").and_then(|m| object_at(m, "annotations")),
    ) {
        old.extend(new.clone());
    }
    let condition =
        json!({ "type": "PodScheduled", "status": "True", "lastProbeTime": null, "lastTransitionTime": now });
    if let Some(status) = object_at(pod, "status") {
        let conditions = status.entry("conditions").or_insert_with(|| json!([]));
        if let Some(list) = conditions.as_array_mut() {
            list.retain(|c| text(c, "type") != "PodScheduled");
            list.push(condition);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn qos() {
        let check = |resources: Value, expect: &str| {
            assert_eq!(
                qos_class(&json!({"containers": [{"resources": resources}]})),
                expect
            );
        };
        check(json!({}), "BestEffort");
        check(json!({"requests": {"cpu": "1"}}), "Burstable");
        let both = json!({"cpu": "1", "memory": "1Gi"});
        check(json!({"requests": both, "limits": both}), "Guaranteed");
    }

    #[test]
    fn a_pod_is_bound_once() {
        let mut pod = json!({"metadata": {"name": "a"}, "spec": {}, "status": {}});
        assert_eq!(bind(&mut pod, "n1", &json!({"k": "v"}), "t"), Ok(()));
        assert_eq!(pod["metadata"]["annotations"]["k"], "v");
        assert_eq!(pod["status"]["conditions"][0]["type"], "PodScheduled");
        let again = bind(&mut pod, "n2", &Value::Null, "t");
        assert_eq!(again, Err("pod a is already assigned to node \"n1\"".into()));
    }
}
