//! Work that keeps a thread busy: files, and batches of the store.

use tokio::runtime::{Handle, RuntimeFlavor};

/// Runs `work` here. Where the runtime has other threads they take over what this one would have polled; a runtime
/// of one thread (the simulator's) simply waits.
pub fn block<T>(work: impl FnOnce() -> T) -> T {
    match Handle::try_current().map(|handle| handle.runtime_flavor()) {
        Ok(RuntimeFlavor::MultiThread) => tokio::task::block_in_place(work),
        _ => work(),
    }
}
