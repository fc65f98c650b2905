//! Handing out one revision, watcher by watcher, within what a drain may hand out.
//!
//! The events of a revision are shared, but each of its watchers gets a delivery and a response of its own, and there may
//! be 100,000 of them. So a revision that found no room is left under way: the next drain goes on with it before it looks
//! at anything else. Only what one watcher is due of one revision (or of one part of it) is never divided.
//!
//! Example: watches 1, 2 and 3 match revision 7, and there is room for two. The cursor stands at 8 at once, 3 is left under
//! way, and nothing is said of progress until it was handed over. If 3 is removed meanwhile, and its slot given to a
//! watch 4, then 4 is not given revision 7: its ticket is another.

use std::sync::{Arc, atomic::Ordering::Relaxed};

use super::{
    Changes, Delivery, Matched, Subscriber,
    watchers::{Audience, Due, Ticket},
};
use crate::StoreError;

/// A revision, or a part of one, that is being handed out.
pub(super) struct UnderWay {
    changes: Arc<Changes>,
    is_part: bool,
    left: std::vec::IntoIter<(Ticket, Matched)>,
}

impl Subscriber {
    /// Finds those of `audience` whom `changes` concern, and hands it to as many as there is room for. Of those that
    /// keep up, the ones for whom something must be read from disk fall behind. `is_part`: the rest of the revision follows.
    pub(super) fn deliver(
        &mut self,
        changes: &Arc<Changes>,
        audience: Audience,
        is_part: bool,
        room: &mut usize,
        out: &mut Vec<Delivery>,
    ) -> Result<(), StoreError> {
        let mut due = self.watchers.find(changes, audience);
        match audience {
            Audience::KeepingUp => self.leave_behind(changes, &mut due),
            Audience::Scanned => {
                self.read_previous(changes, &due)?;
                self.note_parts(changes, is_part, &mut due);
            }
        }
        let left: Vec<_> = due
            .into_iter()
            .map(|due| (self.watchers.ticket(due.slot), due.matched))
            .collect();
        if !left.is_empty() {
            assert!(self.under_way.is_none(), "one revision after the other");
            self.under_way = Some(UnderWay {
                changes: Arc::clone(changes),
                is_part,
                left: left.into_iter(),
            });
            self.hand_out(room, out);
        }
        Ok(())
    }

    /// Goes on with the revision under way, as long as there is room.
    pub(super) fn hand_out(&mut self, room: &mut usize, out: &mut Vec<Delivery>) {
        let Some(mut under_way) = self.under_way.take() else {
            return;
        };
        let mut events = 0;
        while *room > 0
            && let Some((ticket, matched)) = under_way.left.next()
        {
            let Some(slot) = self.watchers.redeem(ticket) else {
                continue;
            };
            let watcher = self.watchers.get(slot);
            let changes = &under_way.changes;
            *room = room.saturating_sub(watcher.cost(changes, &matched));
            events += matched.events(changes).count() as u64;
            out.push(Delivery::Events {
                watch: watcher.id,
                changes: Arc::clone(changes),
                matched,
                is_part: under_way.is_part,
            });
        }
        self.shared.counters.events_delivered.fetch_add(events, Relaxed);
        if under_way.left.len() > 0 {
            self.under_way = Some(under_way);
        }
    }

    fn leave_behind(&mut self, changes: &Changes, due: &mut Vec<Due>) {
        due.retain(|due| {
            let must_read = self.watchers.get(due.slot).must_read(changes, &due.matched);
            if must_read {
                self.make_slow(due.slot, changes.revision);
            }
            !must_read
        });
    }

    /// For those who asked.
    fn read_previous(&self, changes: &Changes, due: &[Due]) -> Result<(), StoreError> {
        let asked = due.iter().filter(|due| self.watchers.get(due.slot).prev_kv);
        for due in asked {
            let events: Vec<_> = due.matched.events(changes).collect();
            super::read_previous(&*self.shared.history, &events)?;
        }
        Ok(())
    }

    /// Who was given a part of a revision hears of its end, though nothing of it may be left for that watcher.
    fn note_parts(&mut self, changes: &Changes, is_part: bool, due: &mut Vec<Due>) {
        if is_part {
            for due in due.iter() {
                self.watchers.get_mut(due.slot).has_part = true;
            }
            return;
        }
        for due in due.iter() {
            self.watchers.get_mut(due.slot).has_part = false;
        }
        let Some(inside) = self
            .inside
            .as_ref()
            .filter(|inside| inside.at.revision == changes.revision)
        else {
            return;
        };
        for ticket in &inside.tickets {
            let Some(slot) = self.watchers.redeem(*ticket) else {
                continue;
            };
            if std::mem::take(&mut self.watchers.get_mut(slot).has_part) {
                let matched = Matched::Runs([].into());
                due.push(Due { slot, matched });
            }
        }
    }
}
