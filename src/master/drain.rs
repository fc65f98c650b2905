//! An orderly end: unready, leadership handed over, no new connections, those there finished, replica closed.

use std::{future::Future, time::Duration};

use barque_replica::Replica;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::member::Member;

/// Requests end within this; what streams on after it (watches) is cut, and its client goes elsewhere.
const CONNECTIONS_TIMEOUT: Duration = Duration::from_secs(2);
const HANDOVER_TIMEOUT: Duration = Duration::from_secs(2);
const CLOSE_TIMEOUT: Duration = Duration::from_secs(10);

/// The state of the end, and the connections that it waits for; cheap to clone.
#[derive(Clone, Default)]
pub struct Drain {
    begun: CancellationToken,
    over: CancellationToken,
    connections: TaskTracker,
}

impl Drain {
    /// Resolves when nothing new is to be taken on.
    pub async fn begun(&self) {
        self.begun.cancelled().await;
    }

    /// Resolves when what is left is to be dropped.
    pub async fn over(&self) {
        self.over.cancelled().await;
    }

    pub fn begun_token(&self) -> CancellationToken {
        self.begun.clone()
    }

    /// A connection, or a task that ends when the drain begins.
    pub fn track(&self, connection: impl Future<Output = ()> + Send + 'static) {
        self.connections.spawn(connection);
    }

    async fn finish(&self, patience: Duration) {
        self.begun.cancel();
        self.connections.close();
        if tokio::time::timeout(patience, self.connections.wait())
            .await
            .is_err()
        {
            self.over.cancel();
            self.connections.wait().await;
        }
    }
}

/// `healthy`: false after the replica failed, when there is nothing to hand over and nobody to wait for.
pub async fn drain(replica: &Replica, member: &Member, servers: Drain, healthy: bool) {
    tracing::info!(healthy, "stopping");
    member.go_unready();
    if healthy {
        hand_over(replica).await;
    }
    member.end_streams().await;
    servers
        .finish(if healthy {
            CONNECTIONS_TIMEOUT
        } else {
            Duration::ZERO
        })
        .await;
    if tokio::time::timeout(CLOSE_TIMEOUT, replica.shutdown())
        .await
        .is_err()
    {
        tracing::warn!("the replica does not close in time; what is acknowledged is on disk");
    }
    tracing::info!("stopped");
}

/// Before anything is refused here, another member leads: its clients and ours notice little.
async fn hand_over(replica: &Replica) {
    let leads = replica.leadership().borrow().is_self;
    if !leads || replica.members().len() < 2 {
        return;
    }
    match tokio::time::timeout(HANDOVER_TIMEOUT, replica.transfer_leadership(None)).await {
        Ok(Ok(())) => tracing::info!("leadership handed over"),
        Ok(Err(error)) => tracing::warn!(%error, "leadership was not handed over"),
        Err(_) => tracing::warn!("leadership was not handed over in time"),
    }
}
