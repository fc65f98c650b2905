//! Histories that are right pass every check.

use barque_checks::{History, check_all, minimal::minimal};
use proptest::prelude::*;

use super::{assert_right, traffic::Traffic};

proptest! {
    #![proptest_config(ProptestConfig { cases: 150, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn one_key_at_a_time(seed: u64, clients in 1u32..8, keys in 1u64..12) {
        assert_right(&Traffic { seed, clients, keys, tied: false, ..Traffic::default() }.history());
    }

    #[test]
    fn txns_and_ranges_over_several_keys(seed: u64, clients in 1u32..6, keys in 2u64..8) {
        assert_right(&Traffic { seed, clients, keys, ..Traffic::default() }.history());
    }

    #[test]
    fn leases(seed: u64, tied: bool) {
        let traffic = Traffic { seed, tied, leases: true, pause: 200_000, keys: 20, ..Traffic::default() };
        assert_right(&traffic.history());
    }

    #[test]
    fn a_quarter_unknown(seed: u64) {
        let history = Traffic { seed, unknown: 25, keys: 8, tied: false, ..Traffic::default() }.history();
        for check in check_all(&history) {
            prop_assert!(check.passed() || check.name == "the run counts", "{check}");
        }
    }

    /// Without the list of what was committed nothing is found wrong either, though less is looked at.
    #[test]
    fn without_the_list_of_revisions(seed: u64) {
        let history = Traffic { seed, tied: false, ..Traffic::default() }.history();
        let history = History { committed: None, ..history };
        for check in check_all(&history) {
            prop_assert!(!check.failed(), "{check}");
        }
        prop_assert_eq!(minimal(&history), None);
    }

    /// The list may begin where a compaction has left it.
    #[test]
    fn from_a_later_revision_on(seed: u64, leases: bool) {
        let (mut history, store) = Traffic { seed, leases, pause: 100_000, keys: 12, ..Traffic::default() }.history_and_store();
        let whole = history.committed.take().expect("it was listed");
        let after = store.revision / 2;
        let revisions: Vec<_> =
            whole.revisions.into_iter().filter(|listed| listed.revision > after).collect();
        let everything = barque_checks::history::KeySpan::new("\0", "\0");
        for content in [None, Some(store.content(&everything, after))] {
            history.committed = Some(barque_checks::history::Committed { after, content, revisions: revisions.clone() });
            for check in check_all(&history) {
                prop_assert!(!check.failed(), "{check}");
            }
        }
    }
}

#[test]
fn an_empty_history_passes_but_does_not_count() {
    for check in check_all(&History::default()) {
        assert!(!check.failed() || check.name == "the run counts", "{check}");
    }
}

#[test]
fn a_history_survives_json() {
    let history = Traffic {
        leases: true,
        ..Traffic::default()
    }
    .history();
    let text = serde_json::to_string(&history).expect("a history can be written");
    let read: History = serde_json::from_str(&text).expect("and read");
    assert_eq!(read, history);
}

#[test]
fn checks_are_deterministic() {
    let history = Traffic::default().history();
    assert_eq!(check_all(&history), check_all(&history));
}
