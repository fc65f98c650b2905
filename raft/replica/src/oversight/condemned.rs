//! A member whose state cannot be trusted: it stops, and does not come back by itself.
//!
//! A file beside the identity says so. Without it a supervisor would start the member again at once, and it would
//! serve until it is compared again; nothing in its data would be better by then. What it has is left as it is.

use std::{
    fs::{self, File},
    io::{self, Write},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use crate::{StartError, blocking::block, data_dir::make_private_dir};

const FILE: &str = "CONDEMNED";

/// Stops this member for good.
#[derive(Clone)]
pub struct Condemned {
    me: u64,
    member_dir: PathBuf,
    is_stopping: Arc<AtomicBool>,
    /// Called with the reason, once.
    end: Arc<dyn Fn(String) + Send + Sync>,
}

impl Condemned {
    pub fn new(me: u64, member_dir: PathBuf, end: impl Fn(String) + Send + Sync + 'static) -> Self {
        Self {
            me,
            member_dir,
            is_stopping: Arc::default(),
            end: Arc::new(end),
        }
    }

    /// Notes why, and stops. Idempotent: the first reason stays.
    pub fn stop(&self, why: &str) {
        if self.is_stopping.swap(true, Ordering::SeqCst) {
            return;
        }
        let reason = reason(self.me, why, &self.member_dir);
        tracing::error!("{reason}");
        // First: once it is told to stop, its process may be gone at any moment.
        if let Err(error) = block(|| note(&self.member_dir, why)) {
            let dir = self.member_dir.display();
            tracing::error!(%error, %dir, "what this member stops for cannot be noted: do not start it again");
        }
        (self.end)(reason);
    }
}

/// Refuses to start a member that was stopped for its state.
pub fn refuse(member_dir: &Path, member_id: u64) -> Result<(), StartError> {
    let path = member_dir.join(FILE);
    match fs::read(&path) {
        // Damaged or not: that it is there says that the member must not start.
        Ok(why) => Err(StartError::Identity(format!(
            "{}. If it is known to be the right one after all, remove {} and start it again: it is compared again",
            reason(member_id, String::from_utf8_lossy(&why).trim_end(), member_dir),
            path.display()
        ))),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(StartError::Identity(format!("{}: {error}", path.display()))),
    }
}

/// The member has another state now: it may start again.
pub fn forget(member_dir: &Path) -> io::Result<()> {
    match fs::remove_file(member_dir.join(FILE)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => File::open(member_dir)?.sync_all(),
    }
}

/// With the way out, which every text of this kind has.
fn reason(member_id: u64, why: &str, member_dir: &Path) -> String {
    let data_dir = member_dir.parent().unwrap_or(member_dir).display();
    format!(
        "the state of member {member_id:x} cannot be trusted: {why}: run `barque rebuild --data-dir {data_dir}` and start \
         it again, and it takes the state of another member"
    )
}

/// Durable when it returns, whole or not at all.
fn note(member_dir: &Path, why: &str) -> io::Result<()> {
    make_private_dir(member_dir)?;
    let (path, new) = (member_dir.join(FILE), member_dir.join(FILE).with_extension("new"));
    let mut file = File::create(&new)?;
    writeln!(file, "{why}")?;
    file.sync_all()?;
    fs::rename(&new, &path)?;
    File::open(member_dir)?.sync_all()
}

#[cfg(test)]
mod tests {
    use parking_lot::Mutex;

    use super::*;

    #[test]
    fn a_condemned_member_does_not_start_again() {
        let dir = tempfile::tempdir().unwrap();
        let member_dir = dir.path().join("member");
        let told: Arc<Mutex<Vec<String>>> = Arc::default();
        let tells = told.clone();
        refuse(&member_dir, 0xb).unwrap();
        let condemned = Condemned::new(0xb, member_dir.clone(), move |reason| tells.lock().push(reason));
        condemned.stop("it differs");
        condemned.clone().stop("it differs again");
        let [reason] = &told.lock()[..] else {
            panic!("it is told once")
        };
        let expected = format!(
            "the state of member b cannot be trusted: it differs: run `barque rebuild --data-dir {}`",
            dir.path().display()
        );
        assert!(reason.starts_with(&expected), "{reason}");
        let refused = refuse(&member_dir, 0xb).unwrap_err().to_string();
        assert!(
            refused.starts_with(reason.as_str()) && refused.contains("CONDEMNED"),
            "{refused}"
        );
        forget(&member_dir).unwrap();
        refuse(&member_dir, 0xb).unwrap();
        forget(&member_dir).unwrap();
    }
}
