//! Random histories with the power cut, or the process killed, at any operation of the files: what was completed is
//! there, nothing that was durably removed comes back, and the log goes on.

use std::{
    io,
    path::Path,
    sync::{Arc, Mutex},
};

use barque_wal::{Completion, Recovered, Wal, files::CutFiles};
use proptest::prelude::*;

use crate::{
    DIR, entry,
    kills::Killable,
    model::{Model, Step},
    tiny,
};

#[derive(Debug, Clone)]
enum Action {
    Append {
        count: u64,
        bytes: usize,
    },
    Vote,
    Bound,
    /// So many entries from the end.
    Truncate(u64),
    /// So many entries from the front, or beyond the end by the second.
    Purge(u64, Option<u64>),
    Committed,
    /// Waits until everything is complete.
    Wait,
    NewTerm,
    Reopen,
}

fn action() -> impl Strategy<Value = Action> {
    prop_oneof![
        8 => (1u64..6, 0usize..1500).prop_map(|(count, bytes)| Action::Append { count, bytes }),
        2 => (1u64..3, 4000usize..8000).prop_map(|(count, bytes)| Action::Append { count, bytes }),
        2 => Just(Action::Vote),
        1 => Just(Action::Bound),
        2 => (0u64..8).prop_map(Action::Truncate),
        3 => (0u64..30).prop_map(|count| Action::Purge(count, None)),
        1 => (1u64..20).prop_map(|beyond| Action::Purge(0, Some(beyond))),
        3 => Just(Action::Committed),
        4 => Just(Action::Wait),
        1 => Just(Action::NewTerm),
        1 => Just(Action::Reopen),
    ]
}

/// How a life ends.
#[derive(Debug, Clone, Copy, PartialEq)]
enum End {
    Close,
    /// The power is cut in the so manieth operation, or after the last.
    Cut(u64),
    /// The process is killed in it: the next life sees all that was written, synced or not.
    Kill(u64),
}

/// One life of the log, from opening to its end.
fn life() -> impl Strategy<Value = (Vec<Action>, End)> {
    let end = prop_oneof![
        1 => Just(End::Close),
        3 => (1u64..220).prop_map(End::Cut),
        2 => (1u64..220).prop_map(End::Kill),
    ];
    (prop::collection::vec(action(), 1..60), end)
}

struct History {
    /// What was found at the last opening.
    base: Model,
    now: Model,
    /// Steps since; each with whether its completion was called.
    steps: Vec<Step>,
    acknowledged: Arc<Mutex<usize>>,
    committed: Vec<(usize, (u64, u64))>,
    term: u64,
    serial: u64,
}

impl History {
    fn new(base: Model) -> History {
        let term = base.last().map_or(1, |(term, _)| term);
        History {
            now: base.clone(),
            base,
            steps: Vec::new(),
            acknowledged: Arc::default(),
            committed: Vec::new(),
            term,
            serial: 0,
        }
    }

    /// Records the steps of one call; the completion counts them all.
    fn issue(&mut self, steps: Vec<Step>) -> Completion {
        for step in steps {
            self.now.apply(&step);
            self.steps.push(step);
        }
        let (count, acknowledged) = (self.steps.len(), self.acknowledged.clone());
        Box::new(move |outcome| {
            if outcome.is_ok() {
                let mut before = acknowledged.lock().unwrap();
                assert!(*before <= count, "completions come in order");
                *before = count;
            }
        })
    }

    /// The log's state must be one of those after the last acknowledged step.
    fn check(&self, found: &Model, committed: Option<(u64, u64)>) {
        let acknowledged = *self.acknowledged.lock().unwrap();
        let mut state = self.base.clone();
        let mut allowed = acknowledged == 0 && state == *found;
        for (number, step) in self.steps.iter().enumerate() {
            state.apply(step);
            allowed |= number + 1 >= acknowledged && state == *found;
        }
        assert!(
            allowed,
            "after {acknowledged} acknowledged of {:#?}\nfrom {:#?}\nfound {found:#?}",
            self.steps, self.base
        );
        self.check_committed(found, committed, acknowledged);
    }

    fn check_committed(&self, found: &Model, committed: Option<(u64, u64)>, acknowledged: usize) {
        let Some(committed) = committed else { return };
        assert!(
            found.last().is_some_and(|last| committed.1 <= last.1),
            "committed {committed:?} beyond the log"
        );
        let saved = self.committed.iter().any(|(_, saved)| *saved == committed);
        assert!(saved, "committed {committed:?} was never saved");
        // What was saved before a step that is acknowledged was written with it.
        let least = self
            .committed
            .iter()
            .filter(|(before, _)| *before < acknowledged)
            .map(|(_, id)| id.1)
            .max();
        assert!(
            least.is_none_or(|least| committed.1 >= least),
            "committed {committed:?} went back from {least:?}"
        );
    }
}

fn act(wal: &Wal, history: &mut History, action: &Action) -> io::Result<()> {
    match action {
        Action::Append { count, bytes } => {
            let first = history.now.next_index();
            let entries: Vec<_> = (first..first + count)
                .map(|index| {
                    history.serial += 1;
                    let mut payload = format!("{}/{}/{};", history.term, index, history.serial).into_bytes();
                    payload.resize(payload.len().max(*bytes), history.serial as u8);
                    entry(history.term, index, payload)
                })
                .collect();
            let done = history.issue(entries.iter().cloned().map(Step::Entry).collect());
            wal.append(entries, done)
        }
        Action::Vote => {
            history.serial += 1;
            let vote = format!("vote {} {}", history.term, history.serial).into_bytes();
            let done = history.issue(vec![Step::Vote(vote.clone())]);
            wal.save_vote(vote.into(), done)
        }
        Action::Bound => {
            history.serial += 1;
            let done = history.issue(vec![Step::Bound(history.serial)]);
            wal.save_bound(history.serial, done)
        }
        Action::Truncate(count) => {
            let committed = history.committed.iter().map(|(_, id)| id.1 + 1).max();
            let least = history.now.first_index().max(committed.unwrap_or(0));
            let end = history.now.next_index().saturating_sub(*count).max(least);
            let last = end.checked_sub(1);
            history.term += 1;
            let done = history.issue(vec![Step::Truncate(last)]);
            wal.truncate_after(last, done)
        }
        Action::Purge(count, beyond) => {
            let (first, end) = (history.now.first_index(), history.now.next_index());
            let purged = beyond.map_or((first + count).min(end), |beyond| end + beyond);
            let Some(index) = purged.checked_sub(1) else {
                return Ok(());
            };
            let kept = history.now.entries.iter().find(|entry| entry.index == index);
            let term =
                kept.map(|entry| entry.term)
                    .or(history.now.purged.filter(|p| p.1 == index).map(|p| p.0));
            let term = term.unwrap_or(history.term);
            let done = history.issue(vec![Step::Purge(term, index)]);
            wal.purge(term, index, done)
        }
        Action::Committed => {
            let Some(last) = history.now.last() else {
                return Ok(());
            };
            history.committed.push((history.steps.len(), last));
            wal.save_committed(last.0, last.1)
        }
        Action::Wait => {
            let (done, outcome) = crate::done();
            wal.save_bound(
                history.serial,
                chain(history.issue(vec![Step::Bound(history.serial)]), done),
            )?;
            outcome.recv().expect("a completion is called once")
        }
        Action::NewTerm => {
            history.term += 1;
            Ok(())
        }
        Action::Reopen => Ok(()),
    }
}

fn chain(first: Completion, second: Completion) -> Completion {
    Box::new(move |outcome| {
        let again = outcome
            .as_ref()
            .map(|_| ())
            .map_err(|error| io::Error::new(error.kind(), error.to_string()));
        first(outcome);
        second(again);
    })
}

fn open(killable: &Killable) -> io::Result<(Wal, Recovered)> {
    Wal::open(Path::new(DIR), Arc::new(killable.seam()), tiny())
}

/// Opens after the end of a life, which may come again while opening.
fn reopen(killable: &Killable, end: End) -> (Wal, Recovered) {
    let files = &killable.files;
    killable.restore();
    match end {
        End::Close => return open(killable).expect("a closed log opens"),
        End::Cut(count) => files.cut_after(count % 17 + 1),
        End::Kill(count) => killable.kill_after(count % 17 + 1),
    }
    match open(killable) {
        Ok(opened) if !files.is_cut() => {
            killable.restore();
            return opened;
        }
        Ok((wal, _)) => drop(wal),
        Err(error) => assert!(files.is_cut(), "{error}"),
    }
    killable.restore();
    open(killable).expect("a log opens after a cut or a kill")
}

/// Until the first that the end of the life does not let through; whether all went through.
fn act_all(wal: &Wal, history: &mut History, actions: &[Action], files: &CutFiles) -> bool {
    for action in actions {
        if matches!(action, Action::Reopen) && !files.is_cut() {
            return true;
        }
        if let Err(error) = act(wal, history, action) {
            assert!(files.is_cut(), "{error}");
            return false;
        }
    }
    true
}

fn run(seed: u64, lives: Vec<(Vec<Action>, End)>) {
    let killable = Killable::new(CutFiles::new(seed));
    let files = &killable.files;
    let (mut wal, recovered) = open(&killable).unwrap();
    let mut history = History::new(Model::of(&wal, &recovered));
    for (actions, end) in lives {
        match end {
            End::Close => {}
            End::Cut(count) => files.cut_after(count),
            End::Kill(count) => killable.kill_after(count),
        }
        let graceful = act_all(&wal, &mut history, &actions, files);
        match end {
            End::Close => {
                assert!(graceful);
                let state = wal.state();
                assert_eq!(Model::of(&wal, &state), history.now, "what is queued is readable");
                wal.close();
            }
            End::Cut(_) => files.cut(),
            End::Kill(_) => files.halt(),
        }
        drop(wal);
        if end == End::Close {
            assert_eq!(
                *history.acknowledged.lock().unwrap(),
                history.steps.len(),
                "a close completes everything"
            );
        }
        let (opened, found) = reopen(&killable, end);
        let model = Model::of(&opened, &found);
        history.check(&model, found.committed);
        let (term, serial) = (history.term, history.serial);
        history = History::new(model);
        history
            .committed
            .extend(found.committed.map(|committed| (0, committed)));
        (history.term, history.serial) = (term.max(history.term) + 1, serial);
        wal = opened;
    }
}

proptest! {
    #![proptest_config(ProptestConfig::default())]

    #[test]
    fn nothing_acknowledged_is_lost(seed in any::<u64>(), lives in prop::collection::vec(life(), 1..8)) {
        run(seed, lives);
    }
}

const ROUNDS: u64 = 16;

/// One fixed history, cut at every single operation in turn.
#[test]
fn every_operation_is_a_cut_point() {
    let mut actions = vec![Action::Vote];
    for round in 0..ROUNDS {
        actions.push(Action::Append { count: 3, bytes: 900 });
        actions.push(Action::Committed);
        actions.push(Action::Wait);
        actions.push(Action::Append { count: 2, bytes: 30 });
        if round % 3 == 1 {
            actions.extend([
                Action::Truncate(2),
                Action::Append { count: 4, bytes: 600 },
                Action::Purge(9, None),
            ]);
        }
        actions.push(Action::Wait);
    }
    let killable = Killable::new(CutFiles::new(0));
    let (wal, _) = open(&killable).unwrap();
    let mut history = History::new(Model::default());
    actions
        .iter()
        .for_each(|action| act(&wal, &mut history, action).unwrap());
    wal.close();
    let operations = killable.files.operations();
    // Every wait is at least one write and one fsync; how much more depends on what shares a group.
    assert!(operations >= 2 * 2 * ROUNDS, "{operations} operations");
    for cut in 1..=operations {
        let again = |end| (vec![Action::Append { count: 2, bytes: 100 }, Action::Wait], end);
        for seed in 0..4 {
            let seed = seed * 1000 + cut;
            run(seed, vec![(actions.clone(), End::Cut(cut)), again(End::Close)]);
        }
        // What the killed one left may be durable by chance: the power goes right after the next opening.
        run(
            cut,
            vec![
                (actions.clone(), End::Kill(cut)),
                (Vec::new(), End::Cut(1)),
                again(End::Close),
            ],
        );
    }
}
