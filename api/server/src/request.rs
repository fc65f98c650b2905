//! A request to a resource, taken apart: what every handler needs.

use axum::body::Body;
use barque_machinery::status::Status;
use bytes::Bytes;
use http::HeaderMap;
use serde_json::Value;

use crate::{
    body,
    query::Query,
    registry::{Place, WriteOptions},
    request_info::ResourceTarget,
    resource::Resource,
    schema::{self, schemas},
};

pub struct ApiRequest {
    pub target: ResourceTarget,
    pub resource: &'static Resource,
    pub query: Query,
    pub headers: HeaderMap,
    pub body: Body,
}

/// An object as a client sent it, in the form of its kind.
pub struct Received {
    pub object: Value,
    /// For Warning headers.
    pub warnings: Vec<String>,
}

impl ApiRequest {
    pub fn place(&self) -> Place {
        // A namespace is not in a namespace, though its path says so.
        let namespace = if self.resource.namespaced {
            self.target.namespace.clone()
        } else {
            String::new()
        };
        Place {
            resource: self.resource,
            namespace,
            name: self.target.name.clone(),
        }
    }

    pub fn write_options(&self) -> Result<WriteOptions, Status> {
        Ok(WriteOptions {
            dry_run: self.query.dry_run()?,
            fence_term: 0,
        })
    }

    pub async fn read_body(&mut self) -> Result<Bytes, Status> {
        body::read(std::mem::take(&mut self.body)).await
    }

    /// The body as an object of the request's resource.
    pub async fn receive(&mut self) -> Result<Received, Status> {
        let version = self.resource.group_version;
        self.receive_kind(version.group, version.version, self.resource.kind)
            .await
    }

    pub async fn receive_kind(&mut self, group: &str, version: &str, kind: &str) -> Result<Received, Status> {
        let bytes = self.read_body().await?;
        let decoded = body::decode(body::content_type(&self.headers), &bytes)?;
        let mut object = decoded.value;
        check_kind(&mut object, group, version, kind)?;
        let cannot = |why: String| {
            Status::bad_request(format!(
                "{kind} in version {version:?} cannot be handled as a {kind}: {why}"
            ))
        };
        let strictness = Strictness::of(&self.query)?;
        let name = schema::definition_name(group, version, kind);
        let unknown = schemas().normalize(&name, &mut object).map_err(cannot)?;
        let problems = problems(&decoded.duplicates, &unknown);
        let warnings = strictness.judge(problems).map_err(cannot)?;
        Ok(Received { object, warnings })
    }
}

/// `fieldValidation`
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Strictness {
    Ignore,
    Warn,
    Strict,
}

impl Strictness {
    pub fn of(query: &Query) -> Result<Self, Status> {
        match query.get("fieldValidation") {
            "" | "Warn" => Ok(Strictness::Warn),
            "Ignore" => Ok(Strictness::Ignore),
            "Strict" => Ok(Strictness::Strict),
            other => Err(Status::bad_request(format!(
                "fieldValidation: Unsupported value: {other:?}: supported values: \"Ignore\", \"Strict\", \"Warn\""
            ))),
        }
    }

    /// The warnings for the client, or the error's text.
    pub fn judge(self, problems: Vec<String>) -> Result<Vec<String>, String> {
        match self {
            Strictness::Ignore => Ok(Vec::new()),
            Strictness::Warn => Ok(problems),
            Strictness::Strict if problems.is_empty() => Ok(problems),
            Strictness::Strict => Err(format!("strict decoding error: {}", problems.join(", "))),
        }
    }
}

pub fn problems(duplicates: &[String], unknown: &[String]) -> Vec<String> {
    let duplicates = duplicates.iter().map(|path| format!("duplicate field {path:?}"));
    duplicates
        .chain(unknown.iter().map(|path| format!("unknown field {path:?}")))
        .collect()
}

/// An object that names no kind gets the one of the path; another kind is refused.
fn check_kind(object: &mut Value, group: &str, version: &str, kind: &str) -> Result<(), Status> {
    let expected = if group.is_empty() {
        version.to_owned()
    } else {
        format!("{group}/{version}")
    };
    let Some(fields) = object.as_object_mut() else {
        return Err(Status::bad_request(
            "the object provided is unrecognized (must be a JSON object)",
        ));
    };
    let given = |field: &str| {
        fields
            .get(field)
            .and_then(Value::as_str)
            .unwrap_or_default()
            .to_owned()
    };
    let (given_version, given_kind) = (given("apiVersion"), given("kind"));
    if !given_version.is_empty() && given_version != expected {
        return Err(Status::bad_request(format!(
            "the API version in the data ({given_version}) does not match the expected API version ({expected})"
        )));
    }
    if !given_kind.is_empty() && given_kind != kind {
        return Err(Status::bad_request(format!(
            "{given_kind} in version {version:?} cannot be handled as a {kind}: converting ({given_kind}) to ({kind}): \
             unknown conversion"
        )));
    }
    fields.insert("apiVersion".into(), expected.into());
    fields.insert("kind".into(), kind.into());
    Ok(())
}
