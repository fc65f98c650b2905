//! Refusals for want of space: of writes alone, and only where there is a quota.
//!
//! Deletes, compactions and revocations always pass: they are the way out.

use crate::{
    history::{History, Outcome, Request},
    verdict::{Check, Findings, Violation},
};

/// What etcd says.
const NO_SPACE: &str = "database space exceeded";

pub fn check(history: &History) -> Check {
    let mut findings = Findings::new("no space");
    for (index, operation) in history.operations.iter().enumerate() {
        let Outcome::NotApplied(error) = &operation.outcome else {
            continue;
        };
        if !error.contains(NO_SPACE) {
            continue;
        }
        findings.count(1);
        let wrong = match (history.has_quota, needs_space(&operation.request)) {
            (true, true) => continue,
            (true, false) => "refused for want of space, and would have given some back",
            (false, _) => "refused for want of space where there is no quota",
        };
        findings.add(Violation::new(format!("{wrong}: {operation}")).of([index]));
    }
    findings.done()
}

/// As etcd counts it: a txn needs it if any of its branches puts.
fn needs_space(request: &Request) -> bool {
    let mut needs = false;
    request.visit(&mut |request| {
        needs |= matches!(request, Request::Put { .. } | Request::LeaseGrant { .. });
    });
    needs
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::history::Operation;

    fn fails(has_quota: bool, request: Request) -> bool {
        let operation = Operation {
            client: 0,
            member: 0,
            life: 0,
            call: 0,
            ret: Some(1),
            request,
            outcome: Outcome::NotApplied(format!("ResourceExhausted: etcdserver: mvcc: {NO_SPACE}")),
        };
        check(&History {
            has_quota,
            operations: vec![operation],
            ..History::default()
        })
        .failed()
    }

    #[test]
    fn only_writes_and_only_with_a_quota() {
        assert!(!fails(true, Request::put("a", "1/1")));
        assert!(fails(false, Request::put("a", "1/1")));
        assert!(fails(true, Request::delete("a")));
        assert!(fails(true, Request::LeaseRevoke { id: 1 }));
        assert!(fails(true, Request::Compact { revision: 2 }));
    }
}
