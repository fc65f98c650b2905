//! One master as the balancer sees it: whether new connections should go there, and the probes that find out.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use parking_lot::Mutex;
use rustls::ClientConfig;
use tokio::net::TcpStream;
use tokio_util::sync::CancellationToken;

use crate::readyz::{self, Readiness};

const PROBE_INTERVAL: Duration = Duration::from_secs(1);
const PROBE_TIMEOUT: Duration = Duration::from_secs(1);
/// A backend that stays dead is asked less and less often, down to once in this time.
const PROBE_INTERVAL_MAX: Duration = Duration::from_secs(4);
/// So many probes in a row without an answer, and its connections are closed.
const FAILURES_TO_DIE: u32 = 2;

/// Better states first: a connection goes to the best there is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Health {
    Ready,
    /// Not asked yet.
    Unknown,
    /// It answers that it should not be used.
    Unready,
    /// It did not answer once.
    Suspect,
    Dead,
}

pub struct Backend {
    pub address: SocketAddr,
    state: Mutex<State>,
    pub connections: AtomicUsize,
    pub connections_total: AtomicU64,
    pub connect_failures_total: AtomicU64,
}

struct State {
    health: Health,
    failures: u32,
    /// Cancelled when the backend dies, and replaced: connections hold the token of their time.
    alive: CancellationToken,
}

impl Backend {
    pub fn new(address: SocketAddr) -> Self {
        Self {
            address,
            state: Mutex::new(State {
                health: Health::Unknown,
                failures: 0,
                alive: CancellationToken::new(),
            }),
            connections: AtomicUsize::new(0),
            connections_total: AtomicU64::new(0),
            connect_failures_total: AtomicU64::new(0),
        }
    }

    pub fn health(&self) -> Health {
        self.state.lock().health
    }

    /// Cancelled once the backend is found dead.
    pub fn alive(&self) -> CancellationToken {
        self.state.lock().alive.clone()
    }

    /// A client's connection could not be made: nothing new goes there until a probe says otherwise.
    pub fn connect_failed(&self) {
        self.connect_failures_total.fetch_add(1, Ordering::Relaxed);
        let mut state = self.state.lock();
        state.health = state.health.max(Health::Suspect);
    }

    fn probed(&self, readiness: &Readiness) {
        let mut state = self.state.lock();
        let before = state.health;
        match readiness {
            Readiness::Ready => (state.health, state.failures) = (Health::Ready, 0),
            Readiness::Unready(_) => (state.health, state.failures) = (Health::Unready, 0),
            Readiness::Dead(_) => {
                state.failures = state.failures.saturating_add(1);
                state.health = Health::Suspect;
                if state.failures >= FAILURES_TO_DIE {
                    state.health = Health::Dead;
                    std::mem::take(&mut state.alive).cancel();
                }
            }
        }
        let after = state.health;
        drop(state);
        if after != before {
            tracing::info!(backend = %self.address, from = ?before, to = ?after, ?readiness, "health changed");
        }
    }

    fn next_probe_in(&self) -> Duration {
        let failures = self.state.lock().failures;
        let doublings = failures.saturating_sub(FAILURES_TO_DIE).min(8);
        (PROBE_INTERVAL * 2u32.pow(doublings)).min(PROBE_INTERVAL_MAX)
    }
}

pub async fn keep_probing(
    backends: Arc<[Backend]>,
    at: usize,
    tls: Option<Arc<ClientConfig>>,
    stop: CancellationToken,
) {
    let backend = &backends[at];
    loop {
        let readiness = match &tls {
            Some(_) => readyz::ask(backend.address, tls.clone(), PROBE_TIMEOUT).await,
            None => connects(backend.address).await,
        };
        backend.probed(&readiness);
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(backend.next_probe_in()) => {}
        }
    }
}

async fn connects(address: SocketAddr) -> Readiness {
    match tokio::time::timeout(PROBE_TIMEOUT, TcpStream::connect(address)).await {
        Ok(Ok(_)) => Readiness::Ready,
        Ok(Err(error)) => Readiness::Dead(error.to_string()),
        Err(_) => Readiness::Dead("no answer".to_owned()),
    }
}

/// The order in which a new connection tries the backends: the best health first, then the fewest connections.
pub fn preference(backends: &[Backend]) -> Vec<usize> {
    let mut order: Vec<usize> = (0..backends.len()).collect();
    order.sort_by_key(|at| {
        (
            backends[*at].health(),
            backends[*at].connections.load(Ordering::Relaxed),
        )
    });
    order
}

#[cfg(test)]
mod tests {
    use super::*;

    fn backends(n: u16) -> Vec<Backend> {
        (1..=n)
            .map(|port| Backend::new(crate::cluster_dir::loopback(port)))
            .collect()
    }

    #[test]
    fn a_backend_dies_at_the_second_silence_and_takes_its_connections_along() {
        let backend = Backend::new(crate::cluster_dir::loopback(1));
        backend.probed(&Readiness::Ready);
        let connection = backend.alive();
        backend.probed(&Readiness::Dead("silence".into()));
        assert_eq!(
            (backend.health(), connection.is_cancelled()),
            (Health::Suspect, false)
        );
        backend.probed(&Readiness::Dead("silence".into()));
        assert_eq!(
            (backend.health(), connection.is_cancelled()),
            (Health::Dead, true)
        );
        backend.probed(&Readiness::Ready);
        assert!(!backend.alive().is_cancelled());
    }

    #[test]
    fn a_backend_that_says_unready_keeps_its_connections() {
        let backend = Backend::new(crate::cluster_dir::loopback(1));
        let connection = backend.alive();
        for _ in 0..5 {
            backend.probed(&Readiness::Unready("503".into()));
        }
        assert!(!connection.is_cancelled());
    }

    #[test]
    fn the_best_come_first_and_the_idle_among_them() {
        let backends = backends(4);
        backends[0].connect_failed();
        backends[1].probed(&Readiness::Ready);
        backends[1].connections.store(5, Ordering::Relaxed);
        backends[2].probed(&Readiness::Ready);
        backends[3].probed(&Readiness::Unready("503".into()));
        assert_eq!(preference(&backends), [2, 1, 3, 0]);
    }
}
