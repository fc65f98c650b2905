//! A log without threads: nothing is durable before the driver works, everything is afterwards.

use std::{
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Wake, Waker},
};

use barque_wal::{Wal, WalConfig, files::CutFiles};

use crate::{done, entry};

struct Flag(AtomicBool);

impl Wake for Flag {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::SeqCst);
    }
}

#[test]
fn the_driver_decides_when_the_writer_works() {
    let files = CutFiles::new(1);
    let config = WalConfig {
        segment_bytes: 16 << 10,
        cache_bytes: 1 << 20,
    };
    let open = || Wal::open_driven(Path::new("/wal"), Arc::new(files.clone()), config.clone()).unwrap();
    let (wal, _, mut driver) = open();
    let flag = Arc::new(Flag(AtomicBool::new(false)));
    let waker = Waker::from(flag.clone());
    assert!(!driver.poll_work(&waker));
    // Enough for several segments, which have no thread to prepare them either.
    let mut outcomes = Vec::new();
    for index in 1..=30 {
        let (completion, outcome) = done();
        wal.append(vec![entry(1, index, vec![7; 2000])], completion)
            .unwrap();
        outcomes.push(outcome);
    }
    assert!(
        flag.0.load(Ordering::SeqCst),
        "the waker is told of the first append"
    );
    assert!(
        outcomes[0].try_recv().is_err(),
        "nothing is complete before the driver works"
    );
    while driver.poll_work(&waker) {
        assert!(driver.work());
    }
    outcomes
        .iter()
        .for_each(|outcome| outcome.try_recv().unwrap().unwrap());
    files.cut();
    drop((wal, driver));
    files.restore();
    let (wal, recovered, _driver) = open();
    assert_eq!(recovered.last, Some((1, 30)));
    assert_eq!(wal.read(1..31, usize::MAX).unwrap().len(), 30);
}

#[test]
fn a_halt_forgets_nothing_that_was_written() {
    let files = CutFiles::new(2);
    let open = || Wal::open_driven(Path::new("/wal"), Arc::new(files.clone()), WalConfig::default());
    let (wal, _, mut driver) = open().unwrap();
    let (completion, outcome) = done();
    wal.append(vec![entry(1, 1, b"kept".to_vec())], completion)
        .unwrap();
    assert!(driver.work());
    outcome.try_recv().unwrap().unwrap();
    files.halt();
    let (completion, outcome) = done();
    wal.append(vec![entry(1, 2, b"late".to_vec())], completion)
        .unwrap();
    assert!(!driver.work(), "a log whose files are gone ends");
    assert!(outcome.try_recv().unwrap().is_err());
    files.restore();
    let (_, recovered, _) = open().unwrap();
    assert_eq!(recovered.last, Some((1, 1)));
}
