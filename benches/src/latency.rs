//! Latencies of many operations: [`Latency`].

use std::time::Duration;

use hdrhistogram::Histogram;

/// A histogram in microseconds, from 1 µs to 60 s, three digits.
#[derive(Clone)]
pub struct Latency {
    histogram: Histogram<u64>,
}

impl Latency {
    pub fn new() -> Latency {
        let histogram = Histogram::new_with_bounds(1, 60_000_000, 3).expect("the bounds are valid");
        Latency { histogram }
    }

    pub fn record(&mut self, latency: Duration) {
        // Beyond a minute it is counted as a minute.
        self.histogram
            .saturating_record(u64::try_from(latency.as_micros()).unwrap_or(u64::MAX).max(1));
    }

    pub fn merge(&mut self, other: &Latency) {
        self.histogram
            .add(&other.histogram)
            .expect("all have the same bounds");
    }

    pub fn count(&self) -> u64 {
        self.histogram.len()
    }

    /// Milliseconds below which `quantile` of all lie.
    pub fn quantile_ms(&self, quantile: f64) -> f64 {
        self.histogram.value_at_quantile(quantile) as f64 / 1000.0
    }

    pub fn summary(&self) -> String {
        let at = |quantile| self.quantile_ms(quantile);
        format!(
            "p50 {:.2} ms, p99 {:.2} ms, worst {:.2} ms",
            at(0.5),
            at(0.99),
            at(1.0)
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn merged_quantiles() {
        let (mut low, mut high) = (Latency::new(), Latency::new());
        for ms in 1..=99 {
            low.record(Duration::from_millis(ms));
        }
        high.record(Duration::from_secs(3600));
        low.merge(&high);
        assert_eq!(low.count(), 100);
        assert!((low.quantile_ms(0.5) - 50.0).abs() < 0.1);
        assert!(low.quantile_ms(1.0) >= 60_000.0);
    }
}
