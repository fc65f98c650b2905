//! When a stream's watchers are due for an automatic progress notification.

use std::{
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use tokio::time::{Instant, Sleep, sleep_until};

/// Below this an interval is a mistake; etcd raises it too.
const SHORTEST: Duration = Duration::from_millis(100);

/// Ticks at the interval plus up to a tenth, drawn once per stream, so that streams do not tick together.
pub(super) struct ProgressTimer {
    interval: Duration,
    sleep: Option<Pin<Box<Sleep>>>,
}

impl ProgressTimer {
    pub fn new(interval: Duration) -> Self {
        let interval = interval.max(SHORTEST);
        Self {
            interval: interval + interval.mul_f64(rand::random_range(0.0..0.1)),
            sleep: None,
        }
    }

    /// The first watcher that wants notifications starts the timer.
    pub fn start(&mut self) {
        if self.sleep.is_none() {
            self.sleep = Some(Box::pin(sleep_until(Instant::now() + self.interval)));
        }
    }

    /// Ready at a tick, and armed for the next.
    pub fn poll_tick(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Some(sleep) = &mut self.sleep else {
            return Poll::Pending;
        };
        let ticked = sleep.as_mut().poll(cx);
        if ticked.is_ready() {
            sleep.as_mut().reset(Instant::now() + self.interval);
        }
        ticked
    }
}
