//! Who may come in through a listener: [`Entrance`] counts and bounds its connections. It knows neither TLS nor HTTP.
//!
//! A connection is a *newcomer* until whoever serves it says that it has *settled*: it has shown its certificate, or
//! sent the head of its first request. Accepting never waits for a newcomer, because then whoever says nothing would
//! keep out everybody else. When there are too many, one has to go instead: one that has sent no byte yet before one
//! that has, and of those the oldest. A worked example, with room for three:
//!
//! ```text
//! a connects            newcomers: a
//! b, c connect          newcomers: a b c
//! b sends a ClientHello newcomers: a c | b
//! d connects            newcomers: c d | b      a is closed: silent, and silent for longest
//! b's handshake is done newcomers: c d          b has settled, and nobody takes its place
//! ```
//!
//! So a client of good will loses its place only when a whole room of others comes, and speaks, within its own
//! handshake. Every newcomer is closed after the same time, however busily it trickles bytes. One remote address may
//! hold only a part of the room: see [`Bounds`].

mod entrance;
mod notices;
mod origin;
mod visitor;

use std::time::Duration;

pub use entrance::{Entrance, Figures};
pub use visitor::{Ticket, Visitor};

/// How many connections a listener holds, and for how long they may be new.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bounds {
    pub newcomers: usize,
    pub newcomers_per_address: usize,
    /// Newcomers are among them.
    pub connections: usize,
    pub connections_per_address: usize,
    /// From the accept on, until a newcomer has settled.
    pub patience: Duration,
}

impl Bounds {
    /// For listeners whose clients may nearly all come from one address, that of a balancer or of a router that
    /// translates addresses: one may take three quarters of what there is, so that none keeps out all the others.
    pub fn shared(newcomers: usize, connections: usize, patience: Duration) -> Self {
        let most = |all: usize| (all - all / 4).max(1);
        Self {
            newcomers,
            newcomers_per_address: most(newcomers),
            connections,
            connections_per_address: most(connections),
            patience,
        }
    }
}
