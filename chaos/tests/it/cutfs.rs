//! The file system that loses power: ordinary programs run on it, and exactly what was synced survives.

use std::{
    collections::BTreeSet,
    fs::{self, File, OpenOptions},
    io::{ErrorKind, Read, Seek, SeekFrom, Write},
    os::unix::fs::{FileExt, MetadataExt},
    path::Path,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use barque_chaos::cutfs::{CutFs, Step};
use tempfile::TempDir;

use crate::seed;

const EIO: i32 = 5;

fn mounted(seed: u64) -> (TempDir, CutFs) {
    let dir = tempfile::tempdir().unwrap();
    let fs = CutFs::mount(dir.path(), seed).unwrap();
    (dir, fs)
}

fn names(dir: &Path) -> BTreeSet<String> {
    let name = |entry: std::io::Result<fs::DirEntry>| entry.unwrap().file_name().into_string().unwrap();
    fs::read_dir(dir).unwrap().map(name).collect()
}

fn synced(path: &Path, bytes: &[u8]) {
    let mut file = File::create(path).unwrap();
    file.write_all(bytes).unwrap();
    file.sync_all().unwrap();
}

fn sync_dir(path: &Path) {
    File::open(path).unwrap().sync_all().unwrap();
}

#[test]
fn files_behave_like_files() {
    let (dir, fs) = mounted(seed());
    let root = dir.path();
    fs::create_dir_all(root.join("a/b")).unwrap();
    let path = root.join("a/b/file");
    let data: Vec<u8> = (0..3_000_000u32).map(|number| (number / 7) as u8).collect();
    fs::write(&path, &data).unwrap();
    assert_eq!(fs::read(&path).unwrap(), data);
    assert!(fs.used() >= 3_000_000);

    let mut file = OpenOptions::new().read(true).write(true).open(&path).unwrap();
    file.write_all_at(b"middle", 4093).unwrap();
    file.seek(SeekFrom::Start(4090)).unwrap();
    let mut read = [0u8; 12];
    file.read_exact(&mut read).unwrap();
    assert_eq!(&read[3..9], b"middle");
    file.set_len(5000).unwrap();
    file.set_len(10_000).unwrap();
    assert!(fs::read(&path).unwrap()[5000..].iter().all(|byte| *byte == 0));
    nix::fcntl::fallocate(&file, nix::fcntl::FallocateFlags::FALLOC_FL_KEEP_SIZE, 0, 1 << 20).unwrap();
    assert_eq!(file.metadata().unwrap().len(), 10_000);
    nix::fcntl::fallocate(&file, nix::fcntl::FallocateFlags::empty(), 0, 20_000).unwrap();
    assert_eq!(file.metadata().unwrap().len(), 20_000);

    fs::hard_link(&path, root.join("hard")).unwrap();
    assert_eq!(fs::metadata(root.join("hard")).unwrap().nlink(), 2);
    std::os::unix::fs::symlink("hard", root.join("soft")).unwrap();
    assert_eq!(fs::metadata(root.join("soft")).unwrap().len(), 20_000);
    fs::write(root.join("other"), "other").unwrap();
    fs::rename(root.join("other"), &path).unwrap();
    assert_eq!(fs::read(&path).unwrap(), b"other");
    assert_eq!(fs::metadata(root.join("hard")).unwrap().nlink(), 1);
    assert_eq!(
        fs::remove_dir(root.join("a")).unwrap_err().kind(),
        ErrorKind::DirectoryNotEmpty
    );
    assert_eq!(
        File::create_new(&path).unwrap_err().kind(),
        ErrorKind::AlreadyExists
    );
    fs::remove_file(root.join("hard")).unwrap();
    assert_eq!(
        file.metadata().unwrap().len(),
        20_000,
        "an unlinked file lives while it is open"
    );
    fs::remove_dir_all(root.join("a")).unwrap();
    assert_eq!(names(root), BTreeSet::from(["soft".to_owned()]));

    for number in 0..1500 {
        fs::write(root.join(format!("{number:05}")), "").unwrap();
    }
    assert_eq!(names(root).len(), 1501);
}

#[test]
fn locks_keep_a_second_process_out() {
    let (dir, _fs) = mounted(seed());
    let path = dir.path().join("LOCK");
    let file = File::create(&path).unwrap();
    let lock = nix::fcntl::Flock::lock(file, nix::fcntl::FlockArg::LockExclusiveNonblock).unwrap();
    let second = || {
        Command::new("flock")
            .arg("-n")
            .arg(&path)
            .arg("true")
            .status()
            .unwrap()
            .success()
    };
    assert!(!second());
    drop(lock);
    assert!(second());
}

#[test]
fn several_processes_write_at_once() {
    let (dir, fs) = mounted(seed());
    let children: Vec<_> = (0..4)
        .map(|number| {
            Command::new("dd")
                .arg("if=/dev/urandom")
                .arg(format!("of={}", dir.path().join(number.to_string()).display()))
                .args(["bs=64k", "count=64", "conv=fsync"])
                .stderr(Stdio::null())
                .spawn()
                .unwrap()
        })
        .collect();
    for mut child in children {
        assert!(child.wait().unwrap().success());
    }
    let before: Vec<_> = (0..4)
        .map(|number| fs::read(dir.path().join(number.to_string())).unwrap())
        .collect();
    assert!(before.iter().all(|bytes| bytes.len() == 4 << 20));
    sync_dir(dir.path());
    fs.cut();
    fs.restore();
    for (number, bytes) in before.iter().enumerate() {
        assert_eq!(fs::read(dir.path().join(number.to_string())).unwrap(), *bytes);
    }
}

/// Every kind of state at once, cut many times: each survives as far as it was synced, and no further than it may.
#[test]
fn what_was_synced_survives() {
    let (dir, fs) = mounted(seed());
    let root = dir.path();
    let (mut appeared, mut renamed, mut lost) = (0, 0, 0);
    for round in 0..60 {
        let here = root.join(format!("round{round}"));
        fs::create_dir(&here).unwrap();
        sync_dir(root);
        synced(&here.join("synced"), &[1; 5000]);
        synced(&here.join("old"), &[2; 100]);
        synced(&here.join("gone"), b"gone");
        sync_dir(&here);
        fs::remove_file(here.join("gone")).unwrap();
        fs::hard_link(here.join("synced"), here.join("linked")).unwrap();
        sync_dir(&here);
        // From here on nothing is synced.
        fs::write(here.join("unsynced"), [3; 5000]).unwrap();
        fs::rename(here.join("old"), here.join("new")).unwrap();
        OpenOptions::new()
            .append(true)
            .open(here.join("synced"))
            .unwrap()
            .write_all(&[4; 5000])
            .unwrap();
        let open = File::open(here.join("synced")).unwrap();

        fs.cut();
        assert!(fs.is_cut());
        assert_eq!(
            fs::read(here.join("synced")).unwrap_err().raw_os_error(),
            Some(EIO)
        );
        assert_eq!(
            fs::write(here.join("x"), "").unwrap_err().raw_os_error(),
            Some(EIO)
        );
        fs.restore();
        assert_eq!(
            open.read_at(&mut [0], 0).unwrap_err().raw_os_error(),
            Some(EIO),
            "an old handle stays dead"
        );

        let names = names(&here);
        assert!(!names.contains("gone"), "{names:?}");
        assert!(names.contains("synced") && names.contains("linked"), "{names:?}");
        assert_eq!(names.contains("old"), !names.contains("new"), "{names:?}");
        let which = if names.contains("new") { "new" } else { "old" };
        assert_eq!(fs::read(here.join(which)).unwrap(), [2; 100]);
        let kept = fs::read(here.join("synced")).unwrap();
        assert_eq!(kept, fs::read(here.join("linked")).unwrap());
        assert_eq!(kept[..5000], [1; 5000]);
        assert!(kept.len() == 5000 || kept.len() == 10_000);
        assert!(kept[5000..].iter().all(|byte| [0, 4].contains(byte)));
        if names.contains("unsynced") {
            let bytes = fs::read(here.join("unsynced")).unwrap();
            assert!(bytes.is_empty() || bytes.len() == 5000);
            assert!(bytes.iter().all(|byte| [0, 3].contains(byte)));
            lost += u32::from(bytes.contains(&0) || bytes.is_empty());
            appeared += 1;
        }
        renamed += u32::from(names.contains("new"));
    }
    assert_eq!(fs.stats().cuts, 60);
    assert!(
        (1..60).contains(&appeared),
        "an unsynced name appeared {appeared} times"
    );
    assert!(
        (1..60).contains(&renamed),
        "an unsynced rename survived {renamed} times"
    );
    assert!(
        (1..=appeared).contains(&lost),
        "unsynced bytes were lost {lost} times"
    );
}

#[test]
fn a_cut_comes_where_it_was_ordered() {
    let (dir, fs) = mounted(seed());
    fs.cut_at(Step::Fsync, "", 3);
    let mut done = 0;
    let failed = loop {
        let file = File::create(dir.path().join(done.to_string())).unwrap();
        match file.sync_all() {
            Ok(()) => done += 1,
            Err(error) => break error,
        }
    };
    assert_eq!((done, failed.raw_os_error()), (2, Some(EIO)));
    assert!(fs.wait_cut(Duration::ZERO));
    fs.restore();
    assert!(!fs.wait_cut(Duration::ZERO));
    assert!(names(dir.path()).is_superset(&BTreeSet::from(["0".to_owned(), "1".to_owned()])));
    fs.cut_at(Step::Rename, "/state/", 2);
    assert!(fs.cancel_cut());
    fs.cut_at(Step::Rename, "/state/", 2);
    fs::create_dir(dir.path().join("state")).unwrap();
    fs::rename(dir.path().join("0"), dir.path().join("state/0")).unwrap();
    fs::rename(dir.path().join("1"), dir.path().join("other")).unwrap();
    assert!(fs::rename(dir.path().join("other"), dir.path().join("state/1")).is_err());
    assert!(fs.is_cut() && !fs.cancel_cut());
}

#[test]
fn a_full_and_a_failing_disk() {
    let (dir, fs) = mounted(seed());
    let path = dir.path().join("file");
    let file = File::create(&path).unwrap();
    file.write_all_at(&[1; 4096], 0).unwrap();
    file.sync_all().unwrap();
    fs.fill(Some(12 << 10));
    let error = (1..9)
        .find_map(|block| file.write_all_at(&[1; 4096], block * 4096).err())
        .unwrap();
    assert_eq!(error.kind(), ErrorKind::StorageFull);
    assert_eq!(fs.used(), 12 << 10);
    fs.fill(None);
    file.write_all_at(&[1; 4096], 12 << 10).unwrap();
    file.sync_all().unwrap();

    fs.slow(Duration::from_millis(20));
    let start = Instant::now();
    file.sync_all().unwrap();
    assert!(start.elapsed() >= Duration::from_millis(20));
}

#[test]
fn a_failed_fsync_is_not_made_good_by_the_next() {
    let (dir, fs) = mounted(seed());
    let path = dir.path().join("file");
    synced(&path, &[0; 4096]);
    let mut lost = 0;
    for round in 1..=20u8 {
        let before = fs::read(&path).unwrap();
        let file = OpenOptions::new().write(true).open(&path).unwrap();
        file.write_all_at(&[round; 4096], 0).unwrap();
        fs.fail_fsync(1);
        assert_eq!(file.sync_all().unwrap_err().raw_os_error(), Some(EIO));
        file.sync_all().unwrap();
        assert_eq!(fs::read(&path).unwrap(), [round; 4096], "it is seen");
        fs.cut();
        fs.restore();
        // The block may have reached the medium before the fsync.
        lost += u32::from(fs::read(&path).unwrap() == before);
    }
    assert!(lost > 10, "lost {lost} times of 20");
}

#[test]
fn dropping_it_unmounts_even_what_is_in_use() {
    let (dir, fs) = mounted(seed());
    let path = dir.path().canonicalize().unwrap();
    let is_mounted = || {
        fs::read_to_string("/proc/self/mounts")
            .unwrap()
            .contains(path.to_str().unwrap())
    };
    let file = File::create(path.join("open")).unwrap();
    assert!(is_mounted());
    drop(fs);
    assert!(!is_mounted());
    assert!(file.write_at(b"x", 0).is_err());
    assert!(names(&path).is_empty());
}
