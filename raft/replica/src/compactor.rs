//! Physical compaction in the background: small steps between applies, until nothing is left.

use std::{io, sync::Arc, time::Duration};

use barque_store::{Revision, Store};
use tokio::sync::{Notify, watch};

use crate::{oversight::damaged::GRACE, state_machine::StateMachine};

/// Apply takes the store's writer in between.
const PAUSE: Duration = Duration::from_millis(2);

pub struct Compactor {
    pub state_machine: StateMachine,
    pub store: Store,
    /// Something was compacted logically, or the state was replaced.
    pub wake: Arc<Notify>,
    /// The compact revision up to which everything is removed.
    pub done: Arc<watch::Sender<Revision>>,
}

impl Compactor {
    /// Runs until a step fails: then the member must stop.
    pub async fn run(self) -> io::Error {
        loop {
            let target = self.store.head().compact_revision;
            loop {
                match self.state_machine.compact_step() {
                    Ok(true) => tokio::time::sleep(PAUSE).await,
                    Ok(false) => break,
                    Err(error) => {
                        if self.store.damage().is_some() {
                            tokio::time::sleep(GRACE).await;
                        }
                        return error;
                    }
                }
            }
            self.done.send_replace(target);
            self.wake.notified().await;
        }
    }
}
