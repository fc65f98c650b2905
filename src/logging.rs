//! Structured log lines on stderr: quiet when all is well, `key=value` fields, text or JSON.

use std::io;

use clap::ValueEnum;
use serde::{Deserialize, Serialize};
use tracing_subscriber::EnvFilter;

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Format {
    #[default]
    Text,
    Json,
}

/// etcd's names; `panic` and `fatal` say no more than `error` here.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Level {
    Trace,
    Debug,
    #[default]
    Info,
    Warn,
    #[value(alias = "dpanic", alias = "panic", alias = "fatal")]
    #[serde(alias = "dpanic", alias = "panic", alias = "fatal")]
    Error,
}

/// Called once per process. `BARQUE_LOG` refines the level per module, in tracing's own syntax.
pub fn init(level: Level, format: Format) {
    let filter = match std::env::var("BARQUE_LOG") {
        Ok(directives) => EnvFilter::new(directives),
        Err(_) => EnvFilter::new(directives(level)),
    };
    let lines = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(io::stderr)
        .with_ansi(false)
        // A line that cannot be written is lost: complaining of it, on stderr too, would end the thread.
        .log_internal_errors(false);
    match format {
        Format::Text => lines.init(),
        Format::Json => lines.json().flatten_event(true).init(),
    }
}

/// Raft's own crate warns at each message to a member that is down; the replica says once that it is. Its
/// complaint about a bootstrap that another member was faster with is part of every bootstrap.
fn directives(level: Level) -> &'static str {
    match level {
        Level::Trace => "trace",
        Level::Debug => "debug,h2=info,hyper=info,rustls=info",
        Level::Info => {
            "info,openraft=error,openraft::raft::api::management=off,h2=warn,hyper=warn,rustls=warn"
        }
        Level::Warn => "warn,openraft=error,openraft::raft::api::management=off",
        Level::Error => "error,openraft::raft::api::management=off",
    }
}
