//! A note that a snapshot is being installed: the one time when the state may be ahead of the log.
//!
//! An entry is applied only once the log holds it durably, so a state ahead of its log means that the log has lost its end,
//! and with it entries that this member had acknowledged, and votes. Only between the installation of a snapshot and the
//! purge that tells the log of it is the state ahead by right. The note, `member/installing.json`, says so before the state
//! changes, and goes once the log's purge is durable.

use std::{
    fs::{self, File},
    io,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use barque_store::LogPosition;
use serde::{Deserialize, Serialize};

use crate::sealed::{self, Found};

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Note {
    term: u64,
    index: u64,
}

#[derive(Debug, Clone)]
pub struct Installing {
    path: Arc<PathBuf>,
    /// There may be a note.
    noted: Arc<AtomicBool>,
}

impl Installing {
    pub fn new(member_dir: &Path) -> Self {
        Self {
            path: Arc::new(member_dir.join("installing.json")),
            noted: Arc::new(AtomicBool::new(true)),
        }
    }

    /// The state is about to become the one at this position; durable when this returns.
    pub fn begin(&self, at: LogPosition) -> io::Result<()> {
        self.noted.store(true, Ordering::Release);
        let note = Note {
            term: at.term,
            index: at.index,
        };
        sealed::save(&self.path, &note)
    }

    /// Where the state is when an installation was interrupted.
    pub fn under_way(&self) -> io::Result<Option<LogPosition>> {
        let found: Option<Found<Note>> =
            sealed::load(&self.path, |_| None).map_err(|error| unreadable(&error))?;
        Ok(found.map(|found| {
            let Note { term, index } = found.into_inner();
            LogPosition { term, index }
        }))
    }

    /// The log knows of the state.
    pub fn done(&self) -> io::Result<()> {
        if !self.noted.load(Ordering::Acquire) {
            return Ok(());
        }
        match fs::remove_file(&*self.path) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
        if let Some(dir) = self.path.parent().filter(|dir| dir.exists()) {
            File::open(dir)?.sync_all()?;
        }
        self.noted.store(false, Ordering::Release);
        Ok(())
    }
}

/// Without the note a start asks more of the log, never less.
fn unreadable(error: &io::Error) -> io::Error {
    io::Error::other(format!(
        "{error}; nothing was changed: remove it and start again; if a snapshot was being installed, the log is then said \
         to have lost its end"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_note_stays_until_it_is_done() {
        let dir = tempfile::tempdir().unwrap();
        let at = LogPosition { term: 3, index: 40 };
        let installing = Installing::new(dir.path());
        assert_eq!(installing.under_way().unwrap(), None);
        installing.done().unwrap();
        installing.begin(at).unwrap();
        // After a restart.
        let installing = Installing::new(dir.path());
        assert_eq!(installing.under_way().unwrap(), Some(at));
        installing.done().unwrap();
        assert_eq!(installing.under_way().unwrap(), None);
        installing.begin(at).unwrap();
        installing.done().unwrap();
        assert_eq!(Installing::new(dir.path()).under_way().unwrap(), None);
    }
}
