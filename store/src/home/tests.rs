//! The pointer and the state directories: damaged, missing, left over, and synced in the right order.

use std::os::unix::fs::symlink;

use super::{
    beside::{KEPT_NEW, MOST_KEPT},
    *,
};

fn at(root: &Path) -> Home {
    Home::new(root).unwrap()
}

/// Everything below, with its content.
fn tree(root: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let mut tree = Vec::new();
    for entry in fs::read_dir(root).unwrap() {
        let path = entry.unwrap().path();
        match fs::symlink_metadata(&path).unwrap().is_dir() {
            true => tree.extend(self::tree(&path)),
            false => tree.push((path.clone(), fs::read(&path).unwrap_or_default())),
        }
        tree.push((path, Vec::new()));
    }
    tree.sort();
    tree
}

fn make(root: &Path, name: &str, files: &[&str]) -> PathBuf {
    let dir = root.join(name);
    fs::create_dir(&dir).unwrap();
    for file in files {
        fs::write(dir.join(file), "x").unwrap();
    }
    dir
}

#[test]
fn the_pointer_moves_and_leftovers_go_when_told_to() {
    let root = tempfile::tempdir().unwrap();
    let home = at(root.path());
    assert_eq!(home.current().unwrap(), None);
    let first = home.first().unwrap();
    fs::create_dir(first.path()).unwrap();
    home.make_current(&first).unwrap();
    let incoming = root.path().join("incoming");
    fs::create_dir(&incoming).unwrap();
    let second = home.adopt(&incoming).unwrap();
    assert_eq!(home.current().unwrap(), Some(first.clone()));
    home.make_current(&second).unwrap();
    assert_eq!(home.current().unwrap(), Some(second.clone()));
    assert!(first.path().exists());
    make(root.path(), "scratch-3", &["x"]);
    make(root.path(), "before-state-00000001", &["x"]);
    make(root.path(), "before-state-00000001-2", &["x"]);
    for name in ["not-ours", "before-20261201", "scratch-mine"] {
        make(root.path(), name, &["x"]);
    }
    fs::write(root.path().join("state-00000007"), "a file").unwrap();
    fs::write(root.path().join(POINTER_NEW), "state-000").unwrap();
    home.clear_leftovers(&second).unwrap();
    let mut names = home.names().unwrap();
    names.sort();
    assert_eq!(
        names,
        [
            POINTER,
            "before-20261201",
            "not-ours",
            "scratch-mine",
            "state-00000002",
            "state-00000007"
        ]
        .map(String::from)
    );
}

/// Whatever the pointer is: one line that names it, what was found, and how to go on; and all stays as it was.
#[test]
fn a_pointer_that_leads_nowhere_is_refused_and_nothing_changes() {
    let table = [
        (None, "is missing"),
        (Some(""), "does not name a state directory: \"\""),
        (Some("state-0000"), "does not name a state directory"),
        (Some("state-00000001x\n"), "does not name a state directory"),
        (Some("stbte-00000001\n"), "does not name a state directory"),
        (Some("../state-00000001\n"), "does not name a state directory"),
        (Some("state-00000007\n"), "state-00000007, which is missing"),
        (Some("state-00000003\n"), "state-00000003, which is no directory"),
        (Some("state-00000004\n"), "state-00000004, which is no directory"),
    ];
    for (pointer, expected) in table {
        let root = tempfile::tempdir().unwrap();
        let home = at(root.path());
        make(root.path(), "state-00000001", &["CURRENT", "000012.sst"]);
        make(root.path(), "state-00000002", &["CURRENT", "000012.sst"]);
        fs::write(root.path().join("state-00000003"), "a file").unwrap();
        symlink(
            root.path().join("state-00000001"),
            root.path().join("state-00000004"),
        )
        .unwrap();
        if let Some(pointer) = pointer {
            fs::write(root.path().join(POINTER), pointer).unwrap();
        }
        let before = tree(root.path());
        let error = home
            .current()
            .and_then(|current| match current {
                Some(dir) => Ok(dir),
                None => home.first(),
            })
            .unwrap_err()
            .to_string();
        let pointer_path = root.path().join(POINTER).display().to_string();
        for part in [
            &pointer_path,
            expected,
            "state-00000001, state-00000002, state-00000003",
            "nothing was changed",
            "`echo state-0000000",
        ] {
            assert!(error.contains(part) && !error.contains('\n'), "{part}: {error}");
        }
        assert_eq!(tree(root.path()), before, "{pointer:?}");
    }
}

#[test]
fn the_command_that_it_names_mends_it() {
    let root = tempfile::tempdir().unwrap();
    let home = at(root.path());
    make(root.path(), "state-00000002", &["CURRENT", "000012.sst"]);
    let error = home.first().unwrap_err().to_string();
    let command = error.split('`').nth(1).unwrap();
    let status = std::process::Command::new("sh").args(["-c", command]).status();
    assert!(status.unwrap().success(), "{command}");
    assert_eq!(home.current().unwrap(), Some(home.numbered(2)));
}

#[test]
fn bytes_that_are_no_text_are_shown() {
    let root = tempfile::tempdir().unwrap();
    fs::write(root.path().join(POINTER), [0xff, 0, b'\n', b'x']).unwrap();
    let error = at(root.path()).current().unwrap_err().to_string();
    assert!(
        error.contains("does not name") && error.contains("no state directory") && !error.contains('\n'),
        "{error}"
    );
}

/// What may hold a row is never begun over again; what cannot is.
#[test]
fn a_first_start_that_was_killed_starts_again() {
    let new = [
        "LOCK",
        "LOG",
        "LOG.old.1",
        "IDENTITY",
        "MANIFEST-000001",
        "000001.dbtmp",
        "CURRENT",
        "OPTIONS-000007",
    ];
    for (files, unused) in [
        (&[][..], true),
        (&new[..3], true),
        (&new[..], true),
        (&["000012.sst"], false),
        (&["CURRENT", "000004.log"], false),
        (&["CURRENT", "unknown"], false),
    ] {
        let root = tempfile::tempdir().unwrap();
        let dir = make(root.path(), "state-00000001", files);
        fs::write(dir.join("000004.log.empty"), "").unwrap();
        fs::rename(dir.join("000004.log.empty"), dir.join("000009.log")).unwrap();
        let first = at(root.path()).first();
        assert_eq!(first.is_ok(), unused, "{files:?}: {first:?}");
        if let Ok(first) = first {
            assert_eq!(first.path(), dir);
        }
    }
    let root = tempfile::tempdir().unwrap();
    make(root.path(), "state-00000001.bak", &[]);
    assert!(
        at(root.path()).first().is_err(),
        "a name that is not ours may be a state"
    );
}

#[test]
fn what_was_kept_first_stays() {
    let root = tempfile::tempdir().unwrap();
    let home = at(root.path());
    let dir = home.numbered(1);
    make(root.path(), "state-00000001", &["CURRENT", "LOCK", "000012.sst"]);
    make(root.path(), KEPT_NEW, &["half"]);
    assert!(home.keep(&dir).unwrap().is_some());
    let kept = root.path().join("before-state-00000001");
    assert!(kept.join("000012.sst").exists() && !kept.join("LOCK").exists() && !kept.join("half").exists());
    fs::remove_file(dir.path().join("000012.sst")).unwrap();
    for _ in 1..MOST_KEPT {
        assert!(home.keep(&dir).unwrap().is_some());
    }
    assert!(home.keep(&dir).unwrap().is_none());
    assert!(kept.join("000012.sst").exists());
    assert!(!root.path().join("before-state-00000001-2/000012.sst").exists());
    home.clear_leftovers(&dir).unwrap();
    assert_eq!(home.names().unwrap(), ["state-00000001"]);
    home.keep(&dir).unwrap().unwrap().let_go().unwrap();
    assert!(!kept.exists());
}
