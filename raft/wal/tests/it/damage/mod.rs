//! Every kind of damage to every kind of place: a log opens with all that was acknowledged, or is refused with one
//! line that names file and offset and is left as it is. Only since the last mark may less be found.

mod files;
mod flips;

use std::{
    collections::BTreeMap,
    panic::{AssertUnwindSafe, catch_unwind},
    path::Path,
    sync::Arc,
};

use barque_wal::{
    Recovered, Wal,
    files::{CutFiles, Files},
};

use crate::{DIR, done, entry, model::Model, tiny};

/// Name and content of each file.
type Image = BTreeMap<String, Vec<u8>>;

fn image(files: &CutFiles) -> Image {
    let dir = Path::new(DIR);
    let read = |name: String| {
        let file = files.open(&dir.join(&name), false).unwrap();
        let mut bytes = vec![0; file.len().unwrap() as usize];
        assert_eq!(file.read_at(&mut bytes, 0).unwrap(), bytes.len());
        (name, bytes)
    };
    files.list(dir).unwrap().into_iter().map(read).collect()
}

fn disk_of(image: &Image) -> CutFiles {
    let files = CutFiles::new(0);
    let dir = Path::new(DIR);
    files.create_dir_all(dir).unwrap();
    for (name, bytes) in image {
        let file = files.open(&dir.join(name), true).unwrap();
        file.write_all_at(bytes, 0).unwrap();
        file.sync().unwrap();
    }
    files.sync_dir(dir).unwrap();
    files
}

/// The moments at which the machine may find the log damaged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Moment {
    /// Killed right after the last batch, which is beyond the mark; so is all since the log was opened.
    Killed,
    /// Killed after a pause.
    Rested,
    Closed,
}

const MOMENTS: [Moment; 3] = [Moment::Killed, Moment::Rested, Moment::Closed];

/// A log of several segments, of which some are purged, at each of the moments.
struct Built {
    images: [Image; 3],
    /// The same log two batches earlier, in the same segment.
    before: Image,
    /// And when its second segment was the current one.
    long_before: Image,
    model: Model,
}

const LAST: u64 = 62;
const PURGED: u64 = 15;
/// In the current segment.
const PURGED_AT: u64 = LAST - 6;

fn built() -> Built {
    let files = CutFiles::new(1);
    let (wal, known, mut driver) = Wal::open_driven(Path::new(DIR), Arc::new(files.clone()), tiny()).unwrap();
    let mut model = Model::of(&wal, &known);
    let (mut before, mut long_before) = (Image::new(), Image::new());
    wal.save_vote("vote".into(), done().0).unwrap();
    model.vote = Some(b"vote".to_vec());
    for index in (1..=LAST).step_by(2) {
        let pair: Vec<_> = [index, index + 1]
            .map(|index| entry(1, index, vec![index as u8; 1000]))
            .into();
        model.entries.extend(pair.clone());
        wal.append(pair, done().0).unwrap();
        assert!(driver.work());
        match index + 1 {
            18 => long_before = image(&files),
            PURGED_AT => {
                wal.purge(1, PURGED, done().0).unwrap();
                assert!(driver.work());
            }
            n if n == LAST - 4 => before = image(&files),
            _ => {}
        }
    }
    model.entries.retain(|entry| entry.index > PURGED);
    model.purged = Some((1, PURGED));
    wal.save_committed(1, LAST).unwrap();
    let killed = image(&files);
    assert!(driver.rest());
    let rested = image(&files);
    wal.close();
    while driver.work() {}
    let closed = image(&files);
    Built {
        images: [killed, rested, closed],
        before,
        long_before,
        model,
    }
}

impl Built {
    fn at(&self, moment: Moment) -> &Image {
        &self.images[moment as usize]
    }

    /// The names of the segments: from the oldest to the current one and the one made ahead.
    fn segments(&self) -> Vec<String> {
        let names = self.images[0].keys();
        names.filter(|name| name.ends_with(".wal")).cloned().collect()
    }

    fn spare(&self) -> String {
        let mut names = self.images[0].keys();
        let spare = names.find(|name| name.ends_with(".spare"));
        spare.expect("one is kept").clone()
    }
}

/// Offset and whole length of each frame, and of its payload.
fn frames(segment: &[u8]) -> Vec<(usize, usize, usize)> {
    let mut frames = Vec::new();
    let mut at = 4096;
    while at + 32 <= segment.len() && segment[at + 8] != 0 {
        let payload = u32::from_le_bytes(segment[at..at + 4].try_into().unwrap()) as usize;
        let len = (32 + payload).next_multiple_of(8);
        frames.push((at, len, payload));
        at += len;
    }
    frames
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Outcome {
    /// Everything that was acknowledged is there.
    Whole,
    Refused,
    /// Less is there, which is said. Only what is beyond the mark may be lost so.
    Torn,
    /// Less is there, and nothing shows it: the file looks as if it had never been written further.
    Unseen,
}

fn open(files: &CutFiles) -> std::io::Result<(Wal, Recovered)> {
    // The driver may go: nothing is written any more.
    Wal::open_driven(Path::new(DIR), Arc::new(files.clone()), tiny()).map(|(wal, known, _)| (wal, known))
}

fn outcome(built: &Built, damaged: &Image) -> Outcome {
    let files = disk_of(damaged);
    let (wal, known) = match open(&files) {
        Ok(opened) => opened,
        Err(error) => {
            let text = error.to_string();
            let names = text.contains("/data/wal/") && text.contains("at offset") && !text.contains('\n');
            assert!(names, "{text}");
            assert_eq!(
                image(&files),
                *damaged,
                "what is refused is left as it is: {text}"
            );
            return Outcome::Refused;
        }
    };
    let found = Model::of(&wal, &known);
    if found == built.model {
        return Outcome::Whole;
    }
    let end = known.end.expect("it is no new log");
    assert!(
        built.model.entries.starts_with(&found.entries),
        "an earlier state"
    );
    assert!(end.path.starts_with(DIR) && end.offset >= 4096);
    // Said once: what is told again at the next opening is not what was lost.
    drop(wal);
    let (_, again) = open(&files).unwrap();
    assert_eq!(again.end.map(|end| end.torn_bytes), Some(0));
    assert_eq!(again.last, known.last);
    match end.torn_bytes {
        0 => Outcome::Unseen,
        _ => Outcome::Torn,
    }
}

/// Damages each moment's files and compares what comes of it.
fn check(built: &Built, what: &str, expected: [Outcome; 3], damage: impl Fn(&mut Image)) {
    for (moment, expected) in MOMENTS.into_iter().zip(expected) {
        let mut damaged = built.at(moment).clone();
        damage(&mut damaged);
        let found = catch_unwind(AssertUnwindSafe(|| outcome(built, &damaged)));
        let found = found.unwrap_or_else(|_| panic!("{what}, {moment:?}: see above"));
        assert_eq!(found, expected, "{what}, {moment:?}");
    }
}

const WHOLE: [Outcome; 3] = [Outcome::Whole; 3];
const REFUSED: [Outcome; 3] = [Outcome::Refused; 3];
/// Of the last batch.
const TORN: [Outcome; 3] = [Outcome::Torn, Outcome::Refused, Outcome::Refused];
const UNSEEN: [Outcome; 3] = [Outcome::Unseen, Outcome::Refused, Outcome::Refused];
