//! What the API server does by itself: claiming its prefix once, and the leader's chores.

mod bootstrap;
mod namespaces;
mod prefix;

use std::{sync::Arc, time::Duration};

use barque_machinery::status::Status;
use barque_replica::Leadership;

pub use prefix::claim_prefix;

use crate::server::Server;

/// Why the API server cannot run.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error(
        "{} holds keys that this API server did not write; it only starts over an empty prefix or its own",
        crate::storage::PREFIX
    )]
    ForeignPrefix,
    #[error("the API's prefix has format {found}; this program reads format {known}")]
    Format { found: String, known: u32 },
    #[error("the API's prefix: {0}")]
    Storage(#[from] Status),
}

/// Runs while this member is the leader; each chore carries the term, and ends with it.
pub async fn lead(server: Arc<Server>) {
    let mut leadership = server.registry.storage().replica().leadership();
    loop {
        let current = *leadership.borrow_and_update();
        let lost = async {
            // An error means the replica is gone, and leadership with it.
            let _ = leadership
                .wait_for(|l| l.term != current.term || l.is_self != current.is_self)
                .await;
        };
        tokio::select! {
            () = server.shutdown.cancelled() => return,
            () = lost => {}
            () = chores(&server, current) => {}
        }
        if leadership.has_changed().is_err() {
            return;
        }
    }
}

/// Never returns while this member leads.
async fn chores(server: &Arc<Server>, leadership: Leadership) {
    if !leadership.is_self {
        return std::future::pending().await;
    }
    let mut pause = Backoff::default();
    while let Err(status) = bootstrap::ensure_namespaces(server, leadership.term).await {
        tracing::warn!(%status, "could not make sure that the first namespaces exist");
        pause.wait().await;
    }
    namespaces::terminate_all(server, leadership.term).await
}

/// Waits longer after each failure.
#[derive(Default)]
pub struct Backoff {
    failures: u32,
}

impl Backoff {
    pub async fn wait(&mut self) {
        const FIRST: Duration = Duration::from_millis(100);
        const LONGEST: Duration = Duration::from_secs(10);
        let pause = FIRST.saturating_mul(1 << self.failures.min(10)).min(LONGEST);
        self.failures += 1;
        tokio::time::sleep(pause).await;
    }

    pub fn reset(&mut self) {
        self.failures = 0;
    }
}
