//! Compaction: logical at once, physical later, and what stays readable.

use barque_store::{CommandError, ReadError, Revision};

use crate::support::*;

fn compact_fully(fixture: &mut Fixture) {
    while fixture.applier.compact_step().unwrap() {}
    while fixture.applier.move_step().unwrap() {}
}

#[test]
fn only_forward_and_never_beyond_the_head() {
    on_each_engine(|fixture| {
        fixture.put("a", "1");
        fixture.put("a", "2");
        fixture.apply(compact(2)).unwrap();
        for repeated in [2, 1, 0, -1] {
            let error = fixture.apply(compact(repeated)).unwrap_err();
            assert_eq!(
                error,
                CommandError::Compacted {
                    compact_revision: Revision(2)
                }
            );
        }
        assert_eq!(
            fixture.apply(compact(4)).unwrap_err(),
            CommandError::FutureRevision
        );
        assert_eq!(fixture.store.head().compact_revision, Revision(2));
    });
}

#[test]
fn lines_13_and_25a_what_happened_at_the_compact_revision_stays() {
    on_each_engine(|fixture| {
        fixture.put("gone", "2");
        fixture.put("kept", "3");
        fixture.delete("gone");
        fixture.put("kept", "5");
        fixture.apply(compact(4)).unwrap();
        let check = |fixture: &Fixture| {
            assert_eq!(fixture.history(4), ["4:del gone=", "5:put kept=5<3"]);
            assert_eq!(fixture.get("kept", 4), Some("3".into()));
            assert_eq!(fixture.get("gone", 4), None);
            let range = barque_store::KeyRange {
                start: bytes(""),
                end: None,
            };
            let below = fixture
                .store
                .reader()
                .history(&range, Revision(3), 1)
                .unwrap_err();
            assert!(matches!(
                below,
                ReadError::Compacted {
                    compact_revision: Revision(4)
                }
            ));
        };
        check(fixture);
        compact_fully(fixture);
        fixture.put("next", "6");
        assert_eq!(fixture.history(6), ["6:put next=6"]);
        fixture.apply(compact(6)).unwrap();
        compact_fully(fixture);
        assert_eq!(fixture.history(6), ["6:put next=6"]);
        assert_eq!(fixture.get("kept", 6), Some("5".into()));
    });
}

#[test]
fn nothing_unreachable_is_left_behind() {
    on_each_engine(|fixture| {
        for round in 0..3000 {
            fixture.put(&format!("k{}", round % 10), &round.to_string());
        }
        for key in 0..5 {
            fixture.delete(&format!("k{key}"));
        }
        let head = fixture.store.head().revision.0;
        fixture.apply(compact(head)).unwrap();
        assert!(fixture.applier.compact_step().unwrap(), "one step is bounded");
        compact_fully(fixture);
        assert!(!fixture.applier.compact_step().unwrap());
        fixture.put("last", "1");
        assert_eq!(fixture.list(range("k", "l")).len(), 5);
        assert_eq!(
            fixture.history(head),
            [format!("{head}:del k4="), format!("{}:put last=1", head + 1)]
        );
    });
}

#[test]
fn a_long_log_is_looked_through_in_pieces() {
    on_each_engine(|fixture| {
        let many = |from: usize| {
            (from..from + 1000)
                .map(|value| put("busy", &value.to_string()))
                .collect()
        };
        fixture.put("rare", "first");
        for from in 0..30 {
            fixture.apply_all(many(1000 * from));
        }
        fixture.put("rare", "last");
        let reader = fixture.store.reader();
        let rare = barque_store::KeyRange::single(bytes("rare"));
        let (first, next) = reader.history(&rare, Revision(2), usize::MAX).unwrap();
        assert_eq!(
            first
                .iter()
                .flat_map(|changes| tell(&reader, changes))
                .collect::<Vec<_>>(),
            ["2:put rare=first"]
        );
        assert!(next.revision < reader.head().revision, "one call is bounded");
        let (rest, next) = reader.history(&rare, next, usize::MAX).unwrap();
        assert_eq!(
            rest.iter()
                .flat_map(|changes| tell(&reader, changes))
                .collect::<Vec<_>>(),
            ["30003:put rare=last<first"]
        );
        assert_eq!(next, reader.head().revision.next().into());
    });
}

#[test]
fn defragmenting_gives_space_back_and_changes_nothing_else() {
    on_each_engine(|fixture| {
        fixture.put("kept", "1");
        let value = "v".repeat(64 << 10);
        for number in 0..16 {
            fixture.put(&format!("k{number}"), &value);
        }
        let full = fixture.store.sizes().in_use_bytes;
        assert!(full > 16 * (64 << 10), "{full}");
        for number in 0..16 {
            fixture.delete(&format!("k{number}"));
        }
        let head = fixture.store.head().revision;
        fixture.apply(compact(head.0)).unwrap();
        compact_fully(fixture);
        let hash = fixture.store.state_hash();
        fixture.store.defragment().unwrap();
        let in_use = fixture.store.sizes().in_use_bytes;
        assert!(in_use < 64 << 10, "{in_use} of {full}");
        assert_eq!(fixture.store.state_hash(), hash);
        assert_eq!(fixture.get("kept", head.0), Some("1".into()));
        fixture.put("kept", "2");
        assert_eq!(fixture.store.head().revision, Revision(head.0 + 1));
    });
}
