//! The numbered lines of the etcd contract that the store itself answers for.

use barque_proto::command::{
    Alarm, Command, CommandBatch, Compare, IndexTerm, LeaseCheckpoint, Put, Range,
    alarm::Kind,
    command::Op,
    compare::{Result as Is, Target},
    lease_checkpoint::Remaining,
    operation,
    range::{SortOrder, SortTarget},
};
use barque_store::{
    CommandError, Entry, EntryBody, LogPosition, Response, Revision, StoreError, TxnResponse,
};
use bytes::Bytes;
use prost::Message;

use crate::support::*;

fn run_txn(fixture: &mut Fixture, txn: barque_proto::command::Txn) -> TxnResponse {
    match fixture.apply(Op::Txn(txn)).unwrap() {
        Response::Txn(response) => response,
        other => panic!("{other:?}"),
    }
}

#[test]
fn line_1_ranges_by_their_ends() {
    on_each_engine(|fixture| {
        for key in ["a", "b", "b\0", "c"] {
            fixture.put(key, "1");
        }
        assert_eq!(fixture.list(range("b", "")), ["b=1"]);
        assert_eq!(fixture.list(range("b", "c")), ["b=1", "b\0=1"]);
        assert_eq!(fixture.list(range("b", "\0")), ["b=1", "b\0=1", "c=1"]);
        assert_eq!(fixture.list(all()), ["a=1", "b=1", "b\0=1", "c=1"]);
        assert!(fixture.list(range("c", "b")).is_empty());
    });
}

#[test]
fn lines_2_and_14a_limits_filters_and_counts() {
    on_each_engine(|fixture| {
        for key in ["a", "b", "c", "d"] {
            fixture.put(key, key);
        }
        fixture.put("a", "new");
        let get = |query: Range| fixture.store.reader().range(&query).unwrap();
        let limited = get(Range { limit: 2, ..all() });
        assert_eq!((limited.kvs.len(), limited.more, limited.count), (2, true, 4));
        let exact = get(Range { limit: 4, ..all() });
        assert_eq!((exact.kvs.len(), exact.more, exact.count), (4, false, 4));
        let filtered = get(Range {
            limit: 1,
            min_mod_revision: 4,
            ..all()
        });
        assert_eq!(
            (
                filtered.kvs.iter().map(row).collect::<Vec<_>>(),
                filtered.more,
                filtered.count
            ),
            (vec!["a=new".into()], true, 4)
        );
        let past = get(Range {
            limit: 1,
            revision: 3,
            ..all()
        });
        assert_eq!(
            (past.kvs.len(), past.more, past.count, past.revision),
            (1, true, 2, Revision(6))
        );
        let counted = get(Range {
            count_only: true,
            revision: 4,
            ..all()
        });
        assert_eq!((counted.kvs.len(), counted.count), (0, 3));
        let keys = get(Range {
            keys_only: true,
            ..range("a", "")
        });
        assert_eq!((keys.kvs[0].value.len(), keys.kvs[0].version), (0, 2));
    });
}

#[test]
fn lines_2_and_3_sorts() {
    on_each_engine(|fixture| {
        for (key, value) in [("a", "3"), ("b", "1"), ("c", "2"), ("a", "4")] {
            fixture.put(key, value);
        }
        let sorted = |target: SortTarget, order: SortOrder, limit: i64| {
            fixture.list(Range {
                sort_target: target.into(),
                sort_order: order.into(),
                limit,
                ..all()
            })
        };
        assert_eq!(
            sorted(SortTarget::Value, SortOrder::None, 0),
            ["b=1", "c=2", "a=4"]
        );
        assert_eq!(sorted(SortTarget::Mod, SortOrder::Descend, 2), ["a=4", "c=2"]);
        assert_eq!(
            sorted(SortTarget::Create, SortOrder::Ascend, 0),
            ["a=4", "b=1", "c=2"]
        );
        assert_eq!(sorted(SortTarget::Version, SortOrder::Descend, 1), ["a=4"]);
        assert_eq!(sorted(SortTarget::Key, SortOrder::Descend, 2), ["c=2", "b=1"]);
        let by_value = Range {
            sort_target: SortTarget::Value.into(),
            keys_only: true,
            ..all()
        };
        assert_eq!(fixture.list(by_value), ["b=", "c=", "a="]);
    });
}

#[test]
fn line_4_the_past_is_read_with_the_current_header() {
    on_each_engine(|fixture| {
        assert_eq!(fixture.store.head().revision, Revision(1));
        assert_eq!(fixture.put("k", "2"), 2);
        fixture.put("k", "3");
        fixture.delete("k");
        fixture.put("k", "5");
        let seen: Vec<_> = (2..=5).map(|revision| fixture.get("k", revision)).collect();
        assert_eq!(seen, [Some("2".into()), Some("3".into()), None, Some("5".into())]);
        fixture.apply(compact(3)).unwrap();
        assert_eq!(fixture.get("k", 3), Some("3".into()));
        let error = fixture.store.reader().get(b"k", Revision(2)).unwrap_err();
        assert_eq!(error.to_string(), "required revision has been compacted");
        let error = fixture
            .store
            .reader()
            .range(&Range { revision: 6, ..all() })
            .unwrap_err();
        assert_eq!(error.to_string(), "required revision is a future revision");
    });
}

#[test]
fn line_5_compares_on_what_is_not_there() {
    on_each_engine(|fixture| {
        fixture.put("b1", "x");
        fixture.put("b2", "y");
        let mut holds = |compare: Compare| run_txn(fixture, txn(vec![compare], vec![], vec![])).succeeded;
        let on = |key, result, target| compare(key, result, target);
        assert!(!holds(on("none", Is::Equal, Target::Value(Bytes::new()))));
        assert!(!holds(on("none", Is::NotEqual, Target::Value(bytes("z")))));
        assert!(holds(on("none", Is::Equal, Target::ModRevision(0))));
        assert!(holds(on("none", Is::Less, Target::Version(1))));
        assert!(holds(on("none", Is::Equal, Target::Lease(0))));
        assert!(holds(on("b1", Is::Greater, Target::Value(bytes("a")))));
        let ranged = |result, target| Compare {
            range_end: bytes("c"),
            ..compare("b", result, target)
        };
        assert!(holds(ranged(Is::Greater, Target::CreateRevision(1))));
        assert!(
            !holds(ranged(Is::Equal, Target::Value(bytes("x")))),
            "every key must pass"
        );
        let empty = |result, target| Compare {
            range_end: bytes("e"),
            ..compare("d", result, target)
        };
        assert!(holds(empty(Is::Equal, Target::ModRevision(0))));
        assert!(!holds(empty(Is::NotEqual, Target::Value(bytes("x")))));
    });
}

#[test]
fn lines_6_7_and_11_a_txn_sees_itself_but_its_compares_do_not() {
    on_each_engine(|fixture| {
        fixture.put("old", "0");
        let missing = |key| compare(key, Is::Equal, Target::Version(0));
        let nested = txn(
            vec![missing("new")],
            vec![operation::Op::Put(a_put("nested", "taken"))],
            vec![],
        );
        let response = run_txn(
            fixture,
            txn(
                vec![missing("new")],
                vec![
                    operation::Op::Range(all()),
                    operation::Op::Put(a_put("new", "1")),
                    operation::Op::Range(all()),
                    operation::Op::DeleteRange(a_delete("old", "")),
                    operation::Op::Txn(nested),
                    operation::Op::Range(all()),
                    operation::Op::Range(Range { revision: 2, ..all() }),
                    operation::Op::Range(Range { limit: 1, ..all() }),
                ],
                vec![],
            ),
        );
        let ranges: Vec<_> = response
            .responses
            .iter()
            .filter_map(|response| match response {
                Response::Range(found) => Some((
                    found.kvs.iter().map(row).collect::<Vec<_>>().join(" "),
                    found.revision.0,
                    found.count,
                )),
                _ => None,
            })
            .collect();
        let expected = [
            ("old=0", 2, 1),
            ("new=1 old=0", 3, 2),
            ("nested=taken new=1", 3, 2),
            ("old=0", 3, 1),
            ("nested=taken", 3, 2),
        ];
        assert_eq!(
            ranges,
            expected.map(|(rows, revision, count)| (rows.to_string(), revision, count))
        );
        assert_eq!(
            fixture.history(3),
            ["3:put new=1", "3:del old=<0", "3:put nested=taken"]
        );
    });
}

#[test]
fn line_10_revisions_count_what_changed() {
    on_each_engine(|fixture| {
        assert_eq!(fixture.put("a", "1"), 2);
        assert_eq!(fixture.delete("none"), 2);
        fixture.apply(grant(5, 10)).unwrap();
        fixture.apply(compact(1)).unwrap();
        assert_eq!(
            run_txn(fixture, txn(vec![], vec![operation::Op::Range(all())], vec![])).revision,
            Revision(2)
        );
        let two = vec![
            operation::Op::Put(a_put("b", "1")),
            operation::Op::Put(a_put("c", "1")),
        ];
        assert_eq!(run_txn(fixture, txn(vec![], two, vec![])).revision, Revision(3));
        assert_eq!(fixture.store.head().revision, Revision(3));
    });
}

#[test]
fn a_key_changed_twice_in_one_revision() {
    on_each_engine(|fixture| {
        fixture.put("k", "before");
        let ops = vec![
            operation::Op::Put(a_put("k", "first")),
            operation::Op::DeleteRange(a_delete("k", "")),
        ];
        run_txn(fixture, txn(vec![], ops, vec![]));
        let told = ["3:put k=first<before", "3:del k=<before"];
        assert_eq!(fixture.history(3), told);
        assert_eq!(fixture.get("k", 3), None);
        fixture.apply(compact(3)).unwrap();
        while fixture.applier.compact_step().unwrap() {}
        fixture.put("other", "1");
        assert_eq!(fixture.history(3), ["3:put k=first", "3:del k=", "4:put other=1"]);
    });
}

#[test]
fn line_12_ignore_value_and_ignore_lease() {
    on_each_engine(|fixture| {
        let ignoring_value = Op::Put(Put {
            ignore_value: true,
            ..a_put("k", "")
        });
        assert_eq!(
            fixture.apply(ignoring_value.clone()).unwrap_err(),
            CommandError::KeyNotFound
        );
        fixture.apply(grant(5, 10)).unwrap();
        fixture.apply(put_with_lease("k", "1", 5)).unwrap();
        fixture
            .apply(Op::Put(Put {
                ignore_lease: true,
                ..a_put("k", "2")
            }))
            .unwrap();
        let kv = fixture.store.reader().get(b"k", Revision(0)).unwrap().unwrap();
        assert_eq!((row(&kv), kv.lease.0, kv.version), ("k=2".into(), 5, 2));
        fixture.apply(ignoring_value).unwrap();
        let kv = fixture.store.reader().get(b"k", Revision(0)).unwrap().unwrap();
        assert_eq!((row(&kv), kv.lease.0, kv.version), ("k=2".into(), 0, 3));
    });
}

#[test]
fn line_14_space_alarm() {
    on_each_engine(|fixture| {
        fixture.put("k", "1");
        let alarm = |active| {
            Op::Alarm(Alarm {
                kind: Kind::Nospace.into(),
                member_id: 9,
                active,
            })
        };
        fixture.apply(alarm(true)).unwrap();
        assert_eq!(fixture.store.alarms(), [(9, Kind::Nospace)]);
        let nested = txn(vec![], vec![], vec![operation::Op::Put(a_put("k", "2"))]);
        let with_put = Op::Txn(txn(vec![], vec![operation::Op::Txn(nested)], vec![]));
        for refused in [put("k", "2"), grant(1, 1), with_put] {
            assert_eq!(fixture.apply(refused).unwrap_err(), CommandError::NoSpace);
        }
        let without = Op::Txn(txn(
            vec![],
            vec![operation::Op::DeleteRange(a_delete("k", ""))],
            vec![],
        ));
        for allowed in [without, compact(2), alarm(false), put("k", "3")] {
            fixture.apply(allowed).unwrap();
        }
        assert!(fixture.store.alarms().is_empty());
    });
}

/// As etcd does it: whatever changes the keyspace is refused, reads go on.
#[test]
fn a_corrupt_cluster_changes_nothing_until_the_alarm_is_disarmed() {
    on_each_engine(|fixture| {
        fixture.put("k", "1");
        fixture.apply(grant(7, 60)).unwrap();
        let alarm = |member_id, active| {
            Op::Alarm(Alarm {
                kind: Kind::Corrupt.into(),
                member_id,
                active,
            })
        };
        fixture.apply(alarm(9, true)).unwrap();
        fixture.apply(alarm(8, true)).unwrap();
        assert_eq!(fixture.store.alarms(), [(8, Kind::Corrupt), (9, Kind::Corrupt)]);
        let before = fixture.store.state_hash().1;
        let reading = Op::Txn(txn(vec![], vec![operation::Op::Range(Range::default())], vec![]));
        for refused in [
            put("k", "2"),
            delete("k"),
            reading,
            compact(2),
            grant(1, 1),
            revoke(7),
        ] {
            assert_eq!(fixture.apply(refused).unwrap_err(), CommandError::Corrupt);
        }
        assert_eq!(fixture.store.state_hash().1, before);
        assert_eq!(fixture.get("k", 0).as_deref(), Some("1"));
        let checkpoint = LeaseCheckpoint {
            leases: vec![Remaining {
                id: 7,
                remaining_ttl_s: 5,
            }],
        };
        fixture.apply(Op::LeaseCheckpoint(checkpoint)).unwrap();
        // Of two alarms one is left.
        fixture.apply(alarm(9, false)).unwrap();
        assert_eq!(fixture.apply(put("k", "2")).unwrap_err(), CommandError::Corrupt);
        fixture.apply(alarm(8, false)).unwrap();
        for allowed in [put("k", "2"), compact(2), revoke(7)] {
            fixture.apply(allowed).unwrap();
        }
    });
}

#[test]
fn a_refused_txn_leaves_no_trace() {
    on_each_engine(|fixture| {
        fixture.put("k", "1");
        let ops = vec![
            operation::Op::Put(a_put("k", "2")),
            operation::Op::Put(a_put("new", "1")),
            operation::Op::DeleteRange(a_delete("k", "")),
            operation::Op::Put(Put {
                lease: 99,
                ..a_put("x", "1")
            }),
        ];
        let before = fixture.store.state_hash().1;
        assert_eq!(
            fixture.apply(Op::Txn(txn(vec![], ops, vec![]))).unwrap_err(),
            CommandError::LeaseNotFound
        );
        assert_eq!(fixture.store.state_hash().1, before);
        assert_eq!(fixture.list(all()), ["k=1"]);
        assert_eq!(fixture.history(2), ["2:put k=1"]);
        assert_eq!(fixture.store.sizes().live_keys, 1);
        assert_eq!(fixture.put("k", "3"), 3);
    });
}

#[test]
fn commands_of_another_term_are_refused_and_unknown_ones_stop_the_member() {
    on_each_engine(|fixture| {
        let mut apply = |command: Command| {
            fixture.index += 1;
            let batch = CommandBatch {
                commands: vec![command],
                ..CommandBatch::default()
            };
            let position = LogPosition {
                term: 4,
                index: fixture.index,
            };
            fixture.applier.apply(&[Entry {
                position,
                body: EntryBody::Commands(batch.encode_to_vec().into()),
            }])
        };
        let fenced = |fence_term| Command {
            fence_term,
            op: Some(put("k", "1")),
            ..Command::default()
        };
        assert_eq!(apply(fenced(3)).unwrap()[0][0], Err(CommandError::FencedOut));
        assert!(apply(fenced(4)).unwrap()[0][0].is_ok());
        let newer = Command {
            since_version: 9 << 16,
            op: Some(put("k", "1")),
            ..Command::default()
        };
        assert!(matches!(
            apply(newer),
            Err(StoreError::UnknownCommand { index: 3 })
        ));
        assert!(matches!(
            apply(Command::default()),
            Err(StoreError::UnknownCommand { index: 4 })
        ));
    });
}

/// The numbers are what etcd 3.4.23 answered to the same commands.
#[test]
fn line_13_hash_kv_is_etcds() {
    on_each_engine(|fixture| {
        for (key, value) in [("a", "1"), ("b", ""), ("a", "2"), ("c", "3")] {
            fixture.put(key, value);
        }
        fixture.delete("b");
        fixture.delete("c");
        fixture.put("a", "4");
        let hashes = |fixture: &Fixture, revisions: &[i64]| {
            let reader = fixture.store.reader();
            let hash = |revision: &i64| reader.hash_kv(Revision(*revision)).unwrap().0;
            revisions.iter().map(hash).collect::<Vec<_>>()
        };
        let whole = [2525496846, 2496657716, 3499787434, 2139227883];
        assert_eq!(hashes(fixture, &[0, 3, 5, 6]), whole);
        fixture.apply(compact(5)).unwrap();
        assert_eq!(hashes(fixture, &[0, 6, 7]), [281712951, 3496448271, 858056856]);
        while fixture.applier.compact_step().unwrap() {}
        fixture.apply(grant(1, 1)).unwrap();
        assert_eq!(hashes(fixture, &[0, 6, 7]), [281712951, 3496448271, 858056856]);
        fixture.apply(compact(6)).unwrap();
        assert_eq!(hashes(fixture, &[0, 7]), [1160618568, 1375629289]);
        fixture.delete("a");
        fixture.apply(compact(9)).unwrap();
        assert_eq!(hashes(fixture, &[0]), [1084519789]);
    });
}

#[test]
fn index_terms_follow_the_newest_version() {
    on_each_engine(|fixture| {
        let term = |value: &str| IndexTerm {
            field: bytes("node"),
            value: bytes(value),
        };
        let placed = |key: &str, node: &str| {
            Op::Put(Put {
                terms: vec![term(node)],
                ..a_put(key, "v")
            })
        };
        for (key, node) in [
            ("/pods/a", "n1"),
            ("/pods/b", "n2"),
            ("/pods/c", "n1"),
            ("/x/a", "n1"),
            ("/pods/a", "n2"),
        ] {
            fixture.apply(placed(key, node)).unwrap();
        }
        let found = |fixture: &Fixture, node: &str| {
            let term = barque_store::IndexTerm {
                field: bytes("node"),
                value: bytes(node),
            };
            let keys = fixture.store.reader().keys_with_term(&term, b"/pods/").unwrap();
            keys.iter().map(|key| text(key)).collect::<Vec<_>>()
        };
        assert_eq!(found(fixture, "n1"), ["/pods/c"]);
        assert_eq!(found(fixture, "n2"), ["/pods/a", "/pods/b"]);
        assert!(found(fixture, "n").is_empty());
        fixture.delete("/pods/b");
        assert_eq!(found(fixture, "n2"), ["/pods/a"]);
        let reader = fixture.store.reader();
        let (history, _) = reader
            .history(&barque_store::KeyRange::single(bytes("/pods/a")), Revision(6), 1)
            .unwrap();
        let event = &history[0].events[0];
        assert_eq!(text(&event.kv.terms[0].value), "n2");
        assert_eq!(text(&previous(&reader, event).unwrap().terms[0].value), "n1");
    });
}

/// A member that did not propose it must not hold what a txn reads: that may be many times the database.
#[test]
fn what_nobody_waits_for_is_not_read() {
    on_each_engine(|fixture| {
        fixture.put("k", "1");
        let reads = txn(
            vec![],
            vec![operation::Op::Put(a_put("k", "2")), operation::Op::Range(all())],
            vec![],
        );
        for (awaited, rows) in [(true, 1), (false, 0)] {
            fixture.index += 1;
            let entry = entry(1, fixture.index, vec![Op::Txn(reads.clone())]);
            let outcomes = fixture.applier.apply_for(&[entry], |_| awaited).unwrap();
            let Ok(Response::Txn(response)) = &outcomes[0][0] else {
                panic!("{outcomes:?}");
            };
            let Response::Range(read) = &response.responses[1] else {
                panic!("{response:?}");
            };
            assert_eq!((read.kvs.len(), read.revision), (rows, response.revision));
        }
        assert_eq!(fixture.get("k", 0).as_deref(), Some("2"));
    });
}
