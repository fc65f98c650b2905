//! What one watch was told beside what was committed of that, near the revision where they part: [`Told`].

use std::collections::BTreeMap;

use crate::{
    history::{History, Revision, WatchEvent, WatchKind, WatchRecord},
    verdict::Violation,
};

/// Revisions shown on either side of the one that the violation names.
const AROUND: usize = 8;

pub(super) const HEAD: [&str; 4] = ["#revision", "committed", "told", "told at (µs)"];

pub(super) struct Told {
    /// What it asked for, and of whom.
    pub watch: String,
    /// By [`HEAD`].
    pub rows: Vec<Vec<String>>,
}

#[derive(Default)]
struct Row {
    committed: Vec<String>,
    told: Vec<String>,
    at: Vec<String>,
}

/// `None`: the violation is not about a watch of this history.
pub(super) fn told(history: &History, violation: &Violation) -> Option<Told> {
    let id = violation.watch?;
    let watch = history.watches.iter().find(|watch| watch.id == id)?;
    let rows = rows(history, watch, violation.revision);
    let near = near(&rows, violation.revision);
    let shown = rows.into_iter().filter(|(revision, _)| near.contains(revision));
    Some(Told {
        watch: describe(watch),
        rows: shown.map(|(revision, row)| row.cells(revision)).collect(),
    })
}

impl Row {
    fn cells(self, revision: Revision) -> Vec<String> {
        vec![
            revision.to_string(),
            self.committed.join("; "),
            self.told.join("; "),
            self.at.join(", "),
        ]
    }
}

fn rows(history: &History, watch: &WatchRecord, named: Option<Revision>) -> BTreeMap<Revision, Row> {
    let mut rows: BTreeMap<Revision, Row> = BTreeMap::new();
    if let Some(named) = named {
        rows.entry(named).or_default();
    }
    for event in committed(history).filter(|event| watch.wants(event)) {
        let row = rows.entry(event.revision).or_default();
        row.committed.push(event.to_string());
    }
    for response in &watch.responses {
        let WatchKind::Events { events, .. } = &response.kind else {
            continue;
        };
        for event in events {
            let row = rows.entry(event.revision).or_default();
            row.told.push(event.to_string());
            row.at.push(response.time.to_string());
        }
    }
    rows
}

fn committed(history: &History) -> impl Iterator<Item = &WatchEvent> {
    let revisions = history
        .committed
        .iter()
        .flat_map(|committed| &committed.revisions);
    revisions.flat_map(|revision| &revision.events)
}

/// Those around the named one, or the last.
fn near(rows: &BTreeMap<Revision, Row>, named: Option<Revision>) -> Vec<Revision> {
    let named = named.unwrap_or(Revision::MAX);
    let before = rows.range(..named).rev().take(AROUND);
    let after = rows.range(named..).take(AROUND + 1);
    before.chain(after).map(|(revision, _)| *revision).collect()
}

fn describe(watch: &WatchRecord) -> String {
    let WatchRecord {
        id, client, member, ..
    } = watch;
    let started = match watch.start_revision {
        0 => "its creation".to_owned(),
        revision => format!("revision {revision}"),
    };
    format!(
        "watch {id} of client {client} at member {member}: {} from {started} on",
        watch.span()
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::history::{Committed, WatchResponse};

    /// A watch on one key that was told of every second of its 40 deletes.
    fn history() -> History {
        let deletes = |key: &str| -> Vec<WatchEvent> {
            (2..42)
                .map(|revision| WatchEvent::delete(key, revision))
                .collect()
        };
        let told = deletes("k").into_iter().step_by(2).map(|event| WatchResponse {
            time: 1_000,
            header_revision: event.revision,
            kind: WatchKind::Events {
                events: vec![event],
                fragment: false,
            },
        });
        let watch = WatchRecord {
            id: 7,
            from: "k".into(),
            responses: told.collect(),
            ..WatchRecord::default()
        };
        History {
            watches: vec![watch],
            committed: Some(Committed::from_events(1, Some(Vec::new()), deletes("k"))),
            ..History::default()
        }
    }

    #[test]
    fn what_was_told_stands_beside_what_was_committed() {
        let violation = |watch, revision| {
            let mut violation = Violation::new("missing").watched(watch);
            violation.revision = revision;
            violation
        };
        let history = history();
        let told = |watch, revision| told(&history, &violation(watch, revision));
        let near = told(7, Some(21)).unwrap().rows;
        let revisions: Vec<&str> = near.iter().map(|row| row[0].as_str()).collect();
        assert_eq!((revisions[0], revisions[16], revisions.len()), ("13", "29", 17));
        assert!(near[8][1].contains("k") && near[8][2].is_empty(), "{:?}", near[8]);
        assert!(near[9][2] == near[9][1] && near[9][3] == "1000", "{:?}", near[9]);
        let last = told(7, None).unwrap().rows;
        assert_eq!((last.len(), last[7][0].as_str()), (AROUND, "41"));
        assert!(told(8, None).is_none());
    }
}
