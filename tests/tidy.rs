//! The workspace keeps its own rules: who may use whom, which licences and crates are let in, how files begin.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
    process::Command,
};

use serde_json::Value;

/// Licences that an Apache-2.0 program may be linked with.
const LICENCES: &[&str] = &[
    "0BSD",
    "Apache-2.0",
    "Apache-2.0 WITH LLVM-exception",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "BSL-1.0",
    "CC0-1.0",
    "CDLA-Permissive-2.0",
    "ISC",
    "MIT",
    "MIT-0",
    "MPL-2.0",
    "Unicode-3.0",
    "Unlicense",
    "Zlib",
];

/// Crates that must not come in by any path, and why.
const BANNED: &[(&str, &str)] = &[
    ("aws-lc-sys", "ring is the one cryptography provider"),
    ("openssl-sys", "ring is the one cryptography provider"),
    ("native-tls", "rustls is the one TLS library"),
    ("serde_yaml", "deprecated; serde-saphyr takes its place"),
];

#[test]
fn crates_use_only_whom_they_may() {
    let allowed = allowed_by_architecture();
    let mut faults = Vec::new();
    let mut seen = BTreeSet::new();
    for package in members(&metadata(&["--no-deps"])) {
        let name = text(&package["name"]);
        seen.insert(name.clone());
        let Some(may_use) = allowed.get(&name) else {
            faults.push(format!("{name} has no line in ARCHITECTURE.md's table"));
            continue;
        };
        for dependency in array(&package["dependencies"]) {
            let used = text(&dependency["name"]);
            let in_tests_only = dependency["kind"] == "dev";
            let free = in_tests_only && (used == "barque-chaos" || may_use.contains(&used));
            if used.starts_with("barque") && !free && !may_use.contains(&used) {
                faults.push(format!("{name} may not use {used}"));
            }
        }
    }
    for name in allowed.keys().filter(|name| !seen.contains(*name)) {
        faults.push(format!(
            "ARCHITECTURE.md's table names {name}, which is not in the workspace"
        ));
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

#[test]
fn dependencies_are_let_in_by_licence_and_by_name() {
    let mut faults = Vec::new();
    for package in array(&metadata(&["--filter-platform", "x86_64-unknown-linux-gnu"])["packages"]) {
        let name = text(&package["name"]);
        if let Some((_, why)) = BANNED.iter().find(|(banned, _)| *banned == name) {
            faults.push(format!("{name} is banned: {why}"));
        }
        let expression = package["license"].as_str().unwrap_or("").replace('/', " OR ");
        if !licence_is_allowed(&expression) {
            faults.push(format!("{name}: licence {expression:?} is not on the list"));
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

#[test]
fn every_source_file_says_what_it_is() {
    let mut faults = Vec::new();
    for file in tracked("*.rs") {
        let source = std::fs::read_to_string(&file).expect("a tracked file can be read");
        if !source.trim_start().starts_with("//!") {
            faults.push(format!("{} does not open with `//!`", file.display()));
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

/// An SPDX expression is allowed when one alternative of each `OR` and every part of each `AND` is.
fn licence_is_allowed(expression: &str) -> bool {
    let spaced = expression.replace('(', " ( ").replace(')', " ) ");
    let words: Vec<&str> = spaced.split_whitespace().collect();
    let mut rest = words.as_slice();
    any_of(&mut rest) && rest.is_empty()
}

fn any_of(words: &mut &[&str]) -> bool {
    let mut allowed = all_of(words);
    while take(words, "OR") {
        allowed |= all_of(words);
    }
    allowed
}

fn all_of(words: &mut &[&str]) -> bool {
    let mut allowed = one(words);
    while take(words, "AND") {
        allowed &= one(words);
    }
    allowed
}

fn one(words: &mut &[&str]) -> bool {
    if take(words, "(") {
        let allowed = any_of(words);
        return take(words, ")") && allowed;
    }
    let Some((name, rest)) = words.split_first() else {
        return false;
    };
    *words = rest;
    if let ["WITH", exception, rest @ ..] = *words {
        *words = rest;
        return LICENCES.contains(&format!("{name} WITH {exception}").as_str());
    }
    LICENCES.contains(name)
}

fn take(words: &mut &[&str], word: &str) -> bool {
    let found = words.first() == Some(&word);
    if found {
        *words = &words[1..];
    }
    found
}

#[test]
fn licence_expressions_are_read_as_spdx() {
    for allowed in ["MIT", "GPL-3.0 OR MIT", "(MIT OR Apache-2.0) AND Unicode-3.0"] {
        assert!(licence_is_allowed(allowed), "{allowed}");
    }
    for refused in [
        "",
        "GPL-3.0",
        "MIT AND GPL-3.0",
        "(MIT OR Apache-2.0) AND GPL-3.0",
        "MIT WITH X",
        "(MIT",
    ] {
        assert!(!licence_is_allowed(refused), "{refused}");
    }
}

/// Rows of the first table of ARCHITECTURE.md: crate → crates that it may use.
fn allowed_by_architecture() -> BTreeMap<String, BTreeSet<String>> {
    let page = std::fs::read_to_string(root().join("ARCHITECTURE.md")).expect("ARCHITECTURE.md");
    let rows = page.lines().filter(|line| line.starts_with("| `barque"));
    rows.map(|row| {
        let cells: Vec<&str> = row.trim_matches('|').split('|').collect();
        let [name, _path, _what, may_use] = cells[..] else {
            panic!("not four cells: {row}")
        };
        let quoted = may_use.split('`').skip(1).step_by(2).map(str::to_owned).collect();
        (name.trim().trim_matches('`').to_owned(), quoted)
    })
    .collect()
}

fn metadata(arguments: &[&str]) -> Value {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--format-version", "1", "--locked"])
        .args(arguments)
        .current_dir(root())
        .output()
        .expect("cargo runs");
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    serde_json::from_slice(&output.stdout).expect("cargo metadata prints JSON")
}

fn members(metadata: &Value) -> &[Value] {
    array(&metadata["packages"])
}

fn array(value: &Value) -> &[Value] {
    value.as_array().expect("an array").as_slice()
}

fn text(value: &Value) -> String {
    value.as_str().expect("a string").to_owned()
}

fn tracked(pattern: &str) -> Vec<PathBuf> {
    let output = Command::new("git")
        .args(["ls-files", pattern])
        .current_dir(root())
        .output()
        .expect("git runs");
    let listed = String::from_utf8(output.stdout).expect("paths are UTF-8");
    let files: Vec<PathBuf> = listed
        .lines()
        .map(|line| root().join(line))
        .filter(|file| file.exists())
        .collect();
    assert!(!files.is_empty(), "git lists no {pattern}");
    files
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}
