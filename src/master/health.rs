//! `/health`, `/livez`, `/readyz` and `/version`: whether this member should be asked, and what it is.
//!
//! Unready is not unhealthy: a member without a leader lives, and one that is going away works to the end.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use barque_etcd::{ETCD_CLUSTER_VERSION, ETCD_VERSION};
use barque_proto::command::alarm::Kind;
use barque_replica::Replica;
use http::{Method, Response, StatusCode, Uri};
use serde_json::json;

use super::front::{Body, JSON, TEXT, page};

/// A probe wants an answer before its own patience ends, not the truth after it.
const READ_TIMEOUT: Duration = Duration::from_millis(900);

pub struct Readiness {
    replica: Replica,
    draining: AtomicBool,
    caught_up: AtomicBool,
}

/// A named check, and why it failed.
type Check = (&'static str, Result<(), String>);

impl Readiness {
    pub fn new(replica: Replica) -> Self {
        Self {
            replica,
            draining: AtomicBool::new(false),
            caught_up: AtomicBool::new(false),
        }
    }

    pub fn go_unready(&self) {
        self.draining.store(true, Ordering::Relaxed);
    }

    /// Whether the state covers all that this member had served before it was stopped. Until then it serves
    /// nothing: old data would pass for new.
    pub fn is_caught_up(&self) -> bool {
        if self.caught_up.load(Ordering::Acquire) {
            return true;
        }
        let caught_up = self.replica.is_ready();
        self.caught_up.store(caught_up, Ordering::Release);
        caught_up
    }

    /// `/readyz` of a member that should not be used; one that should has more to say elsewhere.
    pub async fn unready_page(&self, uri: &Uri) -> Option<Response<Body>> {
        let checks = self.checks().await;
        checks
            .iter()
            .any(|(_, outcome)| outcome.is_err())
            .then(|| checks_page(uri, &checks))
    }

    /// The pages that Kubernetes' probes know.
    async fn page(&self, method: &Method, uri: &Uri) -> Option<Response<Body>> {
        if method != Method::GET && method != Method::HEAD {
            return None;
        }
        match uri.path() {
            "/livez" => Some(checks_page(uri, &[("ping", Ok(()))])),
            "/readyz" => Some(checks_page(uri, &self.checks().await)),
            "/healthz" => Some(checks_page(uri, &self.checks().await)),
            _ => None,
        }
    }

    /// Those, and etcd's own.
    pub async fn etcd_page(&self, method: &Method, uri: &Uri) -> Option<Response<Body>> {
        if method != Method::GET && method != Method::HEAD {
            return None;
        }
        match uri.path() {
            "/health" => Some(self.health(uri).await),
            "/version" => {
                let version = json!({"etcdserver": ETCD_VERSION, "etcdcluster": ETCD_CLUSTER_VERSION});
                Some(page(StatusCode::OK, JSON, version.to_string()))
            }
            _ => self.page(method, uri).await,
        }
    }

    /// etcd's form: `health` is a string.
    async fn health(&self, uri: &Uri) -> Response<Body> {
        let serializable = has_query(uri, "serializable");
        let reason = match self.leader() {
            Err(_) if !serializable => Some("RAFT NO LEADER".to_owned()),
            _ => match self.alarm(uri) {
                None if !serializable => self
                    .linearizable_read()
                    .await
                    .err()
                    .map(|error| format!("RANGE ERROR:{error}")),
                alarm => alarm,
            },
        };
        let status = if reason.is_none() {
            StatusCode::OK
        } else {
            StatusCode::SERVICE_UNAVAILABLE
        };
        let health = if reason.is_none() { "true" } else { "false" };
        page(
            status,
            JSON,
            json!({"health": health, "reason": reason.unwrap_or_default()}).to_string(),
        )
    }

    /// An active alarm that whoever asks did not exclude, as `exclude=NOSPACE` does.
    fn alarm(&self, uri: &Uri) -> Option<String> {
        let excluded: Vec<&str> = query(uri)
            .filter_map(|pair| pair.strip_prefix("exclude="))
            .collect();
        let me = self.replica.status().member_id.0;
        let alarms = self.replica.store().alarms();
        let mut active = alarms
            .iter()
            .filter_map(|(member, kind)| alarm_name(*kind, *member == me));
        let name = active.find(|name| !excluded.contains(name))?;
        Some(format!("ALARM {name}"))
    }

    async fn checks(&self) -> Vec<Check> {
        vec![
            ("shutdown", self.not_draining()),
            ("caught_up", self.caught_up()),
            ("leader", self.leader()),
            ("non_learner", self.not_learner()),
            ("linearizable_read", self.linearizable_read().await),
        ]
    }

    fn not_draining(&self) -> Result<(), String> {
        if self.draining.load(Ordering::Relaxed) {
            return Err("the member is shutting down".to_owned());
        }
        Ok(())
    }

    fn caught_up(&self) -> Result<(), String> {
        if !self.is_caught_up() {
            return Err("the member replays what it had served before".to_owned());
        }
        Ok(())
    }

    fn leader(&self) -> Result<(), String> {
        match self.replica.leadership().borrow().leader {
            Some(_) => Ok(()),
            None => Err("no leader".to_owned()),
        }
    }

    fn not_learner(&self) -> Result<(), String> {
        if self.replica.status().is_learner {
            return Err("the member is a learner".to_owned());
        }
        Ok(())
    }

    async fn linearizable_read(&self) -> Result<(), String> {
        match tokio::time::timeout(READ_TIMEOUT, self.replica.read_barrier()).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => Err(error.to_string()),
            Err(_) => Err("no answer in time".to_owned()),
        }
    }
}

/// As etcd names it. Damaged files are an alarm of the one member that has them.
fn alarm_name(kind: Kind, is_own: bool) -> Option<&'static str> {
    match kind {
        Kind::Nospace | Kind::Corrupt => Some(kind.as_str_name()),
        Kind::Damaged if is_own => Some(Kind::Corrupt.as_str_name()),
        Kind::Damaged | Kind::None => None,
    }
}

/// `ok` when all is well and nobody asked for more.
fn checks_page(uri: &Uri, checks: &[Check]) -> Response<Body> {
    let healthy = checks.iter().all(|(_, outcome)| outcome.is_ok());
    if healthy && !has_query(uri, "verbose") {
        return page(StatusCode::OK, TEXT, "ok".to_owned());
    }
    let mut text = String::new();
    for (name, outcome) in checks {
        match outcome {
            Ok(()) => text.push_str(&format!("[+]{name} ok\n")),
            Err(reason) => text.push_str(&format!("[-]{name} failed: {reason}\n")),
        }
    }
    text.push_str(if healthy { "ok\n" } else { "check failed\n" });
    let status = if healthy {
        StatusCode::OK
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    };
    page(status, TEXT, text)
}

fn query(uri: &Uri) -> impl Iterator<Item = &str> {
    uri.query().unwrap_or_default().split('&')
}

fn has_query(uri: &Uri, name: &str) -> bool {
    query(uri)
        .filter_map(|pair| pair.split('=').next().map(|key| (key, pair)))
        .any(|(key, pair)| key == name && !pair.ends_with("=false"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn damaged_files_are_the_alarm_of_one_member() {
        for (kind, is_own, expected) in [
            (Kind::Nospace, false, Some("NOSPACE")),
            (Kind::Corrupt, false, Some("CORRUPT")),
            (Kind::Damaged, true, Some("CORRUPT")),
            (Kind::Damaged, false, None),
        ] {
            assert_eq!(alarm_name(kind, is_own), expected, "{kind:?} {is_own}");
        }
    }
}
