//! `/healthz`, `/livez`, `/readyz`, each with `?verbose`, and single checks below them.

use axum::body::Body;
use http::{Response, StatusCode};

use crate::{query::Query, respond, server::Server};

struct Check {
    name: &'static str,
    passed: bool,
}

/// Answers a health path; `None` when it is none.
pub fn answer(server: &Server, path: &str, query: &Query) -> Option<Response<Body>> {
    let mut segments = path.trim_matches('/').split('/');
    let endpoint = segments.next().unwrap_or_default();
    let mut checks = vec![Check {
        name: "ping",
        passed: true,
    }];
    match endpoint {
        "livez" => {}
        "readyz" | "healthz" => {
            checks.push(Check {
                name: "etcd",
                passed: server.has_leader(),
            });
            checks.push(Check {
                name: "prefix",
                passed: server.is_ready(),
            });
            if endpoint == "readyz" {
                checks.push(Check {
                    name: "shutdown",
                    passed: !server.shutdown.is_cancelled(),
                });
            }
        }
        _ => return None,
    }
    if let Some(name) = segments.next() {
        checks.retain(|c| c.name == name);
        if checks.is_empty() || segments.next().is_some() {
            return None;
        }
    }
    Some(report(endpoint, &checks, query.flag("verbose")))
}

fn report(endpoint: &str, checks: &[Check], verbose: bool) -> Response<Body> {
    let passed = checks.iter().all(|c| c.passed);
    let code = if passed {
        StatusCode::OK
    } else {
        StatusCode::INTERNAL_SERVER_ERROR
    };
    if passed && !verbose {
        return respond::with_type(code, "text/plain; charset=utf-8", "ok");
    }
    let mut text = String::new();
    for check in checks {
        text += &match check.passed {
            true => format!("[+]{} ok\n", check.name),
            false => format!("[-]{} failed: reason withheld\n", check.name),
        };
    }
    text += &format!("{endpoint} check {}\n", if passed { "passed" } else { "failed" });
    respond::with_type(code, "text/plain; charset=utf-8", text)
}
