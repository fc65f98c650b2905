//! Whole files, and large parts of them: cut short, zeroed, gone, older than they should be, under other names.

use super::{Image, Moment, REFUSED, TORN, UNSEEN, WHOLE, built, check, disk_of, frames, image, open};

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
        image.get_mut(&built.spare()).unwrap().clear()
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
    for name in [built.spare(), "mark".into()] {
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
    let spare = built.spare();
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
