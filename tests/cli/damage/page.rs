//! `docs/damage.md` as the tests read it: what is said and what is done stands there, and nowhere else.
//!
//! A line of one of its tables has four cells: a file's name in backticks, what happened to it, what the member does
//! (its first word, and texts in backticks, in which `…` stands for anything), and the commands in backticks.

use std::{fs, path::Path};

/// The first cell of the head of the tables for one member, and of those for several.
pub const ONE: &str = "file";
pub const SEVERAL: &str = "of several";

#[derive(Debug, Clone)]
pub struct Line {
    pub file: String,
    pub damage: String,
    /// `stops`, `starts` or `loses`.
    pub outcome: String,
    pub texts: Vec<String>,
    pub commands: Vec<String>,
}

/// All lines of the tables whose head begins with this cell.
pub fn lines(head: &str) -> Vec<Line> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/damage.md");
    let page = fs::read_to_string(path).expect("docs/damage.md");
    let mut lines = Vec::new();
    let mut in_table = false;
    for row in page.lines() {
        let Some(cells) = cells(row) else {
            in_table = false;
            continue;
        };
        if cells[0] == head {
            in_table = true;
        } else if in_table && !cells[0].starts_with("---") {
            lines.push(line(&cells));
        }
    }
    assert!(!lines.is_empty(), "docs/damage.md has no table of {head:?}");
    lines
}

fn cells(row: &str) -> Option<Vec<&str>> {
    let row = row.strip_prefix('|')?.strip_suffix('|')?;
    Some(row.split('|').map(str::trim).collect())
}

fn line(cells: &[&str]) -> Line {
    let [file, damage, outcome, commands] = cells[..] else {
        panic!("four cells were expected: {cells:?}")
    };
    let word = outcome.split([':', ';', ',', ' ']).next();
    Line {
        file: quoted(file).join(", "),
        damage: damage.to_owned(),
        outcome: word.unwrap_or_default().to_owned(),
        texts: quoted(outcome),
        commands: quoted(commands),
    }
}

/// What stands in backticks, in one or in two of them.
fn quoted(cell: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut rest = cell;
    while let Some(start) = rest.find('`') {
        let fence = if rest[start..].starts_with("``") {
            "``"
        } else {
            "`"
        };
        let inside = &rest[start + fence.len()..];
        let end = inside
            .find(fence)
            .unwrap_or_else(|| panic!("a backtick is open: {cell}"));
        found.push(inside[..end].trim().to_owned());
        rest = &inside[end + fence.len()..];
    }
    found
}

impl Line {
    /// Whether every text is in what was said.
    #[track_caller]
    pub fn check_said(&self, said: &str) {
        for text in &self.texts {
            assert!(says(said, text), "{self:?}\nwas to say: {text}\nbut said: {said}");
        }
    }
}

/// `…` stands for anything.
fn says(said: &str, text: &str) -> bool {
    let mut rest = said;
    text.split('…').all(|part| match rest.find(part) {
        Some(at) => {
            rest = &rest[at + part.len()..];
            true
        }
        None => false,
    })
}

#[test]
fn texts_and_commands_are_found_in_a_line() {
    let row = "| `a/b` | cut | stops: ``x `y` …z``, `w` | `rm $dir/a`, then `cp a b` |";
    let line = line(&cells(row).unwrap());
    assert_eq!((line.file.as_str(), line.outcome.as_str()), ("a/b", "stops"));
    assert_eq!(line.texts, ["x `y` …z", "w"]);
    assert_eq!(line.commands, ["rm $dir/a", "cp a b"]);
    assert!(says("so x `y` and z", &line.texts[0]) && !says("z x", &line.texts[0]));
}
