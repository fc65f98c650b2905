//! Errors of the files, damage, and calls that make no sense.

use std::{io, path::Path, sync::Arc};

use barque_wal::{
    Wal, WalConfig,
    files::{CutFiles, Files, Harm},
};

use crate::{DIR, done, entries, entry, finish, indexes, open, tiny};

const MARK_BYTES: u64 = 8192;

fn path(seq: u64) -> std::path::PathBuf {
    Path::new(DIR).join(format!("{seq:016x}.wal"))
}

#[test]
fn a_sync_error_is_final() {
    let files = CutFiles::new(1);
    let (wal, _) = open(&files).unwrap();
    finish(|done| wal.append(entries(1, 1..=3), done)).unwrap();
    // The preparer is done when the first append is: fresh segments are made before they are needed.
    while files.operations() < 40 && wal.stats().bytes_on_disk < 2 * tiny().segment_bytes {
        std::thread::yield_now();
    }
    files.fail_sync(1);
    let error = finish(|done| wal.append(entries(1, 4..=5), done)).unwrap_err();
    assert!(error.to_string().contains("injected"), "{error}");
    let (callback, outcome) = done();
    let error = wal.append(entries(1, 6..=6), callback).unwrap_err();
    assert!(error.to_string().contains("the raft log has failed"), "{error}");
    assert!(outcome.recv().is_err(), "it is dropped uncalled");
    assert!(wal.save_vote("v".into(), done().0).is_err());
    assert!(wal.read(1..4, 1000).is_err());
    drop(wal);
    files.cut();
    files.restore();
    let (wal, known) = open(&files).unwrap();
    assert_eq!(
        known.last,
        Some((1, 3)),
        "what failed to sync was never acknowledged"
    );
    assert_eq!(indexes(&wal.read(1..9, usize::MAX).unwrap()), [1, 2, 3]);
}

#[test]
fn everything_queued_behind_an_error_fails_in_order() {
    let files = CutFiles::new(2);
    let (wal, _) = open(&files).unwrap();
    finish(|done| wal.append(entries(1, 1..=1), done)).unwrap();
    files.cut();
    let order: Arc<std::sync::Mutex<Vec<u64>>> = Arc::default();
    let mut taken = 0;
    for index in 2..200 {
        let order = order.clone();
        let callback = Box::new(move |outcome: io::Result<()>| {
            assert!(outcome.is_err());
            order.lock().unwrap().push(index);
        });
        if wal.append(entries(1, index..=index), callback).is_err() {
            break;
        }
        taken += 1;
    }
    wal.close();
    assert_eq!(*order.lock().unwrap(), (2..2 + taken).collect::<Vec<u64>>());
}

#[test]
fn a_full_disk_is_an_error_and_no_damage() {
    let files = CutFiles::new(3);
    let (wal, _) = open(&files).unwrap();
    files.limit(Some(2 * tiny().segment_bytes + MARK_BYTES + 100));
    let mut last = 0;
    let error = loop {
        match finish(|done| wal.append(vec![entry(1, last + 1, vec![7u8; 1000])], done)) {
            Ok(()) => last += 1,
            Err(error) => break error,
        }
        assert!(last < 100);
    };
    assert_eq!(error.kind(), io::ErrorKind::StorageFull, "{error}");
    assert!(last > 15, "both segments were used: {last}");
    drop(wal);
    files.limit(None);
    let (wal, known) = open(&files).unwrap();
    assert_eq!(known.last, Some((1, last)));
    finish(|done| wal.append(entries(1, last + 1..=last + 30), done)).unwrap();
}

#[test]
fn room_that_a_purge_made_is_used() {
    let files = CutFiles::new(4);
    let (wal, _) = open(&files).unwrap();
    files.limit(Some(3 * tiny().segment_bytes + MARK_BYTES + 100));
    for index in 1..400 {
        finish(|done| wal.append(vec![entry(1, index, vec![7u8; 1000])], done)).unwrap();
        if index > 8 && index % 4 == 0 {
            finish(|done| wal.purge(1, index - 6, done)).unwrap();
        }
    }
    assert!(wal.stats().bytes_on_disk <= 3 * tiny().segment_bytes);
    wal.close();
    let (wal, known) = open(&files).unwrap();
    assert_eq!((known.purged, known.last), (Some((1, 390)), Some((1, 399))));
    assert_eq!(
        indexes(&wal.read(391..400, usize::MAX).unwrap()),
        (391..400).collect::<Vec<_>>()
    );
}

#[test]
fn damage_in_the_middle_is_told_with_file_and_offset() {
    let files = CutFiles::new(5);
    let (wal, _) = open(&files).unwrap();
    for index in 1..=3 {
        finish(|done| wal.append(entries(1, index..=index), done)).unwrap();
    }
    wal.close();
    // Behind the header block, the start frame and into the first entry's payload.
    files.flip(&path(1), 4096 + 80 + 32 + 5).unwrap();
    let error = open(&files).err().expect("damage is an error").to_string();
    assert!(
        error.contains("/data/wal/0000000000000001.wal at offset 4176"),
        "{error}"
    );
    assert!(!error.contains('\n'));
}

#[test]
fn damage_before_a_later_segment_is_an_error() {
    let files = CutFiles::new(6);
    let (wal, _) = open(&files).unwrap();
    for index in 1..=40 {
        finish(|done| wal.append(vec![entry(1, index, vec![1u8; 1000])], done)).unwrap();
    }
    wal.close();
    for offset in [4096 + 8, 9000, 15000] {
        files.flip(&path(2), offset).unwrap();
        let error = open(&files).err().expect("damage is an error").to_string();
        assert!(error.contains("0000000000000002.wal at offset"), "{error}");
        files.flip(&path(2), offset).unwrap();
    }
    files.flip(&path(2), 20).unwrap();
    assert!(
        open(&files)
            .err()
            .unwrap()
            .to_string()
            .contains("header is damaged")
    );
    files.flip(&path(2), 20).unwrap();
    open(&files).unwrap();
}

#[test]
fn a_missing_segment_is_an_error() {
    use barque_wal::files::Files as _;
    for lost in [1, 2, 3] {
        let files = CutFiles::new(7);
        let (wal, _) = open(&files).unwrap();
        for index in 1..=25 {
            finish(|done| wal.append(vec![entry(1, index, vec![1u8; 1000])], done)).unwrap();
        }
        wal.close();
        files.remove(&path(lost)).unwrap();
        let names = files.list(Path::new(DIR)).unwrap();
        if lost == 3 {
            // Without the segment made ahead nothing is left behind the lost one but the seal before it.
            names
                .iter()
                .filter(|name| name.as_str() > "0000000000000003")
                .for_each(|name| {
                    files.remove(&Path::new(DIR).join(name)).unwrap();
                });
        }
        let error = open(&files)
            .err()
            .expect("a missing segment is an error")
            .to_string();
        assert!(error.contains("missing"), "{error}");
    }
}

#[test]
fn calls_that_make_no_sense_change_nothing() {
    let files = CutFiles::new(8);
    let (wal, _) = open(&files).unwrap();
    finish(|done| wal.append(entries(1, 1..=9), done)).unwrap();
    finish(|done| wal.purge(1, 4, done)).unwrap();
    let before = wal.state();
    for wrong in [
        entries(1, 11..=11),
        entries(1, 9..=9),
        vec![entry(1, 10, "a"), entry(1, 12, "b")],
    ] {
        assert_eq!(
            wal.append(wrong, done().0).unwrap_err().kind(),
            io::ErrorKind::InvalidInput
        );
    }
    let large = vec![0u8; tiny().max_entry_bytes() + 1];
    let error = wal.append(vec![entry(1, 10, large)], done().0).unwrap_err();
    assert!(error.to_string().contains("more than"), "{error}");
    assert!(wal.truncate_after(Some(3), done().0).is_err());
    assert!(wal.save_vote(vec![0u8; 257].into(), done().0).is_err());
    assert_eq!(wal.read(4..6, 1000).unwrap_err().kind(), io::ErrorKind::NotFound);
    assert_eq!(indexes(&wal.read(5..100, usize::MAX).unwrap()), [5, 6, 7, 8, 9]);
    assert_eq!(indexes(&wal.read(5..100, 1).unwrap()), [5]);
    assert!(wal.read(10..12, 1000).unwrap().is_empty());
    assert_eq!(wal.state(), before);
    let largest = vec![3u8; tiny().max_entry_bytes()];
    finish(|done| wal.append(vec![entry(1, 10, largest.clone())], done)).unwrap();
    wal.close();
    assert!(
        wal.append(entries(1, 11..=11), done().0)
            .unwrap_err()
            .to_string()
            .contains("closed")
    );
    let (wal, _) = open(&files).unwrap();
    assert_eq!(wal.read(10..11, 1).unwrap()[0].payload, largest);
    let config = WalConfig {
        segment_bytes: 5000,
        ..tiny()
    };
    assert!(Wal::open(Path::new(DIR), Arc::new(files), config).is_err());
}

#[test]
fn recycled_segments_do_not_bring_old_entries_back() {
    let files = CutFiles::new(9);
    let (mut wal, _) = open(&files).unwrap();
    for index in 1..=300u64 {
        finish(|done| wal.append(vec![entry(1, index, vec![index as u8; 700])], done)).unwrap();
        if index % 10 == 0 {
            finish(|done| wal.purge(1, index - 3, done)).unwrap();
        }
        if index % 7 == 0 {
            files.cut();
            drop(wal);
            files.restore();
            let (again, known) = open(&files).unwrap();
            assert_eq!(known.last, Some((1, index)));
            // What an older log left in the file is not taken for a batch that was torn.
            assert_eq!(known.end.map(|end| end.torn_bytes), Some(0));
            wal = again;
        }
    }
}

/// As of a member that led before it had ever been followed: all but the first membership is replaced.
#[test]
fn a_log_found_again_can_be_truncated_to_its_first_entry() {
    let files = CutFiles::new(12);
    let (wal, _) = open(&files).unwrap();
    finish(|done| wal.append(vec![entry(0, 0, "membership"), entry(2, 1, "blank")], done)).unwrap();
    wal.close();
    let (wal, _) = open(&files).unwrap();
    finish(|done| wal.truncate_after(Some(0), done)).unwrap();
    finish(|done| wal.append(vec![entry(3, 1, "another leader's")], done)).unwrap();
    wal.close();
    let (_, known) = open(&files).unwrap();
    assert_eq!(known.last, Some((3, 1)));
}

/// The second of a torn batch's two frames is whole. A frame of the same size as the first, written where that
/// was, must not make it readable again.
#[test]
fn a_torn_batch_does_not_come_back_behind_new_entries() {
    let files = CutFiles::new(11);
    let (wal, _) = open(&files).unwrap();
    finish(|done| wal.append(vec![entry(1, 1, "one")], done)).unwrap();
    finish(|done| wal.append(vec![entry(1, 2, "two"), entry(1, 3, "three")], done)).unwrap();
    files.halt();
    wal.close();
    files.restore();
    // Header block, start frame, the first entry and its payload of 3 bytes.
    files.flip(&path(1), 4096 + 80 + 40 + 33).unwrap();
    let (wal, known) = open(&files).unwrap();
    assert_eq!(known.last, Some((1, 1)));
    finish(|done| wal.append(vec![entry(1, 2, "TWO")], done)).unwrap();
    wal.close();
    let (wal, known) = open(&files).unwrap();
    assert_eq!(known.last, Some((1, 2)));
    finish(|done| wal.append(vec![entry(1, 3, "THREE")], done)).unwrap();
    assert_eq!(wal.read(3..4, 1).unwrap()[0].payload, "THREE");
}

#[test]
fn the_committed_index_rides_along() {
    let files = CutFiles::new(10);
    let (wal, _) = open(&files).unwrap();
    finish(|done| wal.append(entries(1, 1..=9), done)).unwrap();
    let syncs = wal.stats().fsyncs;
    wal.save_committed(1, 4).unwrap();
    wal.save_committed(1, 50).unwrap();
    assert_eq!(wal.stats().fsyncs, syncs);
    finish(|done| wal.append(entries(1, 10..=10), done)).unwrap();
    wal.save_committed(1, 10).unwrap();
    files.cut();
    drop(wal);
    files.restore();
    let (wal, known) = open(&files).unwrap();
    assert_eq!(known.committed, Some((1, 4)));
    wal.save_committed(1, 7).unwrap();
    wal.close();
    assert_eq!(
        open(&files).unwrap().1.committed,
        Some((1, 7)),
        "a close writes it"
    );
}

/// What the simulator takes for seen: the disk's own word, not the member's.
#[test]
fn a_disk_tells_what_harm_it_did() {
    let files = CutFiles::new(3);
    let (path, other) = (Path::new("/d/a"), Path::new("/d/b"));
    files.create_dir_all(Path::new("/d")).unwrap();
    let file = files.open(path, true).unwrap();
    files.sync_dir(Path::new("/d")).unwrap();
    file.write_all_at(b"kept", 0).unwrap();
    file.sync().unwrap();
    assert_eq!(files.harm(), Harm::default());

    files.limit(Some(4));
    file.write_all_at(b"kept and more", 0).unwrap_err();
    files.limit(None);
    files.fail_sync(1);
    file.sync().unwrap_err();
    let harm = files.harm();
    assert_eq!((harm.refused_writes, harm.failed_syncs, harm.unsynced), (1, 1, 0));

    files.cut_in_sync(2);
    file.sync().unwrap();
    file.write_all_at(b" and not synced", 4).unwrap();
    drop(files.open(other, true).unwrap());
    assert!(file.sync().is_err() && files.is_cut());
    assert_eq!(files.harm().unsynced, 2, "a write and a name");
    files.restore();
    let file = files.open(path, false).unwrap();
    let mut content = [0; 32];
    let len = file.read_at(&mut content, 0).unwrap();
    assert!(content[..len].starts_with(b"kept"));
    let torn = len < b"kept and not synced".len();
    let forgotten = files.open(other, false).is_err();
    assert_eq!(files.harm().lost, u64::from(torn) + u64::from(forgotten));
    // The order is gone with the cut.
    file.sync().unwrap();
}

#[test]
fn a_cut_in_a_sync_now_and_then_loses_something() {
    let lost = (0..20).filter(|seed| {
        let files = CutFiles::new(*seed);
        let (wal, _) = open(&files).unwrap();
        finish(|done| wal.append(entries(1, 1..=3), done)).unwrap();
        files.cut_in_sync(1);
        let (callback, outcome) = done();
        wal.append(entries(1, 4..=9), callback).unwrap();
        assert!(outcome.recv().expect("it is told").is_err(), "it was not synced");
        drop(wal);
        files.restore();
        let (_, known) = open(&files).unwrap();
        let last = known.last.expect("three are synced").1;
        assert!((3..=9).contains(&last));
        files.harm().lost > 0 && last < 9
    });
    assert!((1..20).contains(&lost.count()));
}

/// The segment that is written to.
fn current(files: &CutFiles) -> std::path::PathBuf {
    let written = |path: &std::path::PathBuf| {
        path.extension().is_some_and(|extension| extension == "wal") && files.synced(path).len() > 1
    };
    let paths = files.paths();
    paths.into_iter().rfind(written).expect("a log has a segment")
}

#[test]
fn a_lying_disk_loses_what_it_acknowledged_and_only_that() {
    let files = CutFiles::new(9);
    let (wal, _) = open(&files).unwrap();
    finish(|done| wal.append(entries(1, 1..=3), done)).unwrap();
    files.lie(true);
    finish(|done| wal.append(entries(1, 4..=4), done)).unwrap();
    assert!(files.harm().lies > 0);
    assert_eq!(
        wal.read(1..9, usize::MAX).unwrap().len(),
        4,
        "whoever looks sees it"
    );
    files.lie(false);
    // Before it is closed: the mark would tell.
    files.cut();
    drop(wal);
    files.restore();
    let (_, known) = open(&files).unwrap();
    assert!(matches!(known.last, Some((1, 3 | 4))), "{known:?}");
}

#[test]
fn syncs_are_taken_back_one_by_one() {
    let files = CutFiles::new(10);
    let (wal, _) = open(&files).unwrap();
    for index in 1..=5 {
        finish(|done| wal.append(entries(1, index..=index), done)).unwrap();
    }
    // Before it is closed: the mark would tell.
    files.halt();
    drop(wal);
    assert_eq!(files.take_back(&current(&files), 2), 2);
    files.restore();
    let (_, known) = open(&files).unwrap();
    assert_eq!(known.last, Some((1, 3)));
}

#[test]
fn a_copy_that_is_put_back_is_the_log_of_then() {
    let files = CutFiles::new(11);
    let (wal, _) = open(&files).unwrap();
    finish(|done| wal.append(entries(1, 1..=3), done)).unwrap();
    drop(wal);
    files.halt();
    let copy = files.copy();
    files.restore();
    let (wal, known) = open(&files).unwrap();
    assert_eq!(known.last, Some((1, 3)));
    finish(|done| wal.append(entries(1, 4..=40), done)).unwrap();
    drop(wal);
    files.halt();
    files.put_back(&copy);
    files.cut();
    files.restore();
    let (_, known) = open(&files).unwrap();
    assert_eq!(known.last, Some((1, 3)), "a power cut takes nothing of it");
}

/// Whoever opens the log acknowledges what it finds there, so finding it must make it durable.
#[test]
fn what_was_seen_after_a_kill_is_there_after_a_power_cut() {
    for seed in 0..20 {
        let files = CutFiles::new(seed);
        let (wal, _) = open(&files).unwrap();
        finish(|done| wal.append(entries(1, 1..=3), done)).unwrap();
        files.halt_in_sync(1);
        assert!(finish(|done| wal.append(entries(1, 4..=6), done)).is_err());
        drop(wal);
        files.restore();
        let (wal, found) = open(&files).unwrap();
        drop(wal);
        files.cut();
        files.restore();
        let (_, left) = open(&files).unwrap();
        assert_eq!(left.last, found.last, "seed {seed}");
    }
}
