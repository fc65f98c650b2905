//! `metav1.Status`: every answer that is not an object, with kube-apiserver's reasons, codes and texts.
//!
//! Clients match on the code, the reason and sometimes the text, and client-go sends a request again whenever
//! the answer carries Retry-After: it is set for definite refusals only, never for an unknown outcome.

use serde::Serialize;
use serde_json::{Value, json};

use crate::{
    field_error::{FieldError, MAX_ERRORS},
    gvk::{GroupKind, GroupResource},
};

#[derive(Debug, Clone, PartialEq)]
pub struct Status {
    pub code: u16,
    pub reason: &'static str,
    pub message: String,
    pub details: Option<Box<StatusDetails>>,
    /// `metadata.continue`: how a client whose list expired may go on.
    pub continue_token: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct StatusDetails {
    #[serde(skip_serializing_if = "String::is_empty")]
    pub name: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub group: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub kind: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub uid: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub causes: Vec<StatusCause>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retry_after_seconds: Option<u32>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct StatusCause {
    pub reason: String,
    pub message: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub field: String,
}

pub const CONFLICT_TEXT: &str =
    "the object has been modified; please apply your changes to the latest version and try again";
pub const CONTINUE_TOO_OLD: &str = "The provided continue parameter is too old to display a consistent list result. \
     You can start a new list without the continue parameter, or use the continue token in this response to \
     retrieve the remainder of the results. Continuing with the provided token results in an inconsistent list - \
     objects that were created, modified, or deleted between the time the first chunk was returned and now may \
     show up in the list.";

const MORE_ERRORS: &str = "and more errors, which are not listed";

impl Status {
    fn new(code: u16, reason: &'static str, message: impl Into<String>) -> Self {
        Self {
            code,
            reason,
            message: message.into(),
            details: None,
            continue_token: None,
        }
    }

    fn about(mut self, resource: &GroupResource, name: &str) -> Self {
        let details = self.details.get_or_insert_default();
        details.name = name.into();
        details.group = resource.group.clone();
        details.kind = resource.resource.clone();
        self
    }

    pub fn not_found(resource: &GroupResource, name: &str) -> Self {
        Self::new(404, "NotFound", format!("{resource} {name:?} not found")).about(resource, name)
    }

    /// No such path or resource at all.
    pub fn unknown_path() -> Self {
        let mut status = Self::new(
            404,
            "NotFound",
            "the server could not find the requested resource",
        );
        status.details = Some(Box::default());
        status
    }

    pub fn already_exists(resource: &GroupResource, name: &str) -> Self {
        Self::new(
            409,
            "AlreadyExists",
            format!("{resource} {name:?} already exists"),
        )
        .about(resource, name)
    }

    pub fn conflict(resource: &GroupResource, name: &str, why: &str) -> Self {
        Self::new(
            409,
            "Conflict",
            format!("Operation cannot be fulfilled on {resource} {name:?}: {why}"),
        )
        .about(resource, name)
    }

    /// Of very many errors the first ones, and that there are more.
    pub fn invalid(kind: &GroupKind, name: &str, errors: &[FieldError]) -> Self {
        let told = &errors[..errors.len().min(MAX_ERRORS)];
        let more = (told.len() < errors.len()).then_some(MORE_ERRORS);
        let mut texts: Vec<String> = told.iter().map(|e| e.to_string()).collect();
        texts.extend(more.map(String::from));
        let text = match texts.as_slice() {
            [one] => one.clone(),
            many => format!("[{}]", many.join(", ")),
        };
        let mut status = Self::new(422, "Invalid", format!("{kind} {name:?} is invalid: {text}"));
        let causes = told.iter().map(|e| StatusCause {
            reason: e.reason().into(),
            message: e.body(),
            field: e.field.clone(),
        });
        let unlisted = more.map(|text| StatusCause {
            reason: String::new(),
            message: text.into(),
            field: String::new(),
        });
        status.details = Some(Box::new(StatusDetails {
            name: name.into(),
            group: kind.group.clone(),
            kind: kind.kind.clone(),
            causes: causes.chain(unlisted).collect(),
            ..Default::default()
        }));
        status
    }

    pub fn bad_request(message: impl Into<String>) -> Self {
        Self::new(400, "BadRequest", message)
    }

    pub fn unauthorized() -> Self {
        Self::new(401, "Unauthorized", "Unauthorized")
    }

    /// `name` may be empty: the resource as a whole.
    pub fn forbidden(resource: &GroupResource, name: &str, why: &str) -> Self {
        let message = match (resource.resource.as_str(), name) {
            ("", _) => format!("forbidden: {why}"),
            (_, "") => format!("{resource} is forbidden: {why}"),
            _ => format!("{resource} {name:?} is forbidden: {why}"),
        };
        Self::new(403, "Forbidden", message).about(resource, name)
    }

    pub fn method_not_supported(resource: &GroupResource, verb: &str) -> Self {
        let message = format!("{verb} is not supported on resources of kind \"{resource}\"");
        Self::new(405, "MethodNotAllowed", message).about(resource, "")
    }

    pub fn method_not_allowed() -> Self {
        Self::new(
            405,
            "MethodNotAllowed",
            "the server does not allow this method on the requested resource",
        )
    }

    pub fn not_acceptable(accepted: &str) -> Self {
        Self::new(
            406,
            "NotAcceptable",
            format!("only the following media types are accepted: {accepted}"),
        )
    }

    /// The history asked for is compacted.
    pub fn expired(message: impl Into<String>) -> Self {
        Self::new(410, "Expired", message)
    }

    pub fn too_old_resource_version(asked: i64, oldest: i64) -> Self {
        Self::expired(format!("too old resource version: {asked} ({oldest})"))
    }

    pub fn continue_expired(token: Option<String>) -> Self {
        Self {
            continue_token: token,
            ..Self::expired(CONTINUE_TOO_OLD)
        }
    }

    pub fn too_large(limit_bytes: usize) -> Self {
        let message = format!("Request entity is too large: limit is {limit_bytes}");
        Self::new(413, "RequestEntityTooLarge", message)
    }

    pub fn unsupported_media_type(accepted: &str) -> Self {
        let message = format!(
            "the body of the request was in an unknown format - accepted media types include: {accepted}"
        );
        Self::new(415, "UnsupportedMediaType", message)
    }

    /// A definite refusal: the client may send the same again after `retry_after_s`.
    pub fn too_many_requests(message: impl Into<String>, retry_after_s: u32) -> Self {
        Self::new(429, "TooManyRequests", message).retry_after(retry_after_s)
    }

    pub fn internal(message: impl std::fmt::Display) -> Self {
        let text = message.to_string();
        let mut status = Self::new(500, "InternalError", format!("Internal error occurred: {text}"));
        let cause = StatusCause {
            reason: String::new(),
            message: text,
            field: String::new(),
        };
        status.details = Some(Box::new(StatusDetails {
            causes: vec![cause],
            ..Default::default()
        }));
        status
    }

    pub fn service_unavailable(message: impl Into<String>) -> Self {
        Self::new(503, "ServiceUnavailable", message)
    }

    /// The outcome is unknown: no Retry-After, ever.
    pub fn timeout(message: impl std::fmt::Display) -> Self {
        let mut status = Self::new(504, "Timeout", format!("Timeout: {message}"));
        status.details = Some(Box::default());
        status
    }

    /// A read at a revision that the cluster has not reached.
    pub fn too_large_resource_version(asked: i64, current: i64) -> Self {
        let mut status = Self::timeout(format!("Too large resource version: {asked}, current: {current}"));
        let cause = StatusCause {
            reason: "ResourceVersionTooLarge".into(),
            message: "Too large resource version".into(),
            field: String::new(),
        };
        status.details = Some(Box::new(StatusDetails {
            causes: vec![cause],
            ..Default::default()
        }));
        status.retry_after(1)
    }

    /// An update must name the version that it rests on. kube-apiserver names the resource here where it names the
    /// kind otherwise, and writes the missing number in Go's notation of an unsigned one.
    pub fn version_required(resource: &GroupResource, name: &str) -> Self {
        const FIELD: &str = "metadata.resourceVersion";
        const PROBLEM: &str = "Invalid value: 0x0: must be specified for an update";
        let message = format!("{resource} {name:?} is invalid: {FIELD}: {PROBLEM}");
        Self::new(422, "Invalid", message)
            .about(resource, name)
            .with_cause("FieldValueInvalid", PROBLEM, FIELD)
    }

    /// Adds to what a client may look for in the details.
    pub fn with_cause(mut self, reason: &str, message: &str, field: &str) -> Self {
        self.details.get_or_insert_default().causes.push(StatusCause {
            reason: reason.into(),
            message: message.into(),
            field: field.into(),
        });
        self
    }

    pub fn retry_after(mut self, seconds: u32) -> Self {
        self.details.get_or_insert_default().retry_after_seconds = Some(seconds);
        self
    }

    pub fn retry_after_s(&self) -> Option<u32> {
        self.details.as_ref().and_then(|d| d.retry_after_seconds)
    }

    pub fn to_value(&self) -> Value {
        let mut metadata = json!({});
        if let Some(token) = &self.continue_token {
            metadata["continue"] = token.as_str().into();
        }
        let mut status = json!({
            "kind": "Status", "apiVersion": "v1", "metadata": metadata, "status": "Failure",
            "message": self.message, "reason": self.reason, "code": self.code,
        });
        if let Some(details) = &self.details {
            status["details"] = serde_json::to_value(details).unwrap_or(Value::Null);
        }
        status
    }
}

/// What a delete answers when nothing is left of the object.
pub fn deleted(resource: &GroupResource, name: &str, uid: &str) -> Value {
    let mut details = json!({ "name": name, "kind": resource.resource, "uid": uid });
    if !resource.group.is_empty() {
        details["group"] = resource.group.as_str().into();
    }
    json!({ "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "details": details })
}

impl std::fmt::Display for Status {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Status {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_and_codes() {
        let pods = GroupResource::new("", "pods");
        let check = |status: Status, code: u16, reason: &str, message: &str| {
            assert_eq!(
                (status.code, status.reason, status.message.as_str()),
                (code, reason, message)
            );
        };
        check(
            Status::not_found(&pods, "x"),
            404,
            "NotFound",
            "pods \"x\" not found",
        );
        check(
            Status::already_exists(&GroupResource::new("apps", "deployments"), "x"),
            409,
            "AlreadyExists",
            "deployments.apps \"x\" already exists",
        );
        check(
            Status::conflict(&pods, "x", CONFLICT_TEXT),
            409,
            "Conflict",
            "Operation cannot be fulfilled on pods \"x\": the object has been modified; please apply your changes \
             to the latest version and try again",
        );
        check(
            Status::forbidden(&pods, "", "User \"x\" cannot list resource"),
            403,
            "Forbidden",
            "pods is forbidden: User \"x\" cannot list resource",
        );
        check(
            Status::version_required(&GroupResource::new("coordination.k8s.io", "leases"), "x"),
            422,
            "Invalid",
            "leases.coordination.k8s.io \"x\" is invalid: metadata.resourceVersion: Invalid value: 0x0: must be \
             specified for an update",
        );
        check(
            Status::too_old_resource_version(3, 9),
            410,
            "Expired",
            "too old resource version: 3 (9)",
        );
    }

    #[test]
    fn only_definite_refusals_invite_a_retry() {
        assert_eq!(Status::timeout("request timed out").retry_after_s(), None);
        assert_eq!(Status::too_many_requests("later", 1).retry_after_s(), Some(1));
    }

    #[test]
    fn invalid_lists_its_causes() {
        let kind = GroupKind {
            group: String::new(),
            kind: "Pod".into(),
        };
        let errors = [
            FieldError::required("spec.a", ""),
            FieldError::required("spec.b", "needed"),
        ];
        let status = Status::invalid(&kind, "x", &errors);
        assert_eq!(
            status.message,
            "Pod \"x\" is invalid: [spec.a: Required value, spec.b: Required value: needed]"
        );
        let value = status.to_value();
        assert_eq!(value["details"]["causes"][1]["field"], "spec.b");
        assert_eq!(value["details"]["causes"][1]["message"], "Required value: needed");
    }

    #[test]
    fn of_very_many_causes_the_first_are_listed() {
        let kind = GroupKind {
            group: String::new(),
            kind: "Pod".into(),
        };
        let errors = |n: usize| -> Vec<FieldError> {
            (0..n)
                .map(|i| FieldError::required(format!("spec[{i}]"), ""))
                .collect()
        };
        let check = |n: usize, last_text: &str, last_cause: Value| {
            let status = Status::invalid(&kind, "x", &errors(n));
            assert!(status.message.ends_with(last_text), "{status}");
            let value = status.to_value();
            let causes = value["details"]["causes"].as_array().expect("a list");
            assert_eq!(causes.last(), Some(&last_cause));
            causes.len()
        };
        let last_listed =
            json!({"reason": "FieldValueRequired", "message": "Required value", "field": "spec[99]"});
        assert_eq!(check(MAX_ERRORS, "spec[99]: Required value]", last_listed), 100);
        let more = json!({"reason": "", "message": MORE_ERRORS});
        let text = "spec[99]: Required value, and more errors, which are not listed]";
        assert_eq!(check(MAX_ERRORS + 1, text, more.clone()), 101);
        assert_eq!(check(1_000_000, text, more), 101);
    }
}
