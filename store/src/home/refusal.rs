//! What is said, and left as it is, when the pointer leads to no state.
//!
//! A pointer is 15 bytes, a state may be all that there is of the data: so long as anything is there that may be one,
//! no empty state is begun beside it, and nothing is removed.

use std::{fs, io};

use super::{Home, PREFIX, failed, name_of, number_of};
use crate::StoreError;

/// Of a damaged pointer no more than this is repeated.
pub(super) const SHOWN_CHARS: usize = 40;
/// Of a crowd of directories no more than this are named.
const NAMED_DIRS: usize = 8;
/// How names begin that RocksDB gives to files without data, in a database that was just made. Everything else is
/// taken for data: above all table files, the only ones in which a database without a log of its own keeps rows.
const WITHOUT_DATA: [&str; 6] = ["CURRENT", "IDENTITY", "LOCK", "LOG", "MANIFEST-", "OPTIONS-"];

impl Home {
    /// Of everything here that is called a state, the names in order.
    pub(super) fn found(&self) -> Result<Vec<String>, StoreError> {
        let mut names = self.names()?;
        names.retain(|name| name.starts_with(PREFIX));
        names.sort();
        Ok(names)
    }

    /// One line: the file, what is there, and the command that mends it.
    pub(super) fn refuse(&self, what: &str) -> StoreError {
        let pointer = self.pointer();
        let found = match self.found() {
            Ok(found) => found,
            Err(error) => return error,
        };
        let is_dir = |name: &&String| self.root.join(name).is_dir();
        let highest = found
            .iter()
            .rfind(|name| number_of(name).is_some() && is_dir(name));
        let mend = match highest {
            Some(name) => format!(
                "if it is the state of this member, `echo {name} > {}` makes it current again",
                pointer.display()
            ),
            None => "restore the state directory".to_owned(),
        };
        StoreError::DataDir(format!(
            "{} {what}; found: {}; nothing was changed: {mend}",
            pointer.display(),
            listed(&found)
        ))
    }

    /// Nothing in this directory holds a row. What a start leaves that was killed before the first pointer was written
    /// is of this kind, as rows are written only after that; so is a state that was never flushed, of which the log has
    /// everything.
    pub(super) fn is_unused(&self, number: u64) -> Result<bool, StoreError> {
        let dir = self.root.join(name_of(number));
        let look = || -> io::Result<bool> {
            if !fs::symlink_metadata(&dir)?.is_dir() {
                return Ok(false);
            }
            for entry in fs::read_dir(&dir)? {
                let entry = entry?;
                let metadata = entry.metadata()?;
                let name = entry.file_name();
                if !metadata.is_file() || !is_without_data(&name.to_string_lossy(), metadata.len()) {
                    return Ok(false);
                }
            }
            Ok(true)
        };
        look().map_err(|error| failed("look into", &dir, &error))
    }
}

/// An empty file is one that was being made, or the log that is never written.
fn is_without_data(name: &str, len: u64) -> bool {
    let is_small_file = WITHOUT_DATA.iter().any(|start| name.starts_with(start));
    is_small_file || name.ends_with(".dbtmp") || (name.ends_with(".log") && len == 0)
}

fn listed(found: &[String]) -> String {
    let named = found.iter().take(NAMED_DIRS).cloned().collect::<Vec<_>>();
    match found.len().saturating_sub(NAMED_DIRS) {
        _ if found.is_empty() => "no state directory".to_owned(),
        0 => named.join(", "),
        more => format!("{} and {more} more", named.join(", ")),
    }
}
