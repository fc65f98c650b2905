//! What is said in the log of connections that were not let in, without letting them fill it: [`Notices`].

use std::{net::SocketAddr, time::Duration};

use parking_lot::Mutex;
use tokio::time::Instant;

/// However many there are, each kind is told no more often than this, with how many there were.
const TELL_EVERY: Duration = Duration::from_secs(10);

/// Why a connection was closed before it settled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Why {
    /// No room, and no newcomer that could go instead.
    Full,
    /// Another newcomer needed its place.
    Displaced,
    /// It did not settle in time.
    Late,
    /// Its handshake failed.
    Handshake,
}

const KINDS: usize = 4;

impl Why {
    fn text(self) -> &'static str {
        match self {
            Self::Full => "a connection was closed at once: there are too many",
            Self::Displaced => "a connection was closed before its first request: too many are new",
            Self::Late => "a connection was closed that sent no request in time",
            Self::Handshake => "a TLS handshake failed",
        }
    }
}

#[derive(Debug, Default)]
pub struct Notices([Mutex<Kind>; KINDS]);

#[derive(Debug, Default)]
struct Kind {
    total: u64,
    told: Option<(Instant, u64)>,
}

impl Notices {
    pub fn total(&self, why: Why) -> u64 {
        self.0[why as usize].lock().total
    }

    /// Counts it, and tells of it if that is due.
    pub fn note(&self, listener: &str, why: Why, address: SocketAddr, reason: Option<&str>) {
        if let Some(count) = self.count(why) {
            tracing::warn!(listener, %address, reason, count, "{}", why.text());
        }
    }

    /// How many there were since the last time, when it is time to tell.
    fn count(&self, why: Why) -> Option<u64> {
        let mut kind = self.0[why as usize].lock();
        kind.total += 1;
        let before = match kind.told {
            Some((at, _)) if at.elapsed() < TELL_EVERY => return None,
            Some((_, total)) => total,
            None => 0,
        };
        kind.told = Some((Instant::now(), kind.total));
        Some(kind.total - before)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_is_one_line_and_each_kind_has_its_own() {
        let notices = Notices::default();
        assert_eq!(notices.count(Why::Late), Some(1));
        for _ in 0..1000 {
            assert_eq!(notices.count(Why::Late), None);
        }
        assert_eq!(notices.count(Why::Handshake), Some(1));
        assert_eq!((notices.total(Why::Late), notices.total(Why::Full)), (1001, 0));
        let long_ago = Instant::now().checked_sub(TELL_EVERY).unwrap();
        notices.0[Why::Late as usize].lock().told = Some((long_ago, 1));
        assert_eq!(notices.count(Why::Late), Some(1001));
    }
}
