//! What `docs/damage.md` says of damaged files, line by line: on real members, with the commands that stand there.

mod lines;
mod member;
mod page;
mod several;

use std::{
    collections::BTreeSet,
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
};

use self::{
    lines::{CASES, Case, Ground},
    member::{Flags, check_unchanged, copy, free_url, tree},
    page::Line,
};
use crate::program::{shell, success, text};

/// Lines that are rehearsed at a time: a start waits for disks and elections for the most part.
const AT_A_TIME: usize = 4;

/// Runs the commands of a line, one after the other.
#[track_caller]
pub fn repair(line: &Line, variables: &[(&str, &str)]) {
    let program = Path::new(env!("CARGO_BIN_EXE_barque")).parent().unwrap();
    let mut script = format!("set -eu; export ETCDCTL_API=3 PATH={}:$PATH; ", text(program));
    for (name, value) in variables {
        script += &format!("export {name}='{value}'; ");
    }
    for command in &line.commands {
        script += &format!("{command}; ");
    }
    success(&shell(&script));
}

#[test]
fn the_page_and_the_rehearsals_have_the_same_lines() {
    let written: Vec<_> = page::lines(page::ONE)
        .into_iter()
        .map(|line| (line.file, line.damage))
        .collect();
    let rehearsed: Vec<_> = CASES
        .iter()
        .map(|(file, damage, _)| (file.to_string(), damage.to_string()))
        .collect();
    let set = |lines: &[(String, String)]| lines.iter().cloned().collect::<BTreeSet<_>>();
    let (written_set, rehearsed_set) = (set(&written), set(&rehearsed));
    let missing: Vec<_> = written_set.symmetric_difference(&rehearsed_set).collect();
    assert!(
        missing.is_empty(),
        "in docs/damage.md or in the rehearsals alone: {missing:?}"
    );
    assert_eq!(written.len(), written_set.len(), "a line stands there twice");
}

/// One member's directory, twice: before the last start and after it.
struct Prepared {
    home: tempfile::TempDir,
    /// All keys, at both times.
    older_keys: String,
    keys: String,
}

impl Prepared {
    fn new() -> Prepared {
        let home = tempfile::tempdir().unwrap();
        let dir = home.path().join("whole");
        let flags = Flags::alone(&dir);
        let member = flags.start();
        member.keys();
        member.put(1..16);
        let older_keys = member.keys();
        assert_eq!(member.stop(), Some(0));
        copy(&dir, &home.path().join("older"));
        let member = flags.start();
        member.keys();
        // Some of them again, for history.
        member.put(1..8);
        member.put(16..130);
        let keys = member.keys();
        assert_eq!(member.stop(), Some(0));
        Prepared {
            home,
            older_keys,
            keys,
        }
    }

    fn dir(&self, name: &str) -> PathBuf {
        self.home.path().join(name)
    }
}

#[test]
fn every_line_about_one_member_is_rehearsed() {
    let prepared = Prepared::new();
    let page = page::lines(page::ONE);
    let (next, failed) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    let rehearse_all = || {
        while let Some(case) = CASES.get(next.fetch_add(1, Ordering::Relaxed)) {
            let (file, damage, _) = case;
            let of_it = page
                .iter()
                .find(|line| line.file == *file && line.damage == *damage);
            // One that fails does not hide the others.
            let rehearsed = catch_unwind(AssertUnwindSafe(|| {
                rehearse(&prepared, case, of_it.expect("a line of docs/damage.md"));
            }));
            if rehearsed.is_err() {
                failed.lock().unwrap().push(format!("{file}: {damage}"));
            }
        }
    };
    thread::scope(|scope| {
        for _ in 0..AT_A_TIME {
            scope.spawn(rehearse_all);
        }
    });
    let failed = failed.into_inner().unwrap();
    assert!(failed.is_empty(), "{}", failed.join("\n"));
}

fn rehearse(prepared: &Prepared, (file, damage, bring_about): &Case, line: &Line) {
    let home = tempfile::tempdir_in(prepared.home.path()).unwrap();
    let (dir, whole) = (home.path().join("data"), prepared.dir("whole"));
    copy(&whole, &dir);
    let ground = Ground {
        dir: dir.clone(),
        older: prepared.dir("older"),
    };
    bring_about(&ground, file);
    let flags = Flags::alone(&dir);
    let keys = match damage.contains("never purged") {
        true => &prepared.older_keys,
        false => &prepared.keys,
    };
    match line.outcome.as_str() {
        "stops" => check_refused(&flags, line),
        outcome => check_accepted(&flags, line, |found| (found == keys) == (outcome == "starts")),
    }
    if line.commands.is_empty() {
        return;
    }
    repair(line, &[("dir", text(&dir)), ("copy", text(&whole))]);
    let member = flags.start();
    assert_eq!(&member.keys(), keys, "{line:?}\n{}", member.said());
    member.kill();
}

fn check_refused(flags: &Flags, line: &Line) {
    let before = tree(&flags.dir);
    let (code, said) = flags.refused();
    line.check_said(&said);
    assert_eq!(code, Some(1), "{line:?}\n{said}");
    check_unchanged(&before, &flags.dir, &line.file);
}

fn check_accepted(flags: &Flags, line: &Line, is_expected: impl Fn(&String) -> bool) {
    let member = flags.start();
    let keys = member.keys();
    // Of history nothing is read at a start.
    flags.etcdctl("get --prefix k --rev=10");
    for text in &line.texts {
        member.wait_for(start_of(text));
    }
    let said = member.said();
    line.check_said(&said);
    assert!(is_expected(&keys), "{line:?}\n{keys}\n{said}");
    assert!(!said.contains("panicked"), "{line:?}\n{said}");
    member.kill();
}

/// Up to where it stands for anything.
fn start_of(text: &str) -> &str {
    text.split('…').find(|part| !part.is_empty()).unwrap_or(text)
}

#[test]
fn a_second_process_is_kept_out() {
    let line = page::lines(page::SEVERAL)
        .into_iter()
        .find(|line| line.damage == "a second process is started on it");
    let line = line.expect("a line about a second process");
    let home = tempfile::tempdir().unwrap();
    let flags = Flags::alone(&home.path().join("data"));
    let member = flags.start();
    member.keys();
    let second = Flags {
        client: free_url(),
        ..flags.clone()
    };
    let (code, said) = second.refused();
    line.check_said(&said);
    assert_eq!(code, Some(1));
    assert_eq!(member.stop(), Some(0));
}
