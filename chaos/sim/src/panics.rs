//! Panics of members: a task that dies of one may leave the rest of its process as if nothing had happened, so each is
//! noted where it happens.

use std::panic::{self, PanicHookInfo};

use barque_checks::{Check, Findings, Violation};
use parking_lot::Mutex;

static SEEN: Mutex<Vec<String>> = Mutex::new(Vec::new());

/// Notes every panic from now on; a trace says where it came from.
pub fn note(backtraces: bool) {
    let usual = panic::take_hook();
    panic::set_hook(Box::new(move |info| {
        SEEN.lock().push(describe(info));
        if backtraces {
            usual(info);
        }
    }));
}

/// The first line of what it said, and where.
fn describe(info: &PanicHookInfo<'_>) -> String {
    let said = info.payload_as_str().unwrap_or("something that is no text");
    let first = said.lines().next().unwrap_or_default();
    match info.location() {
        Some(at) => format!("{first} ({}:{})", at.file(), at.line()),
        None => first.to_owned(),
    }
}

pub fn check() -> Check {
    let seen = SEEN.lock();
    let mut findings = Findings::new("nothing panics");
    findings.count(1);
    findings.add_all(seen.iter().map(Violation::new));
    findings.done()
}
