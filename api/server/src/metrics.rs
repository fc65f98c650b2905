//! Counters of the API server, for whoever exports them.

use barque_machinery::counters::Counter;

#[derive(Debug, Default)]
pub struct ApiMetrics {
    /// Requests answered, by the class of their code.
    pub requests_2xx: Counter,
    pub requests_4xx: Counter,
    pub requests_5xx: Counter,
    /// Refused because too many were under way.
    pub rejected: Counter,
    /// Events sent to watchers.
    pub watch_events: Counter,
}

impl ApiMetrics {
    pub fn count(&self, code: u16) {
        match code {
            429 => self.rejected.add(1),
            ..400 => self.requests_2xx.add(1),
            400..500 => self.requests_4xx.add(1),
            _ => self.requests_5xx.add(1),
        }
    }
}
