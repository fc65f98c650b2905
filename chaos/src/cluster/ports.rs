//! Loopback ports that nobody else is given while they are held: not another test, another process, or the kernel
//! for an outgoing connection while the member that listens there is down.

use std::{
    fs::{File, OpenOptions, Permissions},
    io,
    net::TcpListener,
    os::unix::fs::PermissionsExt,
    path::Path,
    process,
    sync::atomic::{AtomicU32, Ordering},
};

use anyhow::{Context, bail};

// Below the range from which Linux takes the ports of outgoing connections (32768 and up by default).
const FIRST: u32 = 12_000;
const COUNT: u32 = 20_000;

/// A port that is ours until dropped; a lock on a file per port says so to other processes.
pub struct Port {
    number: u16,
    _lock: File,
}

impl Port {
    pub fn reserve() -> anyhow::Result<Port> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let locks = std::env::temp_dir().join("barque-ports");
        std::fs::create_dir_all(&locks).with_context(|| locks.display().to_string())?;
        // Everybody's, as the directory above is; only its owner can say so.
        let _ = std::fs::set_permissions(&locks, Permissions::from_mode(0o1777));
        for _ in 0..COUNT {
            let step = NEXT.fetch_add(1, Ordering::Relaxed);
            // Processes start at different places, so that they seldom try one another's ports.
            let number = FIRST + (process::id().wrapping_mul(131).wrapping_add(step)) % COUNT;
            let number = u16::try_from(number)?;
            let lock = open(&locks.join(number.to_string())).context("a lock file of a port")?;
            if lock.try_lock().is_ok() && TcpListener::bind(("127.0.0.1", number)).is_ok() {
                return Ok(Port { number, _lock: lock });
            }
        }
        bail!("no free port between {FIRST} and {}", FIRST + COUNT)
    }

    pub fn number(&self) -> u16 {
        self.number
    }
}

/// A lock needs no right to write: the file may be another user's.
fn open(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    match options.create(true).truncate(false).write(true).open(path) {
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => File::open(path),
        opened => opened,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_held_port_is_not_given_twice() {
        let ports: Vec<Port> = (0..50).map(|_| Port::reserve().unwrap()).collect();
        let mut numbers: Vec<u16> = ports.iter().map(Port::number).collect();
        numbers.sort_unstable();
        numbers.dedup();
        assert_eq!(numbers.len(), 50);
    }
}
