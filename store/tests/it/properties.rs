//! Random commands: every split, engine, crash and copy comes to the same bytes, and to what the model says.

use std::sync::Arc;

use barque_proto::command::{Range, command::Op};
use barque_store::{
    Applier, CommandError, Entry, KeyRange, KeyValue, LeaseId, LogPosition, Outcome, ReadError, Reader,
    Revision, Store,
    kv::{Bounds, Engine, Family, memory::MemoryEngine},
    watch::{Changes, EventKind},
};
use bytes::Bytes;
use proptest::{collection::vec, prelude::*};

use crate::{
    generate::{self, Pause},
    model::Model,
    support::{RING_BYTES, config, entry, previous},
};

type Log = Vec<(Vec<Op>, Pause)>;

fn entries(log: &Log) -> Vec<(Entry, Pause)> {
    let entries = log.iter().enumerate();
    entries
        .map(|(at, (ops, pause))| (entry(1, at as u64 + 1, ops.clone()), *pause))
        .collect()
}

/// Applies in the batches that the pauses cut, doing what they say in between.
fn run(applier: &mut Applier, entries: &[(Entry, Pause)]) -> Vec<Outcome> {
    let mut outcomes = Vec::new();
    let mut batch = Vec::new();
    for (at, (entry, pause)) in entries.iter().enumerate() {
        batch.push(entry.clone());
        if pause.cut || at + 1 == entries.len() {
            outcomes.extend(applier.apply(&batch).unwrap().into_iter().flatten());
            batch.clear();
            if pause.compact_step {
                applier.compact_step().unwrap();
            }
            if pause.moved_rows > 0 {
                applier.move_some(pause.moved_rows).unwrap();
            }
            if pause.flush {
                applier.flush().unwrap();
            }
        }
    }
    outcomes
}

/// Goes on from what is applied, and checks the outcomes against those of the run that was not disturbed.
fn apply_until(
    applier: &mut Applier,
    entries: &[(Entry, Pause)],
    until: usize,
    expected: &[Outcome],
    log: &Log,
) {
    let from = applier.applied().map_or(0, |at| at.index as usize);
    if until <= from {
        return;
    }
    let outcomes = run(applier, &entries[from..until]);
    let before: usize = log[..from].iter().map(|(ops, _)| ops.len()).sum();
    assert_eq!(outcomes, expected[before..before + outcomes.len()]);
}

/// Brings everything to where it ends up physically.
fn compact_fully(applier: &mut Applier) {
    while applier.compact_step().unwrap() {}
    while applier.move_some(2).unwrap() {}
}

/// Every row of every family.
fn dump(engine: &dyn Engine) -> Vec<(Family, Bytes, Bytes)> {
    let view = engine.view();
    let mut rows = Vec::new();
    for family in Family::ALL {
        let mut cursor = view.cursor(family, Bounds::ALL).unwrap();
        while let Some((key, value)) = cursor.row() {
            rows.push((family, Bytes::copy_from_slice(key), Bytes::copy_from_slice(value)));
            cursor.advance().unwrap();
        }
    }
    rows
}

fn memory(move_at_once: usize) -> (Arc<MemoryEngine>, Store, Applier) {
    let engine = Arc::new(MemoryEngine::new());
    let (store, applier) = open(&engine, move_at_once);
    (engine, store, applier)
}

fn open(engine: &Arc<MemoryEngine>, move_at_once: usize) -> (Store, Applier) {
    let (store, mut applier) = Store::open_with(Arc::clone(engine) as Arc<dyn Engine>, RING_BYTES).unwrap();
    applier.move_at_once(move_at_once);
    (store, applier)
}

/// Of one event: its revision, its key and what was put there, and the version before.
type Told = (i64, (Bytes, Option<KeyValue>), Option<KeyValue>);

fn tell(reader: &Reader, history: &[Arc<Changes>]) -> Vec<Told> {
    let events = history
        .iter()
        .flat_map(|changes| changes.events.iter().map(|event| (changes.revision, event)));
    events
        .map(|(revision, event)| {
            let put = (event.kind == EventKind::Put).then(|| event.kv.clone());
            (revision.0, (event.kv.key.clone(), put), previous(reader, event))
        })
        .collect()
}

fn same_error(read: ReadError, expected: &CommandError) -> bool {
    match read {
        ReadError::Compacted { compact_revision } => {
            *expected == CommandError::Compacted { compact_revision }
        }
        ReadError::FutureRevision => *expected == CommandError::FutureRevision,
        ReadError::Store(error) => panic!("{error}"),
    }
}

/// Everything that can be read agrees with the model.
fn check_reads(store: &Store, model: &Model, queries: &[Range]) {
    let reader = store.reader();
    assert_eq!(
        (reader.head().revision.0, reader.head().compact_revision.0),
        (model.revision, model.compact)
    );
    let everything = KeyRange {
        start: Bytes::new(),
        end: None,
    };
    for query in queries {
        match (reader.range(query), model.range(query)) {
            (Ok(found), Ok(expected)) => assert_eq!(found, expected, "{query:?}"),
            (Err(error), Err(expected)) => assert!(same_error(error, &expected), "{query:?}"),
            (found, expected) => panic!("{query:?}: {found:?} instead of {expected:?}"),
        }
    }
    for revision in model.compact.max(1)..=model.revision {
        let content = model.at(revision);
        let mut seen = Vec::new();
        let mut visit = |row: barque_store::ScanRow<'_>| {
            seen.push((Bytes::copy_from_slice(row.key), row.mod_revision));
            std::ops::ControlFlow::Continue(())
        };
        reader.scan(&everything, Revision(revision), &mut visit).unwrap();
        let expected: Vec<_> = content
            .values()
            .map(|kv| (kv.key.clone(), kv.mod_revision))
            .collect();
        assert_eq!(seen, expected, "scan at {revision}");
        assert_eq!(
            reader.count(&everything, Revision(revision)).unwrap(),
            content.len() as i64
        );
        for (key, kv) in content {
            assert_eq!(reader.get(key, Revision(revision)).unwrap().as_ref(), Some(kv));
        }
        let (history, next) = reader
            .history(&everything, Revision(revision), usize::MAX)
            .unwrap();
        assert_eq!(
            tell(&reader, &history),
            model.history(revision),
            "history from {revision}"
        );
        assert_eq!(next.revision.0, model.revision + 1);
        let (hash, _) = reader.hash_kv(Revision(revision)).unwrap();
        assert_eq!(
            hash,
            model.hash_kv(revision),
            "hash at {revision}, compacted {}",
            model.compact
        );
    }
    assert_eq!(store.leases().unwrap(), model.leases());
    for lease in 1..4 {
        assert_eq!(
            reader.lease_keys(LeaseId(lease)).unwrap(),
            model.lease_keys(lease)
        );
    }
    check_index(store, model);
}

fn check_index(store: &Store, model: &Model) {
    for (field, value) in [("node", "n1"), ("node", "n2"), ("app", ""), ("app\0", "x")] {
        let term = barque_store::IndexTerm {
            field: field.into(),
            value: value.into(),
        };
        for prefix in ["", "a"] {
            let found = store.reader().keys_with_term(&term, prefix.as_bytes()).unwrap();
            let with_term = model
                .at(model.revision)
                .values()
                .filter(|kv| kv.terms.contains(&term));
            let expected: Vec<_> = with_term
                .map(|kv| kv.key.clone())
                .filter(|key| key.starts_with(prefix.as_bytes()))
                .collect();
            assert_eq!(found, expected);
        }
    }
}

fn refusals(outcomes: &[Outcome]) -> Vec<Option<String>> {
    let refusal = |outcome: &Outcome| outcome.as_ref().err().map(|error| format!("{error:?}"));
    outcomes.iter().map(refusal).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn every_split_gives_the_same_bytes_and_what_the_model_says(
        log in generate::log(24),
        queries in vec(generate::range(), 0..12),
        move_at_once in generate::move_at_once(),
    ) {
        let mut model = Model::new();
        let expected: Vec<Outcome> = log.iter().flat_map(|(ops, _)| ops).map(|op| model.apply(op)).collect();
        let entries = entries(&log);
        let one_by_one: Vec<_> = entries.iter().map(|(entry, _)| (entry.clone(), Pause { cut: true, ..Pause::default() })).collect();
        let at_once: Vec<_> = entries.iter().map(|(entry, _)| (entry.clone(), Pause::default())).collect();
        let mut bytes = Vec::new();
        for (split, move_at_once) in [(&entries, move_at_once), (&one_by_one, usize::MAX), (&at_once, 0)] {
            let (engine, store, mut applier) = memory(move_at_once);
            prop_assert_eq!(&run(&mut applier, split), &expected);
            check_reads(&store, &model, &queries);
            compact_fully(&mut applier);
            // A new head, so that readers see what compaction has left.
            applier.apply(&[barque_store::Entry {
                position: LogPosition { term: 2, index: 1000 },
                body: barque_store::EntryBody::Blank,
            }]).unwrap();
            check_reads(&store, &model, &queries);
            bytes.push((dump(&*engine), store.state_hash()));
        }
        prop_assert_eq!(&bytes[0], &bytes[1]);
        prop_assert_eq!(&bytes[0], &bytes[2]);

        // Whether anybody waits for outcomes changes neither the state nor what is refused.
        let (engine, store, mut applier) = memory(move_at_once);
        let mut unawaited: Vec<Outcome> = Vec::new();
        for (entry, _) in &entries {
            let outcomes = applier.apply_for(std::slice::from_ref(entry), |_| false).unwrap();
            unawaited.extend(outcomes.into_iter().flatten());
        }
        prop_assert_eq!(refusals(&unawaited), refusals(&expected));
        compact_fully(&mut applier);
        applier.apply(&[barque_store::Entry {
            position: LogPosition { term: 2, index: 1000 },
            body: barque_store::EntryBody::Blank,
        }]).unwrap();
        prop_assert_eq!(&(dump(&*engine), store.state_hash()), &bytes[0]);
    }

    #[test]
    fn a_crash_forgets_what_was_not_flushed_and_replay_brings_it_back(
        log in generate::log(24),
        crashes in vec(1usize..24, 1..4),
        move_at_once in generate::move_at_once(),
    ) {
        let entries = entries(&log);
        let (whole, whole_store, mut applier) = memory(usize::MAX);
        let expected = run(&mut applier, &entries);
        compact_fully(&mut applier);
        let (mut engine, _, mut applier) = memory(move_at_once);
        for crash in crashes {
            apply_until(&mut applier, &entries, crash.min(entries.len()), &expected, &log);
            let flushed = applier.flushed();
            engine = Arc::new(engine.crash());
            applier = open(&engine, move_at_once).1;
            prop_assert_eq!(applier.applied(), flushed);
        }
        apply_until(&mut applier, &entries, entries.len(), &expected, &log);
        compact_fully(&mut applier);
        engine.flush().unwrap();
        let engine = Arc::new(engine.crash());
        let (store, _) = Store::open_with(Arc::clone(&engine) as Arc<dyn Engine>, RING_BYTES).unwrap();
        prop_assert_eq!(dump(&*engine), dump(&*whole));
        prop_assert_eq!(store.state_hash(), whole_store.state_hash());
    }

    #[test]
    fn a_copy_goes_on_like_the_original(
        log in generate::log(16),
        (copied_at, behind) in (0usize..16, 0usize..16),
        move_at_once in generate::move_at_once(),
    ) {
        let entries = entries(&log);
        let copied_at = copied_at.min(entries.len());
        let behind = behind.min(copied_at);
        let (original, store, mut applier) = memory(move_at_once);
        run(&mut applier, &entries[..copied_at]);
        let dir = tempfile::tempdir().unwrap();
        // Before the first entry there is nothing to copy.
        prop_assume!(copied_at > 0);
        let checkpoint = applier.checkpoint(&dir.path().join("copy")).unwrap();
        prop_assert_eq!(checkpoint.applied, applier.applied());
        prop_assert_eq!(checkpoint.applied, applier.flushed());
        let (_, other_store, mut other) = memory(usize::MAX);
        run(&mut other, &entries[..behind]);
        other.install(&dir.path().join("copy")).unwrap();
        prop_assert_eq!(other.applied(), applier.applied());
        prop_assert_eq!(other_store.head().epoch, 1);
        prop_assert_eq!(other_store.state_hash(), store.state_hash());
        let expected = run(&mut applier, &entries[copied_at..]);
        prop_assert_eq!(run(&mut other, &entries[copied_at..]), expected);
        compact_fully(&mut applier);
        compact_fully(&mut other);
        let copy = dir.path().join("later");
        other.checkpoint(&copy).unwrap();
        let later = original.stage(&copy).unwrap();
        prop_assert_eq!(dump(&*later), dump(&*original));
        prop_assert_eq!(store.sizes().live_keys, other_store.sizes().live_keys);
    }
}

proptest! {
    // Databases on disk are slow to open.
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn rocksdb_agrees_with_memory(
        log in generate::log(40),
        queries in vec(generate::range(), 0..12),
        move_at_once in generate::move_at_once(),
    ) {
        let entries = entries(&log);
        let mut model = Model::new();
        let expected: Vec<Outcome> = log.iter().flat_map(|(ops, _)| ops).map(|op| model.apply(op)).collect();
        let dir = tempfile::tempdir().unwrap();
        let half = entries.len() / 2;
        let (store, mut applier) = Store::open(config(&dir.path().join("a"))).unwrap();
        applier.move_at_once(move_at_once);
        let mut outcomes = run(&mut applier, &entries[..half]);
        applier.flush().unwrap();
        drop((store, applier));
        let (store, mut applier) = Store::open(config(&dir.path().join("a"))).unwrap();
        applier.move_at_once(move_at_once);
        outcomes.extend(run(&mut applier, &entries[half..]));
        prop_assert_eq!(outcomes, expected);
        check_reads(&store, &model, &queries);
        let (memory, _, mut in_memory) = memory(usize::MAX);
        run(&mut in_memory, &entries);
        compact_fully(&mut applier);
        compact_fully(&mut in_memory);
        // The copy is the one way to all rows of a database on disk.
        applier.checkpoint(&dir.path().join("copy")).unwrap();
        let home = barque_store::kv::rocks::open(&dir.path().join("b"), 8 << 20).unwrap();
        let staged = home.stage(&dir.path().join("copy")).unwrap();
        prop_assert_eq!(dump(&*staged), dump(&*memory));
    }
}
