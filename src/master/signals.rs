//! SIGTERM and SIGINT: the first asks for an orderly end, the second for one at once.

use anyhow::Context;
use tokio::signal::unix::{Signal, SignalKind, signal};

pub struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    pub fn new() -> anyhow::Result<Self> {
        let listen = |kind| signal(kind).context("listen for signals");
        Ok(Self {
            terminate: listen(SignalKind::terminate())?,
            interrupt: listen(SignalKind::interrupt())?,
        })
    }

    pub async fn stop(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }

    /// What is acknowledged is on disk, so ending at once loses nothing.
    pub fn exit_at_the_next(mut self) {
        tokio::spawn(async move {
            self.stop().await;
            tracing::warn!("a second signal: exiting at once");
            std::process::exit(1);
        });
    }
}
