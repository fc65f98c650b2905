//! Which form the client wants its answer in.

use barque_machinery::status::Status;
use http::HeaderMap;

/// The form of an object or a list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shape {
    Object,
    Table,
    PartialMetadata,
}

/// One entry of an Accept header.
#[derive(Debug, PartialEq, Eq)]
pub struct MediaType<'a> {
    pub essence: &'a str,
    pub parameters: Vec<(&'a str, &'a str)>,
}

impl<'a> MediaType<'a> {
    fn parse(text: &'a str) -> Self {
        let mut parts = text.split(';').map(str::trim);
        let essence = parts.next().unwrap_or_default();
        let parameters = parts
            .filter_map(|p| p.split_once('='))
            .map(|(k, v)| (k.trim(), v.trim()));
        Self {
            essence,
            parameters: parameters.collect(),
        }
    }

    pub fn parameter(&self, name: &str) -> &'a str {
        self.parameters
            .iter()
            .find(|(k, _)| *k == name)
            .map_or("", |(_, v)| v)
    }

    /// JSON, or whatever the server likes.
    pub fn takes_json(&self) -> bool {
        matches!(self.essence, "application/json" | "*/*" | "application/*")
    }
}

/// The Accept header's entries in the client's order; without the header, one that takes anything.
pub fn accepted(headers: &HeaderMap) -> Vec<MediaType<'_>> {
    let values = headers
        .get_all(http::header::ACCEPT)
        .iter()
        .filter_map(|v| v.to_str().ok());
    let mut types: Vec<_> = values.flat_map(|v| v.split(',')).map(MediaType::parse).collect();
    types.retain(|t| !t.essence.is_empty());
    if types.is_empty() {
        types.push(MediaType::parse("*/*"));
    }
    types
}

/// The first form asked for that there is.
pub fn shape(headers: &HeaderMap) -> Result<Shape, Status> {
    for media in accepted(headers).iter().filter(|m| m.takes_json()) {
        let known = media.parameter("g") == "meta.k8s.io" && media.parameter("v") == "v1";
        match media.parameter("as") {
            "" => return Ok(Shape::Object),
            "Table" if known => return Ok(Shape::Table),
            "PartialObjectMetadata" | "PartialObjectMetadataList" if known => {
                return Ok(Shape::PartialMetadata);
            }
            _ => {}
        }
    }
    Err(Status::not_acceptable("application/json"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shapes() {
        let check = |accept: &'static str, expect: Option<Shape>| {
            let headers =
                HeaderMap::from_iter([(http::header::ACCEPT, http::HeaderValue::from_static(accept))]);
            assert_eq!(shape(&headers).ok(), expect, "{accept}");
        };
        let kubectl = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json;as=Table;v=v1beta1;g=meta.k8s.io,\
                       application/json";
        check(kubectl, Some(Shape::Table));
        check("application/json", Some(Shape::Object));
        check("application/vnd.kubernetes.protobuf, */*", Some(Shape::Object));
        check(
            "application/vnd.kubernetes.protobuf,application/json",
            Some(Shape::Object),
        );
        check(
            "application/json;as=Table;v=v9;g=meta.k8s.io,application/json",
            Some(Shape::Object),
        );
        check(
            "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1",
            Some(Shape::PartialMetadata),
        );
        check("application/vnd.kubernetes.protobuf", None);
        assert_eq!(shape(&HeaderMap::new()), Ok(Shape::Object));
    }
}
