//! The Raft log on real system calls, cut again and again.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use barque_chaos::cutfs::{CutFs, Step};
use barque_wal::{Recovered, Wal, WalConfig, WalEntry, files::RealFiles};
use rand::{Rng, SeedableRng, rngs::StdRng};

use crate::seed;

const CUTS: u32 = 120;

fn payload(term: u64, index: u64) -> Vec<u8> {
    let len = (term * 131 + index * 37) % 1200;
    format!("{term}:{index};")
        .into_bytes()
        .into_iter()
        .cycle()
        .take(len as usize + 8)
        .collect()
}

fn open(fs: &CutFs) -> (Wal, Recovered) {
    let config = WalConfig {
        segment_bytes: 64 << 10,
        cache_bytes: 8 << 10,
    };
    Wal::open(&fs.dir().join("wal"), Arc::new(RealFiles), config).unwrap()
}

/// The terms of the entries, by index from 1.
struct History {
    terms: Vec<u64>,
    purged: u64,
}

impl History {
    /// What was acknowledged is there, and everything that is there was written.
    fn check(&mut self, wal: &Wal, known: &Recovered, acknowledged: u64, purged: u64) {
        let last = known.last.map_or(0, |(_, index)| index);
        assert!(
            last >= acknowledged,
            "{acknowledged} was acknowledged, but the log ends at {last}"
        );
        let found = known.purged.map_or(0, |(_, index)| index);
        assert!(
            (purged..=self.purged).contains(&found),
            "purged {found}, not from {purged} to {}",
            self.purged
        );
        for entry in wal.read(found + 1..last + 1, usize::MAX).unwrap() {
            assert_eq!(
                entry.term,
                self.terms[entry.index as usize - 1],
                "the term of {}",
                entry.index
            );
            assert_eq!(
                entry.payload,
                payload(entry.term, entry.index),
                "the payload of {}",
                entry.index
            );
        }
        self.terms.truncate(last as usize);
        self.purged = found;
    }
}

/// Appends and purges until the power is gone. Returns what was acknowledged: the last entry and the last purge.
fn work(wal: &Wal, history: &mut History, term: u64, dice: &mut StdRng) -> (u64, u64) {
    let (durable, purged) = (
        Arc::new(AtomicU64::new(0)),
        Arc::new(AtomicU64::new(history.purged)),
    );
    loop {
        let first = history.terms.len() as u64 + 1;
        let count = dice.random_range(1..6);
        let entries: Vec<_> = (first..first + count)
            .map(|index| WalEntry {
                term,
                index,
                kind: 0,
                payload: payload(term, index).into(),
            })
            .collect();
        history.terms.extend(entries.iter().map(|_| term));
        let (sender, outcome) = std::sync::mpsc::channel();
        let reached = durable.clone();
        let done = move |result: std::io::Result<()>| {
            if result.is_ok() {
                reached.store(first + count - 1, Ordering::SeqCst);
            }
            // Most are not waited for.
            let _ = sender.send(());
        };
        let appended = wal.append(entries, Box::new(done));
        let last = first + count - 1;
        if appended.is_ok() && last > history.purged + 150 {
            let to = last - 100;
            history.purged = to;
            let reached = purged.clone();
            let done = move |result: std::io::Result<()>| {
                if result.is_ok() {
                    reached.store(to, Ordering::SeqCst);
                }
            };
            // An error here is met again by the next append.
            let _ = wal.purge(history.terms[to as usize - 1], to, Box::new(done));
        }
        let lost = appended.is_err() || (dice.random_ratio(1, 4) && outcome.recv().is_err());
        if lost {
            wal.close();
            return (durable.load(Ordering::SeqCst), purged.load(Ordering::SeqCst));
        }
    }
}

#[test]
fn a_log_cut_many_times_keeps_what_it_acknowledged() {
    let seed = seed();
    let dir = tempfile::tempdir().unwrap();
    let fs = CutFs::mount(dir.path(), seed).unwrap();
    let mut dice = StdRng::seed_from_u64(seed);
    let mut history = History {
        terms: Vec::new(),
        purged: 0,
    };
    let (mut wal, _) = open(&fs);
    let mut total = 0;
    for round in 1..=CUTS {
        match dice.random_range(0..3) {
            0 => fs.cut_at(Step::Fsync, "", dice.random_range(1..60)),
            1 => fs.cut_at(Step::Change, "", dice.random_range(1..120)),
            _ => fs.cut_at(Step::Fsync, "", dice.random_range(1..4)),
        }
        let (acknowledged, purged) = work(&wal, &mut history, round.into(), &mut dice);
        assert!(
            fs.wait_cut(Duration::from_secs(10)),
            "the log failed without a cut"
        );
        drop(wal);
        fs.restore();
        let (again, known) = open(&fs);
        history.check(&again, &known, acknowledged, purged);
        total += known.last.map_or(0, |(_, index)| index) - history.purged;
        wal = again;
    }
    assert_eq!(fs.stats().cuts, u64::from(CUTS));
    println!(
        "{CUTS} cuts, {total} entries checked, {} appended, {:?}",
        history.terms.len(),
        fs.stats()
    );
}
