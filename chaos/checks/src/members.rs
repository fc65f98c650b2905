//! Members: the same content at the same revision, and one leader a term.

use std::collections::BTreeMap;

use crate::{
    history::{History, MemberState},
    verdict::{Check, Findings, Violation},
};

/// Equal hashes at equal revisions, equal revisions at equal log positions.
pub fn check(history: &History) -> Check {
    let mut findings = Findings::new("members equal");
    let mut hashes: BTreeMap<_, &MemberState> = BTreeMap::new();
    let mut revisions: BTreeMap<u64, &MemberState> = BTreeMap::new();
    for state in &history.states {
        findings.count(1);
        if state.hash_revision > 0 {
            // What is compacted is not part of the hash.
            let at = (state.hash_revision, state.compact_revision);
            let first = *hashes.entry(at).or_insert(state);
            if first.hash != state.hash {
                let text = format!(
                    "hash {:016x} of member {}, and {:016x} of member {}",
                    first.hash, first.member, state.hash, state.member
                );
                findings.add(Violation::new(text).at(state.hash_revision));
            }
        }
        if state.applied > 0 {
            let first = *revisions.entry(state.applied).or_insert(state);
            if first.revision != state.revision {
                let text = format!(
                    "having applied entry {}, member {} is at revision {} and member {} at {}",
                    state.applied, first.member, first.revision, state.member, state.revision
                );
                findings.add(Violation::new(text).at(state.revision));
            }
        }
    }
    findings.done()
}

/// No two members lead in one term.
pub fn check_leaders(history: &History) -> Check {
    let mut findings = Findings::new("one leader a term");
    let mut leaders: BTreeMap<u64, u32> = BTreeMap::new();
    for record in &history.leaders {
        findings.count(1);
        let first = *leaders.entry(record.term).or_insert(record.member);
        if first != record.member {
            let text = format!(
                "members {first} and {} both led in term {}",
                record.member, record.term
            );
            findings.add(Violation::new(text));
        }
    }
    findings.done()
}
