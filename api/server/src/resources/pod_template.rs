//! Pod specs, in pods and in templates: defaults and validation.

use std::collections::HashSet;

use barque_machinery::{
    field_error::{FieldError, Problem, check_each},
    metadata, name,
};
use serde_json::{Map, Value, json};

use super::{default, items, object_at, objects_at, text};

const CONTAINER_LISTS: [&str; 3] = ["initContainers", "containers", "ephemeralContainers"];

/// Fills in what kube-apiserver fills in.
pub fn set_defaults(spec: &mut Value) {
    let Some(fields) = spec.as_object_mut() else {
        return;
    };
    default(fields, "restartPolicy", "Always");
    default(fields, "dnsPolicy", "ClusterFirst");
    default(fields, "schedulerName", "default-scheduler");
    default(fields, "terminationGracePeriodSeconds", 30);
    default(fields, "securityContext", json!({}));
    for list in CONTAINER_LISTS {
        objects_at(spec, list).for_each(container_defaults);
    }
    objects_at(spec, "volumes").for_each(volume_defaults);
}

/// What is refused for want of its key is not filled in: very many of them, each empty in the request, would
/// take a hundred times the request's memory.
fn is_keyed(fields: &Map<String, Value>, key: &str) -> bool {
    fields
        .get(key)
        .is_some_and(|value| !value.is_null() && value != "")
}

fn container_defaults(container: &mut Map<String, Value>) {
    if !is_keyed(container, "name") {
        return;
    }
    let image = container.get("image").and_then(Value::as_str).unwrap_or_default();
    let policy = if is_latest(image) {
        "Always"
    } else {
        "IfNotPresent"
    };
    default(container, "imagePullPolicy", policy);
    default(container, "terminationMessagePath", "/dev/termination-log");
    default(container, "terminationMessagePolicy", "File");
    default(container, "resources", json!({}));
    if let Some(resources) = container.get_mut("resources") {
        resource_defaults(resources);
    }
    for port in container
        .get_mut("ports")
        .and_then(Value::as_array_mut)
        .into_iter()
        .flatten()
    {
        if let Some(port) = port
            .as_object_mut()
            .filter(|port| is_keyed(port, "containerPort"))
        {
            default(port, "protocol", "TCP");
        }
    }
    for probe in ["livenessProbe", "readinessProbe", "startupProbe"] {
        if let Some(probe) = container.get_mut(probe).and_then(Value::as_object_mut) {
            probe_defaults(probe);
        }
    }
    for env in container
        .get_mut("env")
        .and_then(Value::as_array_mut)
        .into_iter()
        .flatten()
    {
        if let Some(field) = env
            .pointer_mut("/valueFrom/fieldRef")
            .and_then(Value::as_object_mut)
        {
            default(field, "apiVersion", "v1");
        }
    }
}

/// What is limited and not requested is requested up to its limit.
fn resource_defaults(resources: &mut Value) {
    let Some(limits) = resources.get("limits").and_then(Value::as_object).cloned() else {
        return;
    };
    if let Some(requests) = object_at(resources, "requests") {
        for (name, limit) in limits {
            requests.entry(name).or_insert(limit);
        }
    }
}

fn probe_defaults(probe: &mut Map<String, Value>) {
    for (field, value) in [
        ("timeoutSeconds", 1),
        ("periodSeconds", 10),
        ("successThreshold", 1),
        ("failureThreshold", 3),
    ] {
        default(probe, field, value);
    }
    if let Some(http) = probe.get_mut("httpGet").and_then(Value::as_object_mut) {
        default(http, "path", "/");
        default(http, "scheme", "HTTP");
    }
}

fn volume_defaults(volume: &mut Map<String, Value>) {
    if !is_keyed(volume, "name") {
        return;
    }
    if volume.keys().all(|field| field == "name") {
        volume.insert("emptyDir".into(), json!({}));
    }
    for source in ["configMap", "secret", "downwardAPI", "projected"] {
        if let Some(source) = volume.get_mut(source).and_then(Value::as_object_mut) {
            default(source, "defaultMode", 0o644);
        }
    }
    if let Some(path) = volume.get_mut("hostPath").and_then(Value::as_object_mut) {
        path.entry("type").or_insert_with(|| "".into());
    }
}

fn is_latest(image: &str) -> bool {
    if image.contains('@') {
        return false;
    }
    let name = image.rsplit('/').next().unwrap_or_default();
    name.rsplit_once(':').is_none_or(|(_, tag)| tag == "latest")
}

/// Checks a pod's spec at `path`.
pub fn validate(spec: &Value, path: &str, errors: &mut Vec<FieldError>) {
    if items(spec, "containers").next().is_none() {
        errors.push(FieldError::required(format!("{path}.containers"), ""));
    }
    let volumes = validate_volumes(spec, path, errors);
    let mut names = HashSet::new();
    for list in CONTAINER_LISTS {
        check_each(items(spec, list), errors, |i, container, errors| {
            let path = format!("{path}.{list}[{i}]");
            validate_container(container, &path, &volumes, errors);
            let name = text(container, "name");
            if !names.insert(name) && !name.is_empty() {
                errors.push(FieldError::duplicate(format!("{path}.name"), name));
            }
        });
    }
    check_one_of(
        spec,
        path,
        "restartPolicy",
        &["Always", "OnFailure", "Never"],
        errors,
    );
    check_one_of(
        spec,
        path,
        "dnsPolicy",
        &["ClusterFirstWithHostNet", "ClusterFirst", "Default", "None"],
        errors,
    );
    if let Some(seconds) = spec["activeDeadlineSeconds"].as_i64().filter(|s| *s < 1) {
        let detail = "must be between 1 and 2147483647, inclusive";
        errors.push(FieldError::invalid(
            format!("{path}.activeDeadlineSeconds"),
            seconds,
            detail,
        ));
    }
    metadata::validate_labels(&format!("{path}.nodeSelector"), &spec["nodeSelector"], errors);
}

/// Answers the volumes' names.
fn validate_volumes<'v>(spec: &'v Value, path: &str, errors: &mut Vec<FieldError>) -> HashSet<&'v str> {
    let mut names = HashSet::new();
    check_each(items(spec, "volumes"), errors, |i, volume, errors| {
        let path = format!("{path}.volumes[{i}].name");
        let name = text(volume, "name");
        check_name(name, &path, errors);
        if !names.insert(name) && !name.is_empty() {
            errors.push(FieldError::duplicate(path, name));
        }
    });
    names
}

fn validate_container(container: &Value, path: &str, volumes: &HashSet<&str>, errors: &mut Vec<FieldError>) {
    check_name(text(container, "name"), &format!("{path}.name"), errors);
    let image = text(container, "image");
    if image.is_empty() {
        errors.push(FieldError::required(format!("{path}.image"), ""));
    } else if image.trim() != image {
        let detail = "must not have leading or trailing whitespace";
        errors.push(FieldError::invalid(format!("{path}.image"), image, detail));
    }
    check_one_of(
        container,
        path,
        "imagePullPolicy",
        &["Always", "IfNotPresent", "Never"],
        errors,
    );
    check_each(items(container, "ports"), errors, |i, port, errors| {
        validate_container_port(port, &format!("{path}.ports[{i}]"), errors);
    });
    check_each(items(container, "volumeMounts"), errors, |i, mount, errors| {
        validate_mount(mount, &format!("{path}.volumeMounts[{i}]"), volumes, errors);
    });
    check_each(items(container, "env"), errors, |i, env, errors| {
        if text(env, "name").is_empty() {
            errors.push(FieldError::required(format!("{path}.env[{i}].name"), ""));
        }
    });
}

fn validate_container_port(port: &Value, path: &str, errors: &mut Vec<FieldError>) {
    match &port["containerPort"] {
        Value::Null => errors.push(FieldError::required(format!("{path}.containerPort"), "")),
        number => check_port(number, &format!("{path}.containerPort"), errors),
    }
    check_one_of(port, path, "protocol", &["SCTP", "TCP", "UDP"], errors);
}

fn validate_mount(mount: &Value, path: &str, volumes: &HashSet<&str>, errors: &mut Vec<FieldError>) {
    let name = text(mount, "name");
    if name.is_empty() {
        errors.push(FieldError::required(format!("{path}.name"), ""));
    } else if !volumes.contains(name) {
        errors.push(FieldError {
            field: format!("{path}.name"),
            problem: Problem::NotFound(name.into()),
        });
    }
    if text(mount, "mountPath").is_empty() {
        errors.push(FieldError::required(format!("{path}.mountPath"), ""));
    }
}

fn check_name(value: &str, path: &str, errors: &mut Vec<FieldError>) {
    if value.is_empty() {
        errors.push(FieldError::required(path, ""));
    } else if let Some(problem) = name::dns1123_label(value) {
        errors.push(FieldError::invalid(path, value, problem));
    }
}

pub fn check_port(number: &Value, path: &str, errors: &mut Vec<FieldError>) {
    if !number.as_i64().is_some_and(|n| (1..=65535).contains(&n)) {
        errors.push(FieldError::invalid(
            path,
            number.clone(),
            "must be between 1 and 65535, inclusive",
        ));
    }
}

pub fn check_one_of(parent: &Value, path: &str, field: &str, allowed: &[&str], errors: &mut Vec<FieldError>) {
    let value = text(parent, field);
    if !value.is_empty() && !allowed.contains(&value) {
        errors.push(FieldError::not_supported(
            format!("{path}.{field}"),
            value,
            allowed,
        ));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults() {
        let mut spec = json!({
            "containers": [
                {"name": "a", "image": "r.io:5000/a", "resources": {"limits": {"cpu": "1"}}, "ports": [{"containerPort": 1}]},
                {"name": "b", "image": "b:1", "readinessProbe": {"httpGet": {"port": 1}}},
            ],
            "volumes": [{"name": "v"}, {"name": "w", "secret": {"secretName": "s"}}],
        });
        set_defaults(&mut spec);
        let at = |p: &str| spec.pointer(p).cloned().unwrap_or_default();
        assert_eq!(at("/containers/0/imagePullPolicy"), "Always");
        assert_eq!(at("/containers/1/imagePullPolicy"), "IfNotPresent");
        assert_eq!(at("/containers/0/resources/requests/cpu"), "1");
        assert_eq!(at("/containers/0/ports/0/protocol"), "TCP");
        assert_eq!(at("/containers/1/readinessProbe/httpGet/scheme"), "HTTP");
        assert_eq!(at("/volumes/0/emptyDir"), json!({}));
        assert_eq!(at("/volumes/1/secret/defaultMode"), 420);
        let once = spec.clone();
        set_defaults(&mut spec);
        assert_eq!(spec, once);
    }

    #[test]
    fn refuses() {
        let check = |spec: Value, expect: &[&str]| {
            let mut errors = Vec::new();
            validate(&spec, "spec", &mut errors);
            assert_eq!(
                errors.iter().map(|e| e.field.as_str()).collect::<Vec<_>>(),
                expect,
                "{spec}"
            );
        };
        check(json!({"containers": [{"name": "a", "image": "i"}]}), &[]);
        check(json!({}), &["spec.containers"]);
        check(
            json!({"containers": [{"name": "A"}, {"name": "b", "image": "i"}, {"name": "b", "image": "i"}]}),
            &[
                "spec.containers[0].name",
                "spec.containers[0].image",
                "spec.containers[2].name",
            ],
        );
        check(
            json!({
                "containers": [{"name": "a", "image": "i", "volumeMounts": [{"name": "x", "mountPath": "/x"}]}],
                "restartPolicy": "Now",
            }),
            &["spec.containers[0].volumeMounts[0].name", "spec.restartPolicy"],
        );
    }

    fn problems(spec: &Value) -> Vec<String> {
        let mut errors = Vec::new();
        validate(spec, "spec", &mut errors);
        errors.into_iter().map(|e| e.field).collect()
    }

    #[test]
    fn names_are_found_among_very_many() {
        const EACH: usize = 100_000;
        let volume = |n: usize| json!({"name": format!("v{n}")});
        let mount = |n: usize| json!({"name": format!("v{n}"), "mountPath": "/m"});
        let container = |n: usize| json!({"name": format!("c{n}"), "image": "i"});
        let mut spec = json!({
            "volumes": (0..EACH).map(volume).collect::<Value>(),
            "containers": (0..EACH).map(container).collect::<Value>(),
            "initContainers": [{
                "name": "i",
                "image": "i",
                "volumeMounts": (0..EACH).map(mount).collect::<Value>(),
            }],
        });
        assert_eq!(problems(&spec), [""; 0]);
        spec["volumes"][EACH - 1]["name"] = "v0".into();
        spec["ephemeralContainers"] = json!([container(EACH - 1)]);
        assert_eq!(
            problems(&spec),
            [
                format!("spec.volumes[{}].name", EACH - 1),
                format!("spec.initContainers[0].volumeMounts[{}].name", EACH - 1),
                "spec.ephemeralContainers[0].name".into(),
            ]
        );
    }

    #[test]
    fn what_lacks_its_key_is_not_filled_in() {
        let bare = json!({
            "containers": [{}, {"name": ""}, {"name": "a", "ports": [{}], "image": "i:1"}],
            "volumes": [{}, {"name": null}],
        });
        let mut spec = bare.clone();
        set_defaults(&mut spec);
        assert_eq!(spec["volumes"], bare["volumes"]);
        assert_eq!(spec["containers"][0], bare["containers"][0]);
        assert_eq!(spec["containers"][1], bare["containers"][1]);
        assert_eq!(spec["containers"][2]["ports"], bare["containers"][2]["ports"]);
        assert_eq!(spec["containers"][2]["imagePullPolicy"], "IfNotPresent");
    }

    #[test]
    fn problems_are_bounded() {
        let empty = || vec![json!({}); 500_000];
        let container = |field: &str| json!({"containers": [{"name": "a", "image": "i", field: empty()}]});
        for mut spec in [
            json!({"containers": empty()}),
            json!({"initContainers": empty(), "ephemeralContainers": empty()}),
            json!({"volumes": empty(), "containers": empty()}),
            container("ports"),
            container("volumeMounts"),
            container("env"),
        ] {
            set_defaults(&mut spec);
            let found = problems(&spec).len();
            assert!((101..120).contains(&found), "{found}");
        }
    }
}
