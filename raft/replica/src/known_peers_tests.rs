//! Who passes as a known peer, who is refused, and what is remembered across restarts.

use std::fs;

use super::*;

const START: Option<Start> = Some(Start { number: 4, life: 70 });

fn told(incarnation: u64, start: Option<Start>) -> Told<'static> {
    Told {
        incarnation,
        start,
        past: "",
    }
}

fn start(number: u64, life: u64) -> Option<Start> {
    Some(Start { number, life })
}

/// Remembers members 1 to 3.
fn known(dir: &Path) -> KnownPeers {
    if !KnownPeers::path(dir).exists() {
        KnownPeers::create(dir).unwrap();
    }
    let known = KnownPeers::load(dir, true).unwrap().unwrap();
    known.expect([1, 2, 3]);
    known
}

fn ids(ids: &[u64]) -> BTreeSet<u64> {
    ids.iter().copied().collect()
}

fn why(checked: io::Result<Result<(), Refusal>>) -> Option<Why> {
    checked.unwrap().err().map(|refusal| refusal.why)
}

#[test]
fn a_second_incarnation_is_refused_after_a_restart_too() {
    let dir = tempfile::tempdir().unwrap();
    assert_eq!(KnownPeers::load(dir.path(), true).unwrap().map(drop), None);
    let peers = known(dir.path());
    assert_eq!(why(peers.check(1, told(10, None))), None);
    assert_eq!(why(peers.check(1, told(10, START))), None);
    let peers = known(dir.path());
    assert_eq!(why(peers.check(1, told(11, START))), Some(Why::Wiped));
    assert_eq!(why(peers.check(1, told(10, START))), None);
}

#[test]
fn the_membership_wins_over_what_was_seen_first() {
    let dir = tempfile::tempdir().unwrap();
    let peers = known(dir.path());
    assert_eq!(why(peers.check(1, told(10, START))), None);
    peers.bind(1, 0);
    assert_eq!(peers.incarnation_of(1), Some(10));
    peers.bind(1, 11);
    peers.bind(2, 20);
    assert_eq!(
        (peers.incarnation_of(1), peers.incarnation_of(2)),
        (Some(11), Some(20))
    );
    assert_eq!(why(peers.check(1, told(10, START))), Some(Why::Wiped));
    // What was noted of the other directory says nothing of this one.
    assert_eq!(why(peers.check(1, told(11, start(1, 5)))), None);
    assert_eq!(why(peers.check(2, told(21, None))), Some(Why::Wiped));
}

#[test]
fn an_older_copy_of_a_data_directory_is_told_by_its_start() {
    let dir = tempfile::tempdir().unwrap();
    let older = |seen, told| Some(Why::OlderCopy { seen, told });
    // (start, expected), in this order.
    let cases = [
        (start(4, 70), None),
        (start(4, 70), None),
        (start(5, 81), None),
        (start(5, 92), older(5, 5)),
        (start(4, 70), older(5, 4)),
        (start(5, 81), None),
        // A program that does not count them.
        (None, None),
        (start(7, 1), None),
        (start(6, 2), older(7, 6)),
    ];
    for (case, expected) in cases {
        // Each after a restart of this member.
        assert_eq!(
            why(known(dir.path()).check(1, told(10, case))),
            expected,
            "{case:?}"
        );
    }
    let text = known(dir.path())
        .check(1, told(10, start(6, 2)))
        .unwrap()
        .unwrap_err();
    assert!(text.to_string().contains("an older copy of its data"), "{text}");
}

#[test]
fn an_older_copy_is_told_by_its_past_when_it_was_started_unheard() {
    let dir = tempfile::tempdir().unwrap();
    let older = |seen, told| Some(Why::OlderCopy { seen, told });
    let lives = |lives: &[(u64, u64)]| -> String {
        let lives: Vec<Start> = lives
            .iter()
            .map(|(number, life)| Start {
                number: *number,
                life: *life,
            })
            .collect();
        past(&lives)
    };
    // (start, past, expected), in this order.
    let cases = [
        (start(5, 81), lives(&[(4, 70), (5, 81)]), None),
        (start(6, 95), lives(&[(4, 70), (5, 92), (6, 95)]), older(5, 6)),
        (
            start(20, 1),
            lives(&[(4, 70), (5, 92), (6, 95), (20, 1)]),
            older(5, 20),
        ),
        // What went on from there, and was not heard for a while.
        (start(7, 9), lives(&[(5, 81), (6, 3), (7, 9)]), None),
        // Too long ago to be shown.
        (start(90, 2), lives(&[(80, 4), (90, 2)]), None),
        (start(91, 3), "rubbish,,1-".into(), None),
    ];
    for (case, past, expected) in cases {
        let told = Told {
            past: &past,
            ..told(10, case)
        };
        assert_eq!(why(known(dir.path()).check(1, told)), expected, "{case:?}");
    }
}

#[test]
fn who_lost_what_it_had_acknowledged_stays_refused() {
    let dir = tempfile::tempdir().unwrap();
    let peers = known(dir.path());
    assert_eq!(why(peers.check(1, told(10, START))), None);
    let lost = Why::LostEntries {
        acknowledged: 9,
        missing: 7,
    };
    assert_eq!(peers.note_lost(1, 9, 7).unwrap().why, lost);
    // The first time counts.
    assert_eq!(peers.note_lost(1, 20, 8).unwrap().why, lost);
    for peers in [peers, known(dir.path())] {
        assert_eq!(why(peers.check(1, told(10, START))), Some(lost));
        assert_eq!(why(peers.check(1, told(10, start(5, 1)))), Some(lost));
        assert_eq!(why(peers.check(2, told(10, START))), None);
    }
}

#[test]
fn who_has_left_is_refused_after_a_restart_too() {
    let dir = tempfile::tempdir().unwrap();
    let peers = known(dir.path());
    assert_eq!(why(peers.check(1, told(10, START))), None);
    peers
        .note_membership(5, &ids(&[1, 2, 3]), &ids(&[1, 2, 3]))
        .unwrap();
    // Not committed: it may still stay.
    peers.note_membership(5, &ids(&[1, 2, 3]), &ids(&[2, 3])).unwrap();
    assert_eq!(why(peers.check(1, told(10, START))), None);
    peers.note_membership(8, &ids(&[2, 3]), &ids(&[2, 3])).unwrap();
    assert_eq!(why(peers.check(1, told(10, START))), Some(Why::Removed));
    let peers = known(dir.path());
    assert_eq!(why(peers.check(1, told(10, START))), Some(Why::Removed));
    // The log is applied again: what was committed before says nothing new.
    peers.note_membership(3, &ids(&[1, 2]), &ids(&[1, 2])).unwrap();
    assert_eq!(why(peers.check(1, told(10, START))), Some(Why::Removed));
    assert_eq!(why(peers.check(3, told(30, START))), None);
}

#[test]
fn of_a_stranger_nothing_is_remembered() {
    let dir = tempfile::tempdir().unwrap();
    let peers = known(dir.path());
    let before = fs::read(KnownPeers::path(dir.path())).unwrap();
    for stranger in 100..3000 {
        assert_eq!(why(peers.check(stranger, told(stranger, START))), None);
    }
    assert_eq!(fs::read(KnownPeers::path(dir.path())).unwrap(), before);
    assert_eq!(peers.incarnation_of(100), None);
    // Once it is a member it is remembered.
    peers
        .note_membership(4, &ids(&[1, 2, 3]), &ids(&[1, 2, 3, 100]))
        .unwrap();
    assert_eq!(why(peers.check(100, told(7, START))), None);
    assert_eq!(
        why(known(dir.path()).check(100, told(8, START))),
        Some(Why::Wiped)
    );
    // Founders count only as long as there is no membership.
    peers.note_membership(6, &ids(&[100]), &ids(&[100])).unwrap();
    assert_eq!(why(peers.check(2, told(2, START))), Some(Why::Removed));
}

#[test]
fn who_cannot_be_remembered_is_not_known() {
    let dir = tempfile::tempdir().unwrap();
    let peers = known(dir.path());
    fs::remove_dir_all(dir.path()).unwrap();
    assert!(peers.check(1, told(10, START)).is_err());
    assert_eq!(peers.incarnation_of(1), None);
    assert!(peers.check(1, told(10, START)).is_err());
}

#[test]
fn those_that_left_first_are_forgotten_first() {
    let dir = tempfile::tempdir().unwrap();
    let peers = known(dir.path());
    for index in 1..=KNOWN_MAX as u64 + 5 {
        let now = ids(&[1, 1000 + index]);
        peers.note_membership(index, &now, &now).unwrap();
    }
    assert_eq!(peers.notes.lock().peers.len(), KNOWN_MAX);
    let newest = 1000 + KNOWN_MAX as u64;
    assert_eq!(why(peers.check(newest, told(1, START))), Some(Why::Removed));
    assert!(fs::metadata(KnownPeers::path(dir.path())).unwrap().len() < 1 << 20);
}

#[test]
fn a_list_of_format_1_is_taken_over() {
    let dir = tempfile::tempdir().unwrap();
    let list = r#"[{"member_id":"1","incarnation":"a"}]"#;
    fs::write(KnownPeers::path(dir.path()), list).unwrap();
    assert!(KnownPeers::load(dir.path(), false).is_err());
    // Written anew at once: a start that is interrupted must not be its last.
    KnownPeers::load(dir.path(), true).unwrap();
    KnownPeers::load(dir.path(), false).unwrap();
    let peers = known(dir.path());
    assert_eq!(peers.incarnation_of(1), Some(10));
    assert_eq!(why(peers.check(1, told(11, START))), Some(Why::Wiped));
    assert_eq!(why(peers.check(1, told(10, START))), None);
    assert_eq!(
        why(known(dir.path()).check(1, told(10, start(3, 1)))),
        Some(Why::OlderCopy { seen: 4, told: 3 })
    );
}
