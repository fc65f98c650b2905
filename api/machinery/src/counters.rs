//! How often objects are decoded and encoded in this process.
//!
//! Lists and watches send stored bytes; these counters are how a test proves that they do.

use std::sync::atomic::{AtomicU64, Ordering};

/// A number that only grows.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    pub const fn new() -> Self {
        Self(AtomicU64::new(0))
    }

    pub fn add(&self, n: u64) {
        self.0.fetch_add(n, Ordering::Relaxed);
    }

    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Stored objects parsed from their bytes.
pub static OBJECTS_DECODED: Counter = Counter::new();
/// Objects serialised into the bytes that are stored.
pub static OBJECTS_ENCODED: Counter = Counter::new();
/// Watch frames made, each shared by all watchers that see the event alike.
pub static FRAMES_ENCODED: Counter = Counter::new();
