//! Connections to the other members that are open before anybody needs them: an election must not wait for a
//! handshake, least of all when the ports are crowded.
//!
//! A channel connects when it is called, and notices by itself when its connection is dead, but opens no other before
//! the next call. So each lane of a member is called now and then. The call is [`pb::raft_client::RaftClient::confirm`]
//! with a term that nobody votes above: it changes nothing, costs a look at Raft's state, and passes the other
//! member's gate, which so settles the connection, or says why this member may not take part. Snapshots are rare, and
//! their lane opens when one is sent.

use std::{
    error::Error,
    sync::{Arc, Weak},
    time::Duration,
};

use barque_proto::peer as pb;
use tokio::time::{sleep, timeout};
use tokio_util::task::AbortOnDropHandle;
use tonic::Status;

use super::link::{Lane, Link};

/// How long a lane may be closed before that is noticed, when nothing is sent on it. Shorter than what members wait
/// for a leader's word would be busier than the heartbeats.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Between attempts to reach a member that does not answer: doubled up to [`LOOK_EVERY`].
const FIRST_PAUSE: Duration = Duration::from_millis(50);
/// Longer than connecting, and than it takes to notice that a connection is dead.
const CALL_TIMEOUT: Duration = Duration::from_secs(4);
/// Nobody votes above it.
const ANY_TERM: u64 = u64::MAX;

/// Ends with what holds it.
pub type Kept = AbortOnDropHandle<()>;

/// Opens the lanes of a member, and again whenever they were closed.
pub fn keep_open(link: &Arc<Link>) -> [Kept; 2] {
    [Lane::Control, Lane::Entries]
        .map(|lane| AbortOnDropHandle::new(tokio::spawn(keep(Arc::downgrade(link), lane))))
}

async fn keep(link: Weak<Link>, lane: Lane) {
    let mut pause = Pause::default();
    let mut is_open = true;
    while let Some(link) = link.upgrade() {
        let called = call(&link, lane).await;
        if is_open != called.is_ok() {
            is_open = called.is_ok();
            tell(link.to, lane, &called);
        }
        drop(link);
        sleep(pause.next(is_open)).await;
    }
}

async fn call(link: &Link, lane: Lane) -> Result<(), Status> {
    let mut client = link.client(lane);
    let request = link.request(pb::ConfirmRequest { term: ANY_TERM });
    let called = timeout(CALL_TIMEOUT, client.confirm(request)).await;
    let called = called.map_err(|_| Status::deadline_exceeded("no answer"))?;
    link.checked(called).map(drop)
}

/// Told when it changes, not at each attempt.
fn tell(to: u64, lane: Lane, called: &Result<(), Status>) {
    let member = format!("{to:x}");
    match called {
        Ok(()) => tracing::info!(member, ?lane, "a member answers again"),
        Err(status) => tracing::warn!(member, ?lane, reason = reason(status), "a member does not answer"),
    }
}

/// With what is behind a transport error: the network's or the TLS library's word.
fn reason(status: &Status) -> String {
    let mut reason = status.message().to_owned();
    let mut source = status.source();
    while let Some(error) = source {
        let text = error.to_string();
        if !reason.contains(&text) {
            reason = format!("{reason}: {text}");
        }
        source = error.source();
    }
    reason
}

/// How long the next look waits. Drawn between half and all of it, so that members that were started together do not
/// all knock at the same moment.
#[derive(Debug, Default)]
struct Pause {
    failures: u32,
}

impl Pause {
    fn next(&mut self, is_open: bool) -> Duration {
        if is_open {
            self.failures = 0;
            return jittered(LOOK_EVERY);
        }
        let pause = FIRST_PAUSE * 2u32.pow(self.failures.min(10));
        self.failures += 1;
        jittered(pause.min(LOOK_EVERY))
    }
}

fn jittered(pause: Duration) -> Duration {
    pause.mul_f64(0.5 + 0.5 * rand::random::<f64>())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attempts_grow_rarer_up_to_a_bound() {
        let mut pause = Pause::default();
        for most_ms in [50, 100, 200, 400, 800, 1000, 1000, 1000] {
            let drawn = pause.next(false);
            let most = Duration::from_millis(most_ms);
            assert!(drawn <= most && drawn >= most / 2, "{drawn:?} of {most:?}");
        }
        assert!(pause.next(true) >= LOOK_EVERY / 2);
        assert!(pause.next(false) <= FIRST_PAUSE);
    }

    #[test]
    fn the_reason_says_what_the_library_said() {
        let told = std::io::Error::other("invalid peer certificate: UnknownIssuer");
        let status = Status::from_error(Box::new(told));
        assert!(reason(&status).contains("UnknownIssuer"), "{status:?}");
    }
}
