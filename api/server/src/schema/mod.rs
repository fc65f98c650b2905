//! The schemas of the served kinds, for validation of what clients send and for OpenAPI.
//!
//! They come from k8s-openapi's types, are made at first use, and never change.

mod compile;
mod generate;
mod normalize;

use std::sync::LazyLock;

pub use compile::SchemaSet;
pub use generate::definitions;

/// Compiled schemas of all served kinds.
pub fn schemas() -> &'static SchemaSet {
    static SCHEMAS: LazyLock<SchemaSet> = LazyLock::new(|| SchemaSet::compile(definitions()));
    &SCHEMAS
}

/// `io.k8s.api.apps.v1.Deployment`
pub fn definition_name(group: &str, version: &str, kind: &str) -> String {
    let package = match group {
        "" => "core",
        group => group.split('.').next().unwrap_or_default(),
    };
    format!("io.k8s.api.{package}.{version}.{kind}")
}
