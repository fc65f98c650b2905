//! The room of one listener, or of several that share it: [`Entrance`].

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    net::SocketAddr,
    sync::Arc,
    time::Duration,
};

use parking_lot::Mutex;

use crate::{
    Bounds, Visitor,
    notices::{Notices, Why},
    origin::Origin,
    visitor::Slot,
};

/// After an accept that failed for want of descriptors or memory.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// A handle; cheap to clone.
#[derive(Debug, Clone)]
pub struct Entrance {
    listener: &'static str,
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    bounds: Bounds,
    room: Mutex<Room>,
    notices: Notices,
}

/// A reading; the counters begin with the process.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Figures {
    pub connections: u64,
    pub newcomers: u64,
    /// Closed at once, as nobody could go instead.
    pub refused: u64,
    /// Closed for a newer one.
    pub displaced: u64,
    /// Closed, as they did not settle in time.
    pub late: u64,
    pub failed_handshakes: u64,
}

impl Entrance {
    /// `listener`: what it is called in the log.
    pub fn new(listener: &'static str, bounds: Bounds) -> Self {
        let inner = Arc::new(Inner {
            bounds,
            room: Mutex::default(),
            notices: Notices::default(),
        });
        Self { listener, inner }
    }

    /// Another listener that shares the room.
    pub fn beside(&self, listener: &'static str) -> Self {
        Self {
            listener,
            inner: self.inner.clone(),
        }
    }

    pub fn listener(&self) -> &'static str {
        self.listener
    }

    pub fn figures(&self) -> Figures {
        let (connections, newcomers) = {
            let room = self.inner.room.lock();
            (room.connections, room.newcomers.len())
        };
        let total = |why| self.inner.notices.total(why);
        Figures {
            connections: connections as u64,
            newcomers: newcomers as u64,
            refused: total(Why::Full),
            displaced: total(Why::Displaced),
            late: total(Why::Late),
            failed_handshakes: total(Why::Handshake),
        }
    }

    /// What a listener has accepted, if it may come in. It waits after an accept that failed, and never for another
    /// connection.
    pub async fn admit<S>(&self, accepted: io::Result<(S, SocketAddr)>) -> Option<Visitor<S>> {
        match accepted {
            Ok((stream, address)) => self.enter(stream, address),
            Err(error) => {
                tracing::warn!(listener = self.listener, %error, "cannot accept a connection");
                self.displace_half();
                tokio::time::sleep(ACCEPT_PAUSE).await;
                None
            }
        }
    }

    /// As a newcomer, in the place of another one if need be.
    pub fn enter<S>(&self, stream: S, address: SocketAddr) -> Option<Visitor<S>> {
        let origin = Origin::of(address.ip());
        let mut room = self.inner.room.lock();
        let displaced = match room.whose_place(&self.inner.bounds, origin) {
            Place::Free => None,
            Place::Of(key) => room.displace(key),
            Place::None => {
                drop(room);
                self.note(Why::Full, address, None);
                return None;
            }
        };
        let slot = room.add(self, origin, address);
        drop(room);
        if let Some(displaced) = displaced {
            self.note(Why::Displaced, displaced.address, None);
        }
        Some(Visitor::new(stream, slot, self.inner.bounds.patience))
    }

    /// Descriptors or memory have run out: whoever has not settled can spare some.
    fn displace_half(&self) {
        let mut room = self.inner.room.lock();
        let keys: Vec<Key> = room.newcomers.keys().copied().collect();
        let half = keys.len().div_ceil(2);
        let displaced: Vec<_> = keys[..half]
            .iter()
            .filter_map(|key| room.displace(*key))
            .collect();
        drop(room);
        for slot in displaced {
            self.note(Why::Displaced, slot.address, Some("out of descriptors"));
        }
    }

    pub(crate) fn note(&self, why: Why, address: SocketAddr, reason: Option<&str>) {
        self.inner.notices.note(self.listener, why, address, reason);
    }

    /// The newcomer has sent something: silent ones go before it.
    pub(crate) fn spoke(&self, slot: &Arc<Slot>) {
        let mut room = self.inner.room.lock();
        if room.remove_newcomer((false, slot.number), slot.origin).is_some() {
            room.put_newcomer((true, slot.number), slot.clone());
        }
    }

    /// False: it has settled before, or its place is somebody else's already.
    pub(crate) fn settle(&self, slot: &Slot) -> bool {
        let mut room = self.inner.room.lock();
        let was_new = room.forget(slot).is_some();
        if was_new {
            slot.settled();
        }
        was_new
    }

    /// False: it has settled just now.
    pub(crate) fn expire(&self, slot: &Slot) -> bool {
        let mut room = self.inner.room.lock();
        let was_new = room.forget(slot).is_some();
        if was_new {
            room.leave(slot.origin);
            slot.displaced();
        }
        drop(room);
        if was_new {
            self.note(Why::Late, slot.address, None);
        }
        was_new
    }

    /// The connection is closed.
    pub(crate) fn leave(&self, slot: &Slot) {
        let mut room = self.inner.room.lock();
        let was_new = room.forget(slot).is_some();
        // A displaced one has left already.
        if was_new || slot.is_settled() {
            room.leave(slot.origin);
        }
    }
}

/// Newcomers in the order in which they go: those that are silent first, and of those the oldest.
type Key = (bool, u64);

#[derive(Debug, Default)]
struct Room {
    next: u64,
    connections: usize,
    newcomers: BTreeMap<Key, Arc<Slot>>,
    origins: BTreeMap<Origin, Crowd>,
}

/// Those of one address.
#[derive(Debug, Default)]
struct Crowd {
    connections: usize,
    newcomers: BTreeSet<Key>,
}

enum Place {
    Free,
    Of(Key),
    None,
}

impl Room {
    fn whose_place(&self, bounds: &Bounds, origin: Origin) -> Place {
        if let Some(crowd) = self.origins.get(&origin)
            && (crowd.newcomers.len() >= bounds.newcomers_per_address
                || crowd.connections >= bounds.connections_per_address)
        {
            return crowd
                .newcomers
                .first()
                .map_or(Place::None, |oldest| Place::Of(*oldest));
        }
        if self.newcomers.len() >= bounds.newcomers || self.connections >= bounds.connections {
            let oldest = self.newcomers.first_key_value();
            return oldest.map_or(Place::None, |(oldest, _)| Place::Of(*oldest));
        }
        Place::Free
    }

    fn add(&mut self, entrance: &Entrance, origin: Origin, address: SocketAddr) -> Arc<Slot> {
        self.next += 1;
        let slot = Arc::new(Slot::new(entrance.clone(), self.next, origin, address));
        self.connections += 1;
        self.origins.entry(origin).or_default().connections += 1;
        self.put_newcomer((false, slot.number), slot.clone());
        slot
    }

    fn put_newcomer(&mut self, key: Key, slot: Arc<Slot>) {
        let crowd = self.origins.entry(slot.origin).or_default();
        crowd.newcomers.insert(key);
        self.newcomers.insert(key, slot);
    }

    fn remove_newcomer(&mut self, key: Key, origin: Origin) -> Option<Arc<Slot>> {
        if let Some(crowd) = self.origins.get_mut(&origin) {
            crowd.newcomers.remove(&key);
        }
        self.newcomers.remove(&key)
    }

    /// As a newcomer, silent or not.
    fn forget(&mut self, slot: &Slot) -> Option<Arc<Slot>> {
        let keys = [(false, slot.number), (true, slot.number)];
        keys.into_iter()
            .find_map(|key| self.remove_newcomer(key, slot.origin))
    }

    fn displace(&mut self, key: Key) -> Option<Arc<Slot>> {
        let origin = self.newcomers.get(&key)?.origin;
        let slot = self.remove_newcomer(key, origin)?;
        self.leave(origin);
        slot.displaced();
        Some(slot)
    }

    fn leave(&mut self, origin: Origin) {
        self.connections -= 1;
        if let Some(crowd) = self.origins.get_mut(&origin) {
            crowd.connections -= 1;
            if crowd.connections == 0 {
                self.origins.remove(&origin);
            }
        }
    }
}

#[cfg(test)]
mod tests;
