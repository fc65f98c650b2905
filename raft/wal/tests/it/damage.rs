//! Every kind of damage to every kind of place: a log opens with all that was acknowledged, or is refused with one
//! line that names file and offset and is left as it is. Only since the last mark may less be found.

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

fn flip(name: &str, offset: usize) -> impl Fn(&mut Image) {
    move |image| image.get_mut(name).unwrap()[offset] ^= 0x10
}

fn first_middle_last(from: usize, len: usize) -> [usize; 3] {
    [from, from + len / 2, from + len - 1]
}

#[test]
fn a_flip_in_a_segment_that_was_left() {
    let built = built();
    let segments = built.segments();
    for name in &segments[..segments.len() - 2] {
        let frames = frames(&built.images[0][name]);
        for at in first_middle_last(0, 32) {
            check(
                &built,
                &format!("header of {name} at {at}"),
                REFUSED,
                flip(name, at),
            );
        }
        for at in [48, 2048, 4095] {
            check(
                &built,
                &format!("rest of the header of {name}"),
                WHOLE,
                flip(name, at),
            );
        }
        let (start, middle, seal) = (frames[0], frames[frames.len() / 2], frames[frames.len() - 1]);
        for (frame, (offset, _, payload)) in [("start", start), ("middle", middle), ("seal", seal)] {
            for at in first_middle_last(offset, 32 + payload) {
                check(
                    &built,
                    &format!("{frame} of {name} at {at}"),
                    REFUSED,
                    flip(name, at),
                );
            }
        }
    }
}

#[test]
fn a_flip_in_the_current_segment() {
    let built = built();
    let segments = built.segments();
    let current = &segments[segments.len() - 2];
    let frames = frames(&built.images[0][current]);
    let (first_of_last, last) = (frames[frames.len() - 2], frames[frames.len() - 1]);
    for (offset, _, payload) in &frames[..frames.len() - 2] {
        for at in first_middle_last(*offset, 32 + payload) {
            check(
                &built,
                &format!("before the last batch at {at}"),
                REFUSED,
                flip(current, at),
            );
        }
    }
    for (offset, _, payload) in [first_of_last, last] {
        for at in first_middle_last(offset, 32 + payload) {
            check(
                &built,
                &format!("the last batch at {at}"),
                TORN,
                flip(current, at),
            );
        }
    }
    // The committed index that a close writes.
    let closed = built.at(Moment::Closed);
    let end = last.0 + last.1;
    assert_eq!(closed[current][end + 8], 4);
    for at in first_middle_last(end, 32) {
        let mut damaged = closed.clone();
        flip(current, at)(&mut damaged);
        assert_eq!(
            outcome(&built, &damaged),
            Outcome::Refused,
            "the last frame at {at}"
        );
    }
}

#[test]
fn a_flip_beside_the_segments_in_use() {
    let built = built();
    let segments = built.segments();
    let ahead = &segments[segments.len() - 1];
    for at in first_middle_last(0, 32) {
        check(
            &built,
            &format!("{ahead}, made ahead, at {at}"),
            REFUSED,
            flip(ahead, at),
        );
    }
    check(
        &built,
        "behind the header of the one made ahead",
        WHOLE,
        flip(ahead, 5000),
    );
    for at in [0, 20, 4096, 4096 + 70] {
        check(
            &built,
            &format!("the spare at {at}"),
            WHOLE,
            flip(&spare(&built), at),
        );
    }
    // One of the two copies; the other may be the older one.
    for at in [0, 9, 20, 55, 4096, 4096 + 9, 4096 + 20, 4096 + 55, 2000] {
        check(&built, &format!("the mark at {at}"), WHOLE, flip("mark", at));
    }
    check(&built, "both copies of the mark", REFUSED, |image| {
        flip("mark", 3)(image);
        flip("mark", 4096 + 3)(image);
    });
}

fn spare(built: &Built) -> String {
    let names = &mut built.images[0].keys();
    names
        .find(|name| name.ends_with(".spare"))
        .expect("one is kept")
        .clone()
}

#[test]
fn a_file_cut_short() {
    let built = built();
    for name in built.segments() {
        let frames = frames(&built.images[0][&name]);
        let inside = frames.last().map_or(4100, |(offset, ..)| offset + 40);
        for len in [0, 20, inside, 8 << 10, (16 << 10) - 1] {
            let cut = |image: &mut Image| image.get_mut(&name).unwrap().truncate(len);
            check(&built, &format!("{name} cut to {len}"), REFUSED, cut);
        }
        check(&built, "a longer file", WHOLE, |image| {
            image.get_mut(&name).unwrap().extend([7; 99])
        });
    }
    for (len, expected) in [(0, REFUSED), (20, REFUSED), (5000, WHOLE)] {
        let cut = |image: &mut Image| image.get_mut("mark").unwrap().truncate(len);
        check(&built, &format!("the mark cut to {len}"), expected, cut);
    }
    check(&built, "the spare cut", WHOLE, |image| {
        image.get_mut(&spare(&built)).unwrap().clear()
    });
}

#[test]
fn a_suffix_of_zeroes() {
    let built = built();
    let segments = built.segments();
    for (place, name) in segments.iter().enumerate() {
        let frames = frames(&built.images[0][name]);
        let mut offsets = vec![0, 4096, 4100];
        for (at, len, _) in [frames.len() / 2, frames.len().saturating_sub(2)]
            .into_iter()
            .filter_map(|place| frames.get(place))
        {
            offsets.extend([*at, at + len / 2]);
        }
        // Without it entries are missed that are in no segment any more.
        let purge = frames.iter().find(|(at, ..)| built.images[0][name][at + 8] == 6);
        for from in offsets {
            let in_frame = frames
                .iter()
                .any(|(at, len, _)| (at + 1..at + len).contains(&from));
            let expected = match (from, segments.len() - place) {
                (0, _) => REFUSED,
                (_, 1) => WHOLE,
                (_, 2) if purge.is_none_or(|(at, ..)| from < at + 32) => REFUSED,
                // The part of a frame that is left is behind the end.
                (_, 2) if in_frame => TORN,
                (_, 2) => UNSEEN,
                _ => REFUSED,
            };
            let zeroed = |image: &mut Image| image.get_mut(name).unwrap()[from..].fill(0);
            check(&built, &format!("{name} zeroed from {from}"), expected, zeroed);
        }
    }
    check(&built, "all behind the first header", REFUSED, |image| {
        let wals = image.iter_mut().filter(|(name, _)| name.ends_with(".wal"));
        wals.for_each(|(_, bytes)| bytes[4096..].fill(0));
    });
    let (current, ahead) = (&segments[segments.len() - 2], &segments[segments.len() - 1]);
    let frames = frames(&built.images[0][current]);
    let last_batch = frames[frames.len() - 2].0;
    check(&built, "the last batch and the one ahead", UNSEEN, |image| {
        image.get_mut(current).unwrap()[last_batch..].fill(0);
        image.get_mut(ahead).unwrap()[4096..].fill(0);
    });
}

#[test]
fn a_file_that_is_gone() {
    let built = built();
    let segments = built.segments();
    for (place, name) in segments.iter().enumerate() {
        let expected = match segments.len() - place {
            1 => WHOLE,
            _ => REFUSED,
        };
        check(&built, &format!("{name} is gone"), expected, |image| {
            drop(image.remove(name))
        });
    }
    // The last sealed one names its successor.
    check(
        &built,
        "the current one and the one ahead are gone",
        REFUSED,
        |image| {
            segments[segments.len() - 2..]
                .iter()
                .for_each(|name| drop(image.remove(name)));
        },
    );
    check(&built, "all segments are gone", REFUSED, |image| {
        image.retain(|name, _| !name.ends_with(".wal"));
    });
    check(&built, "all but the mark are gone", REFUSED, |image| {
        image.retain(|name, _| name == "mark")
    });
    for name in [spare(&built), "mark".into()] {
        check(&built, &format!("{name} is gone"), WHOLE, |image| {
            drop(image.remove(&name))
        });
    }
    // Without a mark, as an earlier program left it: a segment that was renamed is no new log.
    check(&built, "only a spare is left", REFUSED, |image| {
        image.retain(|name, _| name.ends_with(".spare"))
    });
}

#[test]
fn a_file_that_went_back() {
    let built = built();
    let segments = built.segments();
    let current = &segments[segments.len() - 2];
    check(&built, "the current one two batches ago", UNSEEN, |image| {
        drop(image.insert(current.clone(), built.before[current].clone()));
    });
    let second = &segments[0];
    assert!(built.long_before[second] != built.images[0][second]);
    check(
        &built,
        "the oldest one as it was before it was left",
        REFUSED,
        |image| {
            drop(image.insert(second.clone(), built.long_before[second].clone()));
        },
    );
    check(&built, "the mark as it was", WHOLE, |image| {
        drop(image.insert("mark".into(), built.before["mark"].clone()));
    });
}

#[test]
fn files_under_other_names() {
    let built = built();
    let segments = built.segments();
    for pair in segments.windows(2) {
        check(&built, &format!("{pair:?} are swapped"), REFUSED, |image| {
            let (first, second) = (image[&pair[0]].clone(), image[&pair[1]].clone());
            image.extend([(pair[0].clone(), second), (pair[1].clone(), first)]);
        });
    }
    let spare = spare(&built);
    for name in &segments {
        check(
            &built,
            &format!("the spare in place of {name}"),
            REFUSED,
            |image| {
                let bytes = image.remove(&spare).unwrap();
                drop(image.insert(name.clone(), bytes));
            },
        );
    }
    let ahead = u64::from_str_radix(&segments[segments.len() - 1][..16], 16).unwrap();
    check(&built, "the spare behind the one ahead", REFUSED, |image| {
        let bytes = image.remove(&spare).unwrap();
        drop(image.insert(format!("{:016x}.wal", ahead + 1), bytes));
    });
    check(&built, "the spare under its first name", WHOLE, |image| {
        let bytes = image.remove(&spare).unwrap();
        drop(image.insert(spare.replace(".spare", ".wal"), bytes));
    });
    check(&built, "the current one as a spare", REFUSED, |image| {
        let bytes = image.remove(&segments[segments.len() - 2]).unwrap();
        drop(image.insert(segments[segments.len() - 2].replace(".wal", ".spare"), bytes));
    });
}

/// Only what the log itself never finished is removed.
#[test]
fn files_that_are_not_the_logs() {
    let built = built();
    let others = [
        "notes.txt",
        "other.tmp",
        "copy.spare",
        "00000000000000FF.wal",
        "+00000000000000f.wal",
        "ffffffffffffffff.wal",
        "0000000000000000.wal",
    ];
    for name in others {
        check(&built, name, WHOLE, |image| {
            drop(image.insert(name.into(), vec![1; 20 << 10]))
        });
    }
    let mut crowded = built.at(Moment::Killed).clone();
    crowded.extend(others.map(|name| (name.to_owned(), vec![2; 10])));
    crowded.extend(["new.tmp", "mark.tmp"].map(|name| (name.to_owned(), vec![3; 10])));
    let files = disk_of(&crowded);
    open(&files).unwrap();
    let left = image(&files);
    assert!(others.iter().all(|name| left.contains_key(*name)));
    assert!(!left.contains_key("new.tmp") && !left.contains_key("mark.tmp"));
}
