//! The mark beside the log: what it costs, and what damage it proves.

use std::{
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
        mpsc,
    },
    task::Waker,
    time::Duration,
};

use barque_wal::{
    Driver, Wal,
    files::{CutFiles, Files, RealFiles},
};

use crate::{
    DIR, done, entries, entry, finish, open,
    seam::{Seam, Step},
    tiny,
};

fn is_mark(path: &Path) -> bool {
    path.file_name()
        .is_some_and(|name| name == "mark" || name == "mark.tmp")
}

/// A log whose syncs of the mark are counted.
fn counted() -> (Wal, Driver, Arc<AtomicU64>) {
    let marks = Arc::new(AtomicU64::new(0));
    let count = marks.clone();
    let files = Seam::new(CutFiles::new(1), move |step, path| {
        if step == Step::Sync && is_mark(path) {
            count.fetch_add(1, Ordering::SeqCst);
        }
    });
    let (wal, _, driver) = Wal::open_driven(Path::new(DIR), Arc::new(files), tiny()).unwrap();
    marks.store(0, Ordering::SeqCst);
    (wal, driver, marks)
}

#[test]
fn a_log_is_marked_once_in_a_pause_and_never_under_load() {
    let (wal, mut driver, marks) = counted();
    assert_eq!(driver.pause(), None, "there is nothing to mark");
    for index in 1..=300 {
        wal.append(vec![entry(1, index, "x")], done().0).unwrap();
        assert!(driver.work());
        assert!(driver.pause().is_some());
    }
    assert_eq!(marks.load(Ordering::SeqCst), 0);
    for _ in 0..3 {
        assert!(driver.rest());
        assert_eq!(driver.pause(), None, "nothing more is waited for");
        assert!(!driver.poll_work(Waker::noop()));
    }
    assert_eq!(marks.load(Ordering::SeqCst), 1);
    // What is no entry counts as much: a vote that is forgotten is given twice.
    wal.save_vote("v".into(), done().0).unwrap();
    assert!(driver.work() && driver.pause().is_some() && driver.rest());
    assert_eq!(marks.load(Ordering::SeqCst), 2);
    wal.save_committed(1, 300).unwrap();
    assert_eq!(driver.pause(), None, "it waits for a batch");
    wal.close();
    while driver.work() {}
    assert_eq!(marks.load(Ordering::SeqCst), 3, "a close marks what it wrote");
}

#[test]
fn a_mark_that_fails_ends_the_log() {
    let files = CutFiles::new(2);
    let (wal, _, mut driver) = Wal::open_driven(Path::new(DIR), Arc::new(files.clone()), tiny()).unwrap();
    wal.append(entries(1, 1..=3), done().0).unwrap();
    assert!(driver.work());
    let (callback, outcome) = done();
    wal.append(entries(1, 4..=4), callback).unwrap();
    files.fail_sync(1);
    assert!(!driver.rest());
    assert!(outcome.try_recv().unwrap().is_err());
    let error = wal.append(entries(1, 5..=5), done().0).unwrap_err().to_string();
    assert!(error.contains("/data/wal/mark"), "{error}");
}

/// The writer's own thread: nobody but the clock tells it to.
#[test]
fn the_writer_marks_after_a_pause() {
    let files = CutFiles::new(3);
    let (marked, marks) = mpsc::channel();
    let seam = Seam::new(files.clone(), move |step, path| {
        if step == Step::Sync && is_mark(path) {
            // Nobody listens when the test has what it wants.
            let _ = marked.send(());
        }
    });
    let (wal, _) = Wal::open(Path::new(DIR), Arc::new(seam), tiny()).unwrap();
    marks.recv().expect("a new log is marked");
    finish(|done| wal.append(entries(1, 1..=3), done)).unwrap();
    marks.recv_timeout(Duration::from_secs(60)).expect("it is marked");
    // This has its answer when the mark is durable.
    finish(|done| wal.save_bound(1, done)).unwrap();
    files.halt();
    drop(wal);
    files.restore();
    let path = Path::new(DIR).join("0000000000000001.wal");
    // Header block, start frame, and into the header of the first entry.
    files.flip(&path, 4096 + 80 + 8).unwrap();
    let error = open(&files).err().expect("it is refused").to_string();
    assert!(error.contains("0000000000000001.wal at offset 4176"), "{error}");
}

/// Sixty writes, a second of rest, the process killed, and the file zeroed from its middle to its end.
#[test]
fn a_zeroed_suffix_of_a_real_file_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let (live, copy) = (dir.path().join("live"), dir.path().join("copy"));
    let (marked, marks) = mpsc::channel();
    let seam = Seam::new(RealFiles, move |step, path| {
        if step == Step::Sync && is_mark(path) {
            let _ = marked.send(());
        }
    });
    let (wal, _) = Wal::open(&live, Arc::new(seam), tiny()).unwrap();
    marks.recv().expect("a new log is marked");
    for index in 1..=60 {
        finish(|done| wal.append(vec![entry(1, index, vec![1; 100])], done)).unwrap();
    }
    marks.recv_timeout(Duration::from_secs(60)).expect("it is marked");
    finish(|done| wal.save_bound(1, done)).unwrap();
    // As a kill leaves it: without the batch and the mark of a close.
    std::fs::create_dir(&copy).unwrap();
    for file in std::fs::read_dir(&live).unwrap() {
        let file = file.unwrap();
        std::fs::copy(file.path(), copy.join(file.file_name())).unwrap();
    }
    drop(wal);
    let segment = copy.join("0000000000000001.wal");
    let mut bytes = std::fs::read(&segment).unwrap();
    let middle = 4096 + 80 + 30 * 136;
    bytes[middle..].fill(0);
    std::fs::write(&segment, &bytes).unwrap();
    let refused = Wal::open(&copy, Arc::new(RealFiles), tiny())
        .err()
        .expect("it is refused");
    let refused = refused.to_string();
    let place = format!("{} at offset {middle}", segment.display());
    assert!(
        refused.contains(&place) && refused.contains("entry 60 of term 1"),
        "{refused}"
    );
    assert_eq!(std::fs::read(&segment).unwrap(), bytes, "nothing was touched");
}

/// No mark, and headers that do not say what is behind the frames: it opens, and is marked from then on.
#[test]
fn a_log_of_an_earlier_program_is_marked_when_it_is_opened() {
    let files = CutFiles::new(4);
    let (wal, _) = open(&files).unwrap();
    for index in 1..=20 {
        finish(|done| wal.append(vec![entry(1, index, vec![1; 100])], done)).unwrap();
    }
    wal.close();
    let segment = Path::new(DIR).join("0000000000000001.wal");
    files.remove(&Path::new(DIR).join("mark")).unwrap();
    files
        .open(&segment, false)
        .unwrap()
        .write_all_at(&[0; 8], 32)
        .unwrap();
    let (wal, known) = open(&files).unwrap();
    assert_eq!(known.last, Some((1, 20)));
    files.halt();
    drop(wal);
    files.restore();
    let middle = 4096 + 80 + 10 * 136;
    let zeroes = vec![0; (16 << 10) - middle];
    files
        .open(&segment, false)
        .unwrap()
        .write_all_at(&zeroes, middle as u64)
        .unwrap();
    let error = open(&files).err().expect("it is refused").to_string();
    assert!(
        error.contains(&format!("0000000000000001.wal at offset {middle}")),
        "{error}"
    );
}
