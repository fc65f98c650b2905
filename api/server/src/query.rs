//! Query parameters, read leniently: unknown ones are ignored, as kube-apiserver does.

use barque_machinery::status::Status;
use http::Uri;

#[derive(Debug, Clone, Default)]
pub struct Query(Vec<(String, String)>);

impl Query {
    pub fn parse(uri: &Uri) -> Result<Self, Status> {
        let parsed = axum::extract::Query::<Vec<(String, String)>>::try_from_uri(uri);
        parsed
            .map(|q| Self(q.0))
            .map_err(|e| Status::bad_request(e.to_string()))
    }

    /// The first value of a parameter; empty when it is not given.
    pub fn get(&self, name: &str) -> &str {
        self.0
            .iter()
            .find(|(key, _)| key == name)
            .map_or("", |(_, value)| value)
    }

    pub fn is_set(&self, name: &str) -> bool {
        !self.get(name).is_empty()
    }

    /// `true`, `1`; given without a value it is true as well.
    pub fn flag(&self, name: &str) -> bool {
        let given = self.0.iter().find(|(key, _)| key == name);
        given.is_some_and(|(_, value)| !matches!(value.as_str(), "false" | "0"))
    }

    pub fn number(&self, name: &str) -> Result<Option<i64>, Status> {
        match self.get(name) {
            "" => Ok(None),
            text => text.parse().map(Some).map_err(|_| {
                Status::bad_request(format!(
                    "strconv.ParseInt: parsing {text:?}: invalid syntax ({name})"
                ))
            }),
        }
    }

    /// `dryRun=All`
    pub fn dry_run(&self) -> Result<bool, Status> {
        match self.get("dryRun") {
            "" => Ok(false),
            "All" => Ok(true),
            other => Err(Status::bad_request(format!(
                "Invalid value: {other:?}: dryRun: Unsupported value: supported values: \"All\""
            ))),
        }
    }
}
