//! Manifests as RocksDB writes them, torn and damaged in every place.

use bytes::Bytes;

use super::*;
use crate::kv::{Batch, Engine, rocks};

const STATE: &str = "state-00000001";

/// What a database wrote that was made, opened again, and flushed three times: too few for a compaction.
fn real() -> tempfile::TempDir {
    let home = tempfile::tempdir().unwrap();
    drop(rocks::open(home.path(), 0).unwrap());
    let engine = rocks::open(home.path(), 0).unwrap();
    engine.clear_leftovers().unwrap();
    engine.without_compactions();
    for number in 0..3u8 {
        let mut batch = Batch::default();
        for family in Family::ALL.into_iter().skip(usize::from(number)) {
            batch.put(family, vec![number].into(), Bytes::from(vec![number]));
        }
        engine.write(batch).unwrap();
        engine.flush().unwrap();
    }
    home
}

fn dir(home: &tempfile::TempDir) -> PathBuf {
    home.path().join(STATE)
}

/// Where each record ends, and how many of its group follow.
fn records(bytes: &[u8]) -> Vec<(usize, Option<usize>)> {
    let (mut records, mut at) = (Vec::new(), 0);
    while let Some(fragment) = Fragment::next(bytes, at) {
        at = fragment.end;
        records.push((at, fragment.follow));
    }
    records
}

fn whole_len(bytes: &[u8]) -> usize {
    Records::of(bytes).whole
}

#[test]
fn what_rocksdb_writes_is_whole() {
    let home = real();
    let manifest = Manifest::read(&dir(&home)).unwrap();
    assert!(manifest.bytes.len() > 1000, "{}", manifest.bytes.len());
    assert_eq!(manifest.torn(), 0);
    // Groups of a flush are seen as such: 7 follow, 6, … 0; then 6, … 0. RocksDB's default family is in each.
    let follow: Vec<_> = records(&manifest.bytes)
        .iter()
        .map(|(_, follow)| *follow)
        .collect();
    let ends = |members: usize| (0..members).rev().map(Some).collect::<Vec<_>>();
    for members in [8, 7, 6] {
        assert!(
            follow.windows(members).any(|part| part == ends(members)),
            "{members}: {follow:?}"
        );
    }
    assert!(follow.iter().flatten().all(|follow| *follow < LARGEST_GROUP));
}

/// Every byte of a real manifest turned over: it is damage, or within the last group.
#[test]
fn a_break_with_something_later_behind_it_is_damage() {
    let home = real();
    let manifest = named(&dir(&home)).unwrap();
    let bytes = fs::read(&manifest).unwrap();
    let records = records(&bytes);
    let whole_groups: Vec<usize> = records
        .iter()
        .filter(|(_, follow)| follow.unwrap_or(0) == 0)
        .map(|(end, _)| *end)
        .collect();
    let last_group = whole_groups[whole_groups.len() - 2];
    for broken in 0..bytes.len() {
        let mut damaged = bytes.clone();
        damaged[broken] ^= 0x10;
        fs::write(&manifest, &damaged).unwrap();
        let read = Manifest::read(&dir(&home)).map(|manifest| manifest.whole);
        if broken >= last_group {
            let before = records.iter().rfind(|(end, _)| *end <= broken).unwrap();
            assert_eq!(read.unwrap(), before.0, "byte {broken}");
            continue;
        }
        let error = read.unwrap_err().to_string();
        assert!(
            error.contains(manifest.to_str().unwrap())
                && error.contains("it is damaged")
                && error.contains("nothing was changed")
                && !error.contains('\n'),
            "byte {broken}: {error}"
        );
    }
}

#[test]
fn one_that_ends_too_early_is_torn() {
    let home = real();
    let manifest = named(&dir(&home)).unwrap();
    let bytes = fs::read(&manifest).unwrap();
    let records = records(&bytes);
    for len in records[0].0..bytes.len() {
        fs::write(&manifest, &bytes[..len]).unwrap();
        let before = records.iter().rfind(|(end, _)| *end <= len).unwrap();
        let read = Manifest::read(&dir(&home)).unwrap();
        assert_eq!(
            (read.whole, read.torn()),
            (before.0, len - before.0),
            "{len} bytes"
        );
    }
    for len in 0..records[0].0 {
        fs::write(&manifest, &bytes[..len]).unwrap();
        assert!(Manifest::read(&dir(&home)).is_err(), "{len} bytes");
    }
}

fn fragment(kind: u8, payload: &[u8]) -> Vec<u8> {
    let covered: Vec<u8> = [&[kind], payload].concat();
    let mut bytes = masked(crc32c::crc32c(&covered)).to_le_bytes().to_vec();
    bytes.extend((payload.len() as u16).to_le_bytes());
    bytes.extend(covered);
    bytes
}

fn member(follow: u8) -> Vec<u8> {
    fragment(1, &[b"edit".as_slice(), &IN_GROUP, &[follow]].concat())
}

/// Each row: records, `?` for one that cannot be read. Whether that is a torn end.
#[test]
fn only_the_rest_of_one_group_may_be_whole_behind_a_break() {
    for (text, torn) in [
        ("s?", true),
        ("s???", true),
        ("s?210", true),
        ("s210?", true),
        ("s210?10", true),
        ("s2?0", true),
        ("s?3??0", true),
        // A group of one record each family is whole: what is broken came before it.
        ("s?876543210", false),
        ("s?0s", false),
        ("s?s", false),
        ("s?00", false),
        ("s?0210", false),
        ("s1?0", false),
        ("s2?1", false),
        ("s2??3", false),
    ] {
        let mut bytes = Vec::new();
        for record in text.chars() {
            bytes.extend(match record {
                's' => fragment(1, b"a single edit"),
                '?' => vec![0x5a; 21],
                digit => member(digit.to_digit(10).unwrap() as u8),
            });
        }
        let later = Records::of(&bytes).later(&bytes);
        assert_eq!(later.is_none(), torn, "{text}: {later:?}");
    }
}

#[test]
fn records_go_on_in_the_next_block() {
    // Three bytes are left in the first block: no header fits in there.
    let mut log = fragment(2, &vec![7; BLOCK_BYTES - HEADER_BYTES - 3 - HEADER_BYTES]);
    log = [fragment(1, b""), log].concat();
    let first = HEADER_BYTES;
    log.extend([0; 3]);
    assert_eq!(whole_len(&log), first);
    log.extend(fragment(4, b"end"));
    let end = log.len();
    assert_eq!(whole_len(&log), end);
    log.extend(fragment(2, b"not ended"));
    assert_eq!(whole_len(&log), end);
    assert_eq!(Records::of(&log).later(&log), None);
    // A record that begins and does not end behind a break says that there was more.
    log[end + HEADER_BYTES] ^= 1;
    log.extend(fragment(2, b"begun"));
    assert!(Records::of(&log).later(&log).is_some());
}

#[test]
fn garbage_of_any_length_is_looked_through_once() {
    let home = real();
    let manifest = named(&dir(&home)).unwrap();
    let bytes = fs::read(&manifest).unwrap();
    for (behind, refused) in [
        (LONGEST_TAIL, false),
        (LONGEST_TAIL + 1, true),
        (4 * LONGEST_TAIL, true),
    ] {
        // Looks like a header everywhere.
        let garbage = vec![1; behind];
        fs::write(&manifest, [&bytes[..], &garbage].concat()).unwrap();
        assert_eq!(Manifest::read(&dir(&home)).is_err(), refused, "{behind}");
    }
}

/// As after a power cut: the end may go, and every original that went is kept.
#[test]
fn a_torn_end_is_cut_only_when_rocksdb_refuses_it_and_is_kept() {
    let home = real();
    for round in 1..=3 {
        let manifest = named(&dir(&home)).unwrap();
        let whole = fs::read(&manifest).unwrap();
        let torn = [&whole[..], &[9, 9, 9, 9, 40, 0, 1], &[0; 60]].concat();
        fs::write(&manifest, &torn).unwrap();
        drop(rocks::open(home.path(), 0).unwrap());
        let kept = manifest.with_file_name(format!(
            "{}.torn",
            manifest.file_name().unwrap().to_str().unwrap()
        ));
        assert_eq!(fs::read(&kept).unwrap(), torn, "round {round}");
    }
    // A name that is taken is not given again.
    let manifest = named(&dir(&home)).unwrap();
    let first = keep(&manifest, b"first").unwrap();
    let second = keep(&manifest, b"second").unwrap();
    assert_eq!(
        (fs::read(first).unwrap(), fs::read(second).unwrap()),
        (b"first".to_vec(), b"second".to_vec())
    );
}

#[test]
fn a_cut_that_does_not_help_is_undone() {
    let home = real();
    let manifest = named(&dir(&home)).unwrap();
    let torn = [
        &fs::read(&manifest).unwrap()[..],
        &[9, 9, 9, 9, 40, 0, 1],
        &[0; 60],
    ]
    .concat();
    fs::write(&manifest, &torn).unwrap();
    for entry in fs::read_dir(dir(&home)).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "sst") {
            fs::remove_file(&path).unwrap();
        }
    }
    let error = rocks::open(home.path(), 0).map(|_| ()).unwrap_err().to_string();
    assert!(error.contains(".sst") && !error.contains('\n'), "{error}");
    assert_eq!(fs::read(&manifest).unwrap(), torn);
}

/// Any end of the last group may be missing: RocksDB takes what is left for the state before it.
#[test]
fn a_group_that_is_cut_short_is_as_if_it_had_not_been_written() {
    let home = real();
    let manifest = named(&dir(&home)).unwrap();
    let bytes = fs::read(&manifest).unwrap();
    let last = records(&bytes).into_iter().rev().take(5);
    for (end, _) in last.skip(1) {
        let copy = tempfile::tempdir().unwrap();
        fs::create_dir(dir(&copy)).unwrap();
        for entry in fs::read_dir(dir(&home)).unwrap() {
            let path = entry.unwrap().path();
            fs::copy(&path, dir(&copy).join(path.file_name().unwrap())).unwrap();
        }
        fs::write(copy.path().join("CURRENT_STATE"), format!("{STATE}\n")).unwrap();
        let cut = dir(&copy).join(manifest.file_name().unwrap());
        fs::write(&cut, [&bytes[..end], &[9, 9, 9, 9, 40, 0, 1], &[0; 60]].concat()).unwrap();
        let engine = rocks::open(copy.path(), 0).unwrap();
        let view = engine.view();
        let has = |family, number| view.get(family, &[number]).unwrap().is_some();
        for family in Family::ALL.into_iter().skip(2) {
            assert_eq!(
                (has(family, 1), has(family, 2)),
                (true, false),
                "{family:?} at {end}"
            );
        }
    }
}

#[test]
fn a_current_that_names_nothing_is_refused_with_the_command_that_mends_it() {
    for content in [
        None,
        Some(""),
        Some("MANIFEST-0000"),
        Some("MANIFEST-999999\n"),
        Some("NANIFEST-000005\n"),
    ] {
        let home = real();
        let current = dir(&home).join("CURRENT");
        let whole = fs::read(&current).unwrap();
        match content {
            None => fs::remove_file(&current).unwrap(),
            Some(content) => fs::write(&current, content).unwrap(),
        }
        let error = rocks::open(home.path(), 0).map(|_| ()).unwrap_err().to_string();
        assert!(
            error.contains(current.to_str().unwrap()) && !error.contains('\n'),
            "{content:?}: {error}"
        );
        let command = error.split('`').nth(1).unwrap();
        let status = std::process::Command::new("sh").args(["-c", command]).status();
        assert!(status.unwrap().success(), "{command}");
        assert_eq!(fs::read(&current).unwrap(), whole);
        drop(rocks::open(home.path(), 0).unwrap());
    }
}
