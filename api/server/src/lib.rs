//! The Kubernetes API server: handler chain, generic registry, watch, discovery, OpenAPI.
//!
//! It works on the member's own replica: a write is one transaction, a list or a watch sends stored bytes. A
//! request goes `server` (who, may he, is there room) → `handlers` (one file per verb) → `registry` (one path for
//! all resources) with a small strategy per resource (`resources`) → `storage`.

mod authn;
mod authz;
mod background;
mod body;
mod codec;
mod config;
mod discovery;
mod errors;
mod handlers;
mod health;
mod inflight;
mod listing;
mod metrics;
mod negotiate;
mod openapi;
mod protobuf;
mod query;
mod registry;
mod request;
mod request_info;
mod resource;
mod resources;
mod respond;
mod schema;
mod selection;
mod server;
mod storage;
mod tables;
mod update;
mod version;
mod watching;

pub use authn::{PeerCertificate, User};
pub use background::StartError;
pub use config::ApiConfig;
pub use metrics::ApiMetrics;
pub use server::ApiServer;
