//! RocksDB's errors in one line each, which names the file.

use std::path::Path;

use rocksdb::{Error, ErrorKind};

use crate::{StoreError, error::IN_USE};

pub(super) fn engine_error(error: Error) -> StoreError {
    match error.kind() {
        // It says which file, and where in it.
        ErrorKind::Corruption => damaged(one_line(&error)),
        _ => StoreError::Engine(one_line(&error)),
    }
}

/// Of a database that should be whole: a file that is missing is damage as well, one that cannot be opened for lack of
/// descriptors or rights is not.
pub(super) fn unreadable(dir: &Path, error: &Error) -> StoreError {
    let text = format!("{}: {}", dir.display(), without_blame(&one_line(error)));
    let is_missing = text.contains("No such file or directory");
    let is_damaged = matches!(error.kind(), ErrorKind::Corruption | ErrorKind::InvalidArgument);
    match is_damaged || is_missing {
        true => damaged(text),
        false => StoreError::Engine(text),
    }
}

/// The same for who knows the files by another directory.
pub(super) fn named_in(error: StoreError, links: &Path, dir: &Path) -> StoreError {
    let (links, dir) = (links.display().to_string(), dir.display().to_string());
    match error {
        StoreError::Corrupt { what, detail } => StoreError::Corrupt {
            what,
            detail: detail.replace(&links, &dir),
        },
        other => other,
    }
}

/// `is_whole`: so its manifest was found.
pub(super) fn cannot_open(dir: &Path, error: &Error, is_whole: bool) -> StoreError {
    let text = match is_whole {
        true => without_blame(&one_line(error)),
        false => one_line(error),
    };
    if text.contains("lock") && text.contains("LOCK") {
        return StoreError::DataDir(format!("{} {IN_USE}", dir.display()));
    }
    StoreError::DataDir(format!("cannot open {}: {text}", dir.display()))
}

fn damaged(detail: String) -> StoreError {
    StoreError::Corrupt {
        what: "database",
        detail,
    }
}

/// Whatever it finds in a table file while it opens a database, RocksDB adds that the manifest may be corrupted. Here
/// that was read before, and is whole.
fn without_blame(text: &str) -> String {
    match text.split_once("The file ") {
        Some((found, blamed)) if blamed.contains("MANIFEST-") && blamed.ends_with("may be corrupted.") => {
            let found = found.trim_end();
            match found.contains(".sst") {
                true => found.to_owned(),
                false => format!("{found}; its manifest is whole, so one of its table files is damaged"),
            }
        }
        _ => text.to_owned(),
    }
}

fn one_line(error: &Error) -> String {
    error.to_string().replace('\n', " ")
}
