//! The one way in which a member's long-lived tasks are spawned: [`Tasks`].
//!
//! A task that panics is gone, and what it did is not done any more: leases that nobody ends, a leader that answers no
//! read. So a panic is the failure of the whole member, which then stops and says why.

use std::{any::Any, future::Future, panic::AssertUnwindSafe, sync::Arc};

use futures_util::FutureExt;
use tokio::sync::watch;

/// Spawns tasks whose failure is the member's. Cheap to clone.
#[derive(Clone)]
pub struct Tasks {
    failed: Arc<watch::Sender<Option<String>>>,
}

impl Tasks {
    /// Why the member must stop is what the receiver gets to see.
    pub fn new() -> (Self, watch::Receiver<Option<String>>) {
        let (failed, told) = watch::channel(None);
        let failed = Arc::new(failed);
        (Self { failed }, told)
    }

    /// The task may end when its work is done.
    pub fn spawn(&self, name: &'static str, task: impl Future<Output = ()> + Send + 'static) {
        self.spawn_fallible(name, async move {
            task.await;
            Ok(())
        });
    }

    /// An error is the member's failure as well.
    pub fn spawn_fallible(
        &self,
        name: &'static str,
        task: impl Future<Output = Result<(), String>> + Send + 'static,
    ) {
        tokio::spawn(self.guarded(name, task));
    }

    /// The same for a task that somebody else spawns, and ends.
    pub fn guarded(
        &self,
        name: &'static str,
        task: impl Future<Output = Result<(), String>> + Send + 'static,
    ) -> impl Future<Output = ()> + Send + 'static {
        let this = self.clone();
        async move {
            match AssertUnwindSafe(task).catch_unwind().await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => this.fail(format!("{name}: {error}")),
                Err(panic) => this.fail(format!("the task {name} panicked: {}", message(&*panic))),
            }
        }
    }

    /// The member must stop. The first reason counts.
    pub fn fail(&self, reason: String) {
        self.failed.send_if_modified(|failed| {
            let is_first = failed.is_none();
            if is_first {
                tracing::error!(reason, "the member must stop");
                *failed = Some(reason);
            }
            is_first
        });
    }

    pub fn has_failed(&self) -> bool {
        self.failed.borrow().is_some()
    }
}

fn message(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    let text = text.or_else(|| panic.downcast_ref::<String>().cloned());
    text.unwrap_or_else(|| "without a message".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn failure(task: impl Future<Output = Result<(), String>> + Send + 'static) -> Option<String> {
        let (tasks, mut failed) = Tasks::new();
        tasks.spawn_fallible("of a test", task);
        // The last sender goes with the task.
        drop(tasks);
        while failed.changed().await.is_ok() {}
        failed.borrow().clone()
    }

    #[tokio::test]
    async fn a_panic_or_an_error_fails_the_member_and_an_end_does_not() {
        assert_eq!(failure(async { Ok(()) }).await, None);
        let error = failure(async { Err("no".into()) }).await;
        assert_eq!(error.as_deref(), Some("of a test: no"));
        let panic = failure(async { panic!("at {}", 7) }).await;
        assert_eq!(panic.as_deref(), Some("the task of a test panicked: at 7"));
    }

    #[tokio::test]
    async fn the_first_reason_counts() {
        let (tasks, failed) = Tasks::new();
        tasks.fail("first".into());
        tasks.fail("second".into());
        assert!(tasks.has_failed());
        assert_eq!(failed.borrow().as_deref(), Some("first"));
    }
}
