//! Physical compaction, and moving what deletions have ended, in the background: small steps between applies, until
//! nothing is left.

use std::{io, sync::Arc, time::Duration};

use barque_store::{Revision, Store};
use tokio::sync::{Notify, watch};

use crate::{oversight::damaged::GRACE, state_machine::StateMachine};

/// Apply takes the store's writer in between.
const PAUSE: Duration = Duration::from_millis(2);

pub struct Compactor {
    pub state_machine: StateMachine,
    pub store: Store,
    /// Something was compacted logically, deletions have left rows to be moved, or the state was replaced.
    pub wake: Arc<Notify>,
    /// The compact revision up to which everything is removed.
    pub done: Arc<watch::Sender<Revision>>,
}

impl Compactor {
    /// Runs until a step fails: then the member must stop.
    pub async fn run(self) -> io::Error {
        loop {
            if let Err(error) = self.work_off().await {
                if self.store.damage().is_some() {
                    // It is said first, and leadership handed over.
                    tokio::time::sleep(GRACE).await;
                }
                return error;
            }
            self.wake.notified().await;
        }
    }

    /// Compaction goes first: somebody may wait for it, and what it removes need not be moved.
    async fn work_off(&self) -> io::Result<()> {
        loop {
            let target = self.store.head().compact_revision;
            while self.state_machine.compact_step()? {
                tokio::time::sleep(PAUSE).await;
            }
            self.done.send_replace(target);
            while self.state_machine.move_step()? {
                tokio::time::sleep(PAUSE).await;
                if self.store.head().compact_revision != target {
                    break;
                }
            }
            if self.store.head().compact_revision == target {
                return Ok(());
            }
        }
    }
}
