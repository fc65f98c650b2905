//! The Kubernetes version whose API this server speaks.

use serde_json::{Value, json};

pub const MAJOR: &str = "1";
pub const MINOR: &str = "33";

/// What clients compare against: the API's version first, this program's behind the plus sign.
pub fn git_version() -> String {
    format!("v{MAJOR}.{MINOR}.0+barque.{}", env!("CARGO_PKG_VERSION"))
}

pub fn version_info() -> Value {
    json!({
        "major": MAJOR,
        "minor": MINOR,
        "gitVersion": git_version(),
        "gitCommit": "",
        "gitTreeState": "clean",
        "buildDate": "1970-01-01T00:00:00Z",
        "goVersion": "",
        "compiler": "rustc",
        "platform": format!("{}/{}", std::env::consts::OS, std::env::consts::ARCH),
    })
}
