//! Deployments of apps/v1.

use barque_machinery::{
    field_error::{FieldError, IMMUTABLE},
    gvk::GroupVersion,
    metadata, name,
};
use serde_json::{Value, json};

use super::{default, object_at, pod_template, text};
use crate::resource::{Resource, Strategy, Subresource};

pub static DEPLOYMENTS: Resource = Resource {
    group_version: GroupVersion::new("apps", "v1"),
    plural: "deployments",
    singular: "deployment",
    kind: "Deployment",
    short_names: &["deploy"],
    categories: &["all"],
    namespaced: true,
    subresources: &[Subresource::Status, Subresource::Scale],
    selectable: &[],
    indexed: &[],
    name_check: name::dns1123_subdomain,
    has_generation: true,
    create_on_update: false,
    expires: false,
    strategy: &Deployments,
};

struct Deployments;

impl Strategy for Deployments {
    fn set_defaults(&self, object: &mut Value) {
        workload_defaults(object);
        let Some(spec) = object_at(object, "spec") else {
            return;
        };
        default(spec, "revisionHistoryLimit", 10);
        default(spec, "progressDeadlineSeconds", 600);
        default(spec, "strategy", json!({}));
        let Some(strategy) = spec.get_mut("strategy").and_then(Value::as_object_mut) else {
            return;
        };
        default(strategy, "type", "RollingUpdate");
        if strategy["type"] == "RollingUpdate" {
            default(strategy, "rollingUpdate", json!({}));
            if let Some(rolling) = strategy.get_mut("rollingUpdate").and_then(Value::as_object_mut) {
                default(rolling, "maxSurge", "25%");
                default(rolling, "maxUnavailable", "25%");
            }
        }
    }

    fn validate(&self, object: &Value, errors: &mut Vec<FieldError>) {
        validate_workload(object, errors);
        let strategy = &object["spec"]["strategy"];
        pod_template::check_one_of(
            strategy,
            "spec.strategy",
            "type",
            &["Recreate", "RollingUpdate"],
            errors,
        );
        if text(strategy, "type") == "Recreate" && !strategy["rollingUpdate"].is_null() {
            let detail = "may not be specified when strategy `type` is 'Recreate'";
            errors.push(FieldError::forbidden("spec.strategy.rollingUpdate", detail));
        }
    }

    fn validate_update(&self, new: &Value, old: &Value, errors: &mut Vec<FieldError>) {
        check_selector_fixed(new, old, errors);
    }
}

/// Replicas and the template's defaults, as deployments and replica sets have them.
pub fn workload_defaults(object: &mut Value) {
    let Some(spec) = object_at(object, "spec") else {
        return;
    };
    default(spec, "replicas", 1);
    if let Some(template) = spec.get_mut("template").filter(|t| t["spec"].is_object()) {
        pod_template::set_defaults(&mut template["spec"]);
    }
}

pub fn validate_workload(object: &Value, errors: &mut Vec<FieldError>) {
    let spec = &object["spec"];
    if let Some(replicas) = spec["replicas"].as_i64().filter(|r| *r < 0) {
        errors.push(FieldError::invalid(
            "spec.replicas",
            replicas,
            "must be greater than or equal to 0",
        ));
    }
    validate_selector(spec, errors);
    let template = &spec["template"];
    metadata::validate_labels(
        "spec.template.metadata.labels",
        &template["metadata"]["labels"],
        errors,
    );
    pod_template::validate(&template["spec"], "spec.template.spec", errors);
    let policy = text(&template["spec"], "restartPolicy");
    if !matches!(policy, "Always" | "") {
        errors.push(FieldError::not_supported(
            "spec.template.spec.restartPolicy",
            policy,
            &["Always"],
        ));
    }
}

fn validate_selector(spec: &Value, errors: &mut Vec<FieldError>) {
    let selector = &spec["selector"];
    if selector.is_null() {
        errors.push(FieldError::required("spec.selector", ""));
        return;
    }
    let labels = &spec["template"]["metadata"]["labels"];
    let (equal, sets) = (
        selector["matchLabels"].as_object(),
        selector["matchExpressions"].as_array(),
    );
    let is_empty = equal.is_none_or(|m| m.is_empty()) && sets.is_none_or(|s| s.is_empty());
    if is_empty {
        let detail = "empty selector is invalid for deployment";
        errors.push(FieldError::invalid("spec.selector", selector.clone(), detail));
        return;
    }
    let equal_match = equal
        .into_iter()
        .flatten()
        .all(|(key, value)| labels.get(key) == Some(value));
    if !equal_match || !sets.into_iter().flatten().all(|e| expression_matches(e, labels)) {
        let detail = "`selector` does not match template `labels`";
        errors.push(FieldError::invalid(
            "spec.template.metadata.labels",
            labels.clone(),
            detail,
        ));
    }
}

fn expression_matches(expression: &Value, labels: &Value) -> bool {
    let value = labels.get(text(expression, "key"));
    let values = expression["values"].as_array();
    let among = || value.is_some_and(|v| values.is_some_and(|list| list.contains(v)));
    match text(expression, "operator") {
        "In" => among(),
        "NotIn" => !among(),
        "Exists" => value.is_some(),
        "DoesNotExist" => value.is_none(),
        _ => false,
    }
}

pub fn check_selector_fixed(new: &Value, old: &Value, errors: &mut Vec<FieldError>) {
    let (now, was) = (&new["spec"]["selector"], &old["spec"]["selector"]);
    if now != was {
        errors.push(FieldError::invalid("spec.selector", now.clone(), IMMUTABLE));
    }
}
