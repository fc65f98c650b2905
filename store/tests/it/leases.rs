//! Leases in the state: attached, moved, revoked, checkpointed.

use barque_proto::command::{LeaseCheckpoint, command::Op, lease_checkpoint::Remaining};
use barque_store::{CommandError, LeaseId, Response, Revision};

use crate::support::*;

fn keys(fixture: &Fixture, lease: i64) -> Vec<String> {
    fixture
        .store
        .reader()
        .lease_keys(LeaseId(lease))
        .unwrap()
        .iter()
        .map(|key| text(key))
        .collect()
}

#[test]
fn line_17_revoke_deletes_in_one_revision_in_key_order() {
    on_each_engine(|fixture| {
        fixture.apply(grant(5, 10)).unwrap();
        assert_eq!(
            fixture.apply(grant(5, 10)).unwrap_err(),
            CommandError::LeaseExists
        );
        for key in ["c", "a", "b"] {
            fixture.apply(put_with_lease(key, "1", 5)).unwrap();
        }
        assert_eq!(keys(fixture, 5), ["a", "b", "c"]);
        let Response::LeaseRevoke { revision, .. } = fixture.apply(revoke(5)).unwrap() else {
            panic!()
        };
        assert_eq!(revision, Revision(5));
        assert_eq!(fixture.history(5), ["5:del a=<1", "5:del b=<1", "5:del c=<1"]);
        assert!(fixture.store.leases().unwrap().is_empty() && keys(fixture, 5).is_empty());
        assert_eq!(fixture.apply(revoke(5)).unwrap_err(), CommandError::LeaseNotFound);
        assert_eq!(
            fixture.apply(put_with_lease("a", "1", 5)).unwrap_err(),
            CommandError::LeaseNotFound
        );
    });
}

#[test]
fn a_lease_of_many_keys_is_revoked_whole() {
    on_each_engine(|fixture| {
        fixture.apply(grant(5, 10)).unwrap();
        let puts = (0..300).map(|number| put_with_lease(&format!("k{number:03}"), "1", 5));
        fixture.apply_all(puts.collect());
        fixture.put("k299a", "of no lease");
        let before = fixture.store.head().revision;
        let Response::LeaseRevoke { revision, complete } = fixture.apply(revoke(5)).unwrap() else {
            panic!()
        };
        assert_eq!((revision, complete), (before.next(), true));
        let deleted = fixture.history(revision.0);
        let expected: Vec<_> = (0..300)
            .map(|number| format!("{}:del k{number:03}=<1", revision.0))
            .collect();
        assert_eq!(deleted, expected);
        assert_eq!(fixture.list(all()), ["k299a=of no lease"]);
        assert!(fixture.store.leases().unwrap().is_empty() && keys(fixture, 5).is_empty());
    });
}

#[test]
fn line_12_a_put_moves_or_detaches_its_key() {
    on_each_engine(|fixture| {
        fixture.apply(grant(1, 10)).unwrap();
        fixture.apply(grant(2, 10)).unwrap();
        fixture.apply(put_with_lease("k", "1", 1)).unwrap();
        fixture.apply(put_with_lease("k", "2", 2)).unwrap();
        assert_eq!(
            (keys(fixture, 1).len(), keys(fixture, 2)),
            (0, vec!["k".to_string()])
        );
        fixture.put("k", "3");
        assert!(keys(fixture, 2).is_empty());
        fixture.apply(put_with_lease("k", "4", 1)).unwrap();
        fixture.delete("k");
        assert!(keys(fixture, 1).is_empty());
        let Response::LeaseRevoke { revision, .. } = fixture.apply(revoke(1)).unwrap() else {
            panic!()
        };
        assert_eq!(revision, Revision(6), "nothing to delete, nothing changed");
    });
}

#[test]
fn checkpoints_keep_what_remains() {
    on_each_engine(|fixture| {
        fixture.apply(grant(-3, 60)).unwrap();
        fixture.apply(grant(7, 30)).unwrap();
        let left = |id, remaining_ttl_s| Remaining { id, remaining_ttl_s };
        let checkpoint = LeaseCheckpoint {
            leases: vec![left(7, 11), left(99, 1)],
        };
        fixture.apply(Op::LeaseCheckpoint(checkpoint)).unwrap();
        assert_eq!(
            fixture.store.leases().unwrap(),
            [(LeaseId(-3), 60, 60), (LeaseId(7), 30, 11)]
        );
    });
}
