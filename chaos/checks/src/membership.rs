//! The membership: what was acknowledged stands, and who lost its data does not serve.

use crate::{
    history::{ChangeKind, History, MemberListing, MembershipChange},
    verdict::{Check, Findings, Violation},
};

/// Every listing holds the changes that were acknowledged before it.
pub fn check_changes(history: &History) -> Check {
    let mut findings = Findings::new("membership changes stand");
    for listing in &history.listings {
        findings.count(1);
        let settled = history
            .changes
            .iter()
            .filter(|change| is_settled(change, &history.changes, listing));
        findings.add_all(settled.filter_map(|change| contradiction(change, listing)));
    }
    findings.done()
}

/// Acknowledged before the listing was asked for, and no other change of the same member can have come after it.
fn is_settled(change: &MembershipChange, all: &[MembershipChange], listing: &MemberListing) -> bool {
    let Some(acknowledged) = change.ret else {
        return false;
    };
    let may_come_after = |other: &MembershipChange| {
        other != change
            && other.id == change.id
            && other.call < listing.ret
            && other.ret.is_none_or(|ret| ret > change.call)
    };
    acknowledged < listing.call && !all.iter().any(may_come_after)
}

fn contradiction(change: &MembershipChange, listing: &MemberListing) -> Option<Violation> {
    let listed = listing.members.iter().find(|(id, _)| *id == change.id);
    let text = match (change.kind, listed) {
        (ChangeKind::Removed, None) => return None,
        (ChangeKind::Removed, Some(_)) => "was removed, and is listed".to_owned(),
        (_, Some((_, urls))) if *urls == change.urls => return None,
        (_, Some((_, urls))) => format!("has the peer URLs {:?}, and {urls:?} are listed", change.urls),
        (_, None) => "was added or updated, and is not listed".to_owned(),
    };
    Some(Violation::new(format!("member {:x} {text}", change.id)))
}

/// A member that comes without its data does not serve under the ID of the one that had it.
pub fn check_wiped(history: &History) -> Check {
    let mut findings = Findings::new("wiped members stay out");
    for record in &history.wiped {
        findings.count(1);
        if record.served {
            let what = match record.has_older_copy {
                true => "came back with less than it had acknowledged",
                false => "lost its data",
            };
            let text = format!("member {} {what} and served under its old ID", record.member);
            findings.add(Violation::new(text));
        }
    }
    findings.done()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::history::WipedRecord;

    fn change(id: u64, kind: ChangeKind, url: &str, call: u64, ret: Option<u64>) -> MembershipChange {
        MembershipChange {
            call,
            ret,
            ..MembershipChange::new(id, kind, vec![url.into()])
        }
    }

    fn fails(changes: &[MembershipChange], members: &[(u64, &str)]) -> bool {
        let members = members.iter().map(|(id, url)| (*id, vec![url.to_string()]));
        let history = History {
            changes: changes.to_vec(),
            listings: vec![MemberListing {
                call: 100,
                ret: 110,
                members: members.collect(),
            }],
            ..History::default()
        };
        check_changes(&history).failed()
    }

    #[test]
    fn what_was_acknowledged_is_listed() {
        let added = change(1, ChangeKind::Added, "a", 10, Some(20));
        assert!(!fails(std::slice::from_ref(&added), &[(1, "a")]));
        assert!(fails(std::slice::from_ref(&added), &[]));
        assert!(fails(std::slice::from_ref(&added), &[(1, "b")]));
        let removed = change(1, ChangeKind::Removed, "", 30, Some(40));
        assert!(fails(&[added.clone(), removed.clone()], &[(1, "a")]));
        assert!(!fails(&[added, removed], &[]));
    }

    #[test]
    fn what_may_have_happened_excuses() {
        let added = change(1, ChangeKind::Added, "a", 10, Some(20));
        let unknown = change(1, ChangeKind::Removed, "", 30, None);
        assert!(!fails(&[added.clone(), unknown], &[]));
        let meanwhile = change(1, ChangeKind::Updated, "b", 15, Some(25));
        assert!(!fails(&[added, meanwhile.clone()], &[(1, "a")]));
        // Of another member it says nothing.
        assert!(fails(
            &[change(2, ChangeKind::Added, "a", 10, Some(20)), meanwhile],
            &[(1, "b")]
        ));
        // Not acknowledged before the listing.
        assert!(!fails(&[change(1, ChangeKind::Added, "a", 90, Some(105))], &[]));
    }

    #[test]
    fn who_lost_its_data_does_not_serve() {
        let record = |served| History {
            wiped: vec![WipedRecord {
                member: 1,
                from: 0,
                until: 10,
                served,
                has_older_copy: false,
            }],
            ..History::default()
        };
        assert!(!check_wiped(&record(false)).failed());
        assert!(check_wiped(&record(true)).failed());
    }
}
