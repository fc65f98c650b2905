//! How much may be under way at once. What is over the limit is refused at once, never queued.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use barque_machinery::status::Status;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::{config::ApiConfig, request_info::RequestInfo};

pub struct Inflight {
    reading: Arc<Semaphore>,
    mutating: Arc<Semaphore>,
    watches: Arc<AtomicUsize>,
    max_watches: usize,
}

/// Held while a request, or the body of its answer, is under way.
pub enum Admission {
    Request(#[allow(dead_code, reason = "held for its drop")] OwnedSemaphorePermit),
    Watch(#[allow(dead_code, reason = "held for its drop")] WatchSlot),
}

pub struct WatchSlot(Arc<AtomicUsize>);

impl Drop for WatchSlot {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Inflight {
    pub fn new(config: &ApiConfig) -> Self {
        Self {
            reading: Arc::new(Semaphore::new(config.max_requests_inflight)),
            mutating: Arc::new(Semaphore::new(config.max_mutating_requests_inflight)),
            watches: Arc::default(),
            max_watches: config.max_watches,
        }
    }

    pub fn admit(&self, info: &RequestInfo) -> Result<Admission, Status> {
        let refused = || Status::too_many_requests("Too many requests, please try again later.", 1);
        if info.is_watch() {
            if self.watches.fetch_add(1, Ordering::Relaxed) >= self.max_watches {
                self.watches.fetch_sub(1, Ordering::Relaxed);
                return Err(refused());
            }
            return Ok(Admission::Watch(WatchSlot(self.watches.clone())));
        }
        let limit = if info.is_mutating() {
            &self.mutating
        } else {
            &self.reading
        };
        limit
            .clone()
            .try_acquire_owned()
            .map(Admission::Request)
            .map_err(|_| refused())
    }

    pub fn watches(&self) -> usize {
        self.watches.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use http::Method;

    use super::*;

    #[test]
    fn one_over_the_limit_is_refused_until_one_is_done() {
        let config = ApiConfig {
            max_requests_inflight: 1,
            max_mutating_requests_inflight: 1,
            max_watches: 1,
            ..Default::default()
        };
        let inflight = Inflight::new(&config);
        for (method, watch) in [(Method::GET, false), (Method::POST, false), (Method::GET, true)] {
            let info = RequestInfo::parse(&method, "/api/v1/pods", watch);
            let first = inflight.admit(&info).ok();
            assert!(first.is_some());
            assert_eq!(
                inflight.admit(&info).err().and_then(|s| s.retry_after_s()),
                Some(1)
            );
            drop(first);
            assert!(inflight.admit(&info).is_ok());
        }
    }
}
