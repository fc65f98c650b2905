//! The report shows what there is and lets nothing out of its place.

use barque_checks::{
    History, check_all,
    history::{Answer, Outcome, Request, WatchKind},
    report::{html, markdown},
};

use super::{handmade::Handmade, traffic::Traffic};

const COMMAND: &str = "chaos sim --seed 1 # <again>";

fn failing() -> History {
    let mut made = Handmade::new();
    made.run(1, 0, Request::put("<key>", "1/1"));
    made.unknown(2, 5, Request::put("<key>", "2/1"));
    let nothing = Answer::Range {
        kvs: Vec::new(),
        count: 0,
        more: false,
    };
    made.claim(3, 20, Request::get("<key>"), nothing);
    let mut history = made.history();
    history.description = "three members & <script>alert(1)</script>".to_owned();
    history
}

#[test]
fn a_failure_is_shown_with_its_operations() {
    let history = failing();
    let checks = check_all(&history);
    let page = html(&history, &checks, COMMAND);
    for shown in [
        "failed",
        "client 3",
        "put &lt;key&gt;=1/1",
        "chaos sim --seed 1 # &lt;again&gt;",
        "<svg",
    ] {
        assert!(page.contains(shown), "{shown} is not in the page");
    }
    assert!(!page.contains("<script") && !page.contains("<key>"));
    let text = markdown(&history, &checks, COMMAND);
    for shown in [
        "# Run 0: failed",
        "    chaos sim --seed 1 # <again>",
        "put \\<key\\>=1/1",
    ] {
        assert!(text.contains(shown), "{shown} is not in the text");
    }
}

/// The first watch was told nothing of the first event that it should have been told of.
#[test]
fn what_a_watch_was_told_is_shown_beside_what_was_committed() {
    let mut history = Traffic::default().history();
    let is_told = |kind: &WatchKind| matches!(kind, WatchKind::Events { .. });
    let watch = history
        .watches
        .iter_mut()
        .find(|watch| watch.responses.iter().filter(|told| is_told(&told.kind)).count() > 2)
        .expect("a watch with events");
    let first = watch.responses.iter().position(|told| is_told(&told.kind));
    watch.responses.remove(first.expect("one of these"));
    let checks = check_all(&history);
    let heading = "What was told and what was committed (watches)";
    assert!(html(&history, &checks, COMMAND).contains(heading));
    let text = markdown(&history, &checks, COMMAND);
    assert!(text.contains(heading) && text.contains("| revision | committed | told | told at (µs) |"));
}

#[test]
fn a_right_run_is_told_in_full() {
    let history = Traffic {
        leases: true,
        ..Traffic::default()
    }
    .history();
    let checks = check_all(&history);
    let page = html(&history, &checks, COMMAND);
    for check in &checks {
        assert!(page.contains(&check.name));
    }
    assert!(page.contains("exited by signal 9") && page.contains("class=\"passed\">passed"));
    assert_eq!(page.matches("<svg").count(), page.matches("</svg>").count());
    assert!(!page.contains("http"), "nothing to load");
    assert_eq!(page, html(&history, &checks, COMMAND));
}

#[test]
fn what_is_not_known_is_not_passed() {
    let history = History {
        committed: None,
        ..Traffic::default().history()
    };
    let page = html(&history, &check_all(&history), COMMAND);
    assert!(page.contains("class=\"undecided\">undecided"));
}

#[test]
fn an_outcome_that_is_not_known_is_drawn_to_the_edge() {
    let mut history = failing();
    history.operations[0].outcome = Outcome::Unknown("<lost>".to_owned());
    let checks = vec![barque_checks::Check {
        name: "made up".to_owned(),
        verdict: barque_checks::Verdict::Failed,
        checked: 1,
        violations: vec![barque_checks::Violation {
            operations: vec![0, 1, 2],
            ..Default::default()
        }],
        more_violations: 0,
    }];
    let page = html(&history, &checks, COMMAND);
    assert!(page.contains("stroke-dasharray") && page.contains("&lt;lost&gt;"));
}
