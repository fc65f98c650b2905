//! The log against its promises: a model and power cuts, faults of the files, and real files with many callers.

mod damage;
mod driven;
mod faults;
mod kills;
mod marks;
mod model;
mod power_cuts;
mod real_files;
mod said;
mod seam;

use std::{
    io,
    path::Path,
    sync::{Arc, mpsc},
};

use barque_wal::{Completion, Recovered, Wal, WalConfig, WalEntry, files::CutFiles};

const DIR: &str = "/data/wal";

fn tiny() -> WalConfig {
    WalConfig {
        segment_bytes: 16 << 10,
        cache_bytes: 2 << 10,
    }
}

fn open(files: &CutFiles) -> io::Result<(Wal, Recovered)> {
    Wal::open(Path::new(DIR), Arc::new(files.clone()), tiny())
}

fn entry(term: u64, index: u64, payload: impl Into<Vec<u8>>) -> WalEntry {
    WalEntry {
        term,
        index,
        kind: (index % 3) as u8,
        payload: payload.into().into(),
    }
}

fn entries(term: u64, indexes: std::ops::RangeInclusive<u64>) -> Vec<WalEntry> {
    indexes
        .map(|index| entry(term, index, format!("{term}/{index}").repeat(20)))
        .collect()
}

/// A completion, and what waits for it.
fn done() -> (Completion, mpsc::Receiver<io::Result<()>>) {
    let (sender, receiver) = mpsc::channel();
    let done = move |outcome| {
        // Nobody listens when the test has what it wants.
        let _ = sender.send(outcome);
    };
    (Box::new(done), receiver)
}

/// Calls and waits for the completion.
fn finish(call: impl FnOnce(Completion) -> io::Result<()>) -> io::Result<()> {
    let (done, outcome) = done();
    call(done)?;
    outcome.recv().expect("a completion is called once")
}

fn indexes(entries: &[WalEntry]) -> Vec<u64> {
    entries.iter().map(|entry| entry.index).collect()
}
