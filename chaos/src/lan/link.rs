//! What happens to packets on their way from one host to another: [`Link`].

use std::time::Duration;

use rand::{Rng, SeedableRng, rngs::StdRng};

/// One direction.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Link {
    pub blocked: bool,
    /// Of a thousand packets, how many get lost.
    pub lost: u32,
    pub delay: Duration,
}

/// Packets, by what was done to them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Passed {
    /// All that were not dropped or lost, late ones included.
    pub delivered: u64,
    pub blocked: u64,
    pub lost: u64,
    pub delayed: u64,
}

pub(super) struct Links {
    hosts: usize,
    links: Vec<Link>,
    dice: StdRng,
    pub(super) passed: Passed,
}

impl Links {
    pub(super) fn new(hosts: usize, seed: u64) -> Links {
        Links {
            hosts,
            links: vec![Link::default(); hosts * hosts],
            dice: StdRng::seed_from_u64(seed),
            passed: Passed::default(),
        }
    }

    pub(super) fn link(&mut self, from: usize, to: usize) -> &mut Link {
        &mut self.links[from * self.hosts + to]
    }

    pub(super) fn heal(&mut self) {
        self.links.fill(Link::default());
    }

    /// How long a packet is under way; `None`: for ever.
    pub(super) fn pass(&mut self, from: usize, to: usize) -> Option<Duration> {
        let link = *self.link(from, to);
        if link.blocked {
            self.passed.blocked += 1;
            return None;
        }
        if link.lost > 0 && self.dice.random_range(0..1000) < link.lost {
            self.passed.lost += 1;
            return None;
        }
        self.passed.delivered += 1;
        self.passed.delayed += u64::from(!link.delay.is_zero());
        Some(link.delay)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_direction_is_blocked_and_the_other_is_not() {
        let mut links = Links::new(3, 1);
        links.link(0, 2).blocked = true;
        assert_eq!(links.pass(0, 2), None);
        assert_eq!(links.pass(2, 0), Some(Duration::ZERO));
        assert_eq!(links.pass(0, 1), Some(Duration::ZERO));
        links.heal();
        assert_eq!(links.pass(0, 2), Some(Duration::ZERO));
        let passed = links.passed;
        assert_eq!((passed.delivered, passed.blocked), (3, 1));
    }

    #[test]
    fn a_share_is_lost() {
        let mut links = Links::new(2, 1);
        links.link(0, 1).lost = 250;
        links.link(0, 1).delay = Duration::from_millis(5);
        let arrived = (0..4000).filter(|_| links.pass(0, 1).is_some()).count();
        assert!((2800..3200).contains(&arrived), "{arrived}");
        assert_eq!(links.passed.lost, 4000 - arrived as u64);
        assert_eq!(links.passed.delayed, arrived as u64);
    }
}
