//! What an opening says: what is known of the log's end, once, and nothing when it is whole.

use std::{
    fmt::{Debug, Write},
    path::Path,
    sync::{Arc, Mutex},
};

use barque_wal::{
    Recovered, Wal,
    files::{CutFiles, Files},
};
use tracing::{
    Event, Level, Metadata, Subscriber,
    field::{Field, Visit},
    span,
};

use crate::{DIR, done, entry, tiny};

/// Keeps each event as a line.
#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<(Level, String)>>>);

struct Line(String);

impl Visit for Line {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        write!(self.0, "{}={value:?} ", field.name()).unwrap();
    }
}

impl Subscriber for Lines {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }

    fn new_span(&self, _: &span::Attributes<'_>) -> span::Id {
        span::Id::from_u64(1)
    }

    fn record(&self, _: &span::Id, _: &span::Record<'_>) {}

    fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}

    fn event(&self, event: &Event<'_>) {
        let mut line = Line(String::new());
        event.record(&mut line);
        self.0.lock().unwrap().push((*event.metadata().level(), line.0));
    }

    fn enter(&self, _: &span::Id) {}

    fn exit(&self, _: &span::Id) {}
}

/// Opens, and hands back what was said at WARN or worse.
fn open(files: &CutFiles) -> (Wal, Recovered, Vec<String>) {
    let lines = Lines::default();
    let (wal, known, _) = tracing::subscriber::with_default(lines.clone(), || {
        Wal::open_driven(Path::new(DIR), Arc::new(files.clone()), tiny()).unwrap()
    });
    let lines = lines.0.lock().unwrap().clone();
    let said = lines.into_iter().filter(|(level, _)| *level <= Level::WARN);
    (wal, known, said.map(|(_, line)| line).collect())
}

/// Three batches, and then it is killed.
fn killed() -> CutFiles {
    let files = CutFiles::new(1);
    let (wal, _, mut driver) = Wal::open_driven(Path::new(DIR), Arc::new(files.clone()), tiny()).unwrap();
    for index in 1..=3 {
        wal.append(vec![entry(7, index, vec![1; 100])], done().0).unwrap();
        assert!(driver.work());
    }
    files
}

#[test]
fn a_batch_that_is_dropped_may_have_been_acknowledged() {
    let files = killed();
    // Header block, start frame, two frames, and into the payload of the third, or into its header.
    let last = 4096 + 80 + 2 * 136;
    for (flipped, bytes) in [(last + 50, 136), (last + 9, 136)] {
        let path = Path::new(DIR).join("0000000000000001.wal");
        files.flip(&path, flipped).unwrap();
        let (_, known, said) = open(&files);
        let [line] = &said[..] else {
            panic!("one line: {said:?}")
        };
        for part in [
            "file=/data/wal/0000000000000001.wal ",
            &format!("offset={last} "),
            &format!("bytes={bytes} "),
            "last_entry=\"2 of term 7\" ",
            "may have been acknowledged",
        ] {
            assert!(line.contains(part), "{part}: {line}");
        }
        let end = known.end.unwrap();
        assert_eq!(
            (end.path.as_path(), end.offset, end.torn_bytes),
            (path.as_path(), last, bytes)
        );
        let (_, _, said) = open(&files);
        assert!(said.is_empty(), "it is said once: {said:?}");
        return_to_three(&files);
    }
}

/// Writes the third entry again.
fn return_to_three(files: &CutFiles) {
    let (wal, known, mut driver) = Wal::open_driven(Path::new(DIR), Arc::new(files.clone()), tiny()).unwrap();
    assert_eq!(known.last, Some((7, 2)));
    wal.append(vec![entry(7, 3, vec![1; 100])], done().0).unwrap();
    assert!(driver.work());
}

#[test]
fn a_log_that_was_marked_and_is_not_says_so_once() {
    let files = killed();
    assert!(open(&files).2.is_empty());
    files.remove(&Path::new(DIR).join("mark")).unwrap();
    let (_, known, said) = open(&files);
    assert_eq!(known.last, Some((7, 3)));
    let [line] = &said[..] else {
        panic!("one line: {said:?}")
    };
    assert!(
        line.contains("has no mark") && line.contains("0000000000000001.wal"),
        "{line}"
    );
    assert!(open(&files).2.is_empty());
}
