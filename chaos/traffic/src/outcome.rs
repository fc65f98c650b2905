//! What a client may conclude from an error.

use barque_checks::history::Outcome;
use tonic::{Code, Status};

/// Said only of calls without any effect, then or later.
const WITHOUT_EFFECT: [&str; 9] = [
    "required revision",
    "lease not found",
    "lease already exists",
    "too large lease TTL",
    "duplicate key",
    "too many requests",
    "database space exceeded",
    "request is too large",
    "no leader",
];

pub fn unanswered() -> Outcome {
    Outcome::Unknown("no answer".into())
}

pub fn of(status: &Status) -> Outcome {
    let text = format!("{:?}: {}", status.code(), status.message());
    let refused = WITHOUT_EFFECT
        .iter()
        .any(|known| status.message().contains(known));
    let invalid = matches!(
        status.code(),
        Code::InvalidArgument | Code::Unimplemented | Code::PermissionDenied
    );
    match refused || invalid || never_sent(status) {
        true => Outcome::NotApplied(text),
        false => Outcome::Unknown(text),
    }
}

/// There was no connection to send it on.
fn never_sent(status: &Status) -> bool {
    let mut cause = std::error::Error::source(status);
    while let Some(error) = cause {
        if error
            .downcast_ref::<std::io::Error>()
            .is_some_and(|error| error.kind() == std::io::ErrorKind::ConnectionRefused)
        {
            return true;
        }
        cause = error.source();
    }
    false
}
