//! Faults that last: begun, ended, and noted with what was seen of them.

use barque_checks::history::FaultRecord;
use rand::Rng;

use crate::{
    faults::{start, victim},
    interpose::now_us,
    kind::Kind,
    network::{HostId, Passed},
    world::World,
};

/// A fault under way.
pub struct Lasting {
    kind: Kind,
    from: u64,
    /// The first of them is the one it was aimed at.
    members: Vec<HostId>,
    at: usize,
    /// As it was when it began.
    leader: Option<usize>,
    passed: Passed,
    syncs: u64,
    sync_us: u64,
}

pub fn begin(world: &mut World, kind: Kind) -> Lasting {
    let at = victim(world);
    let mut lasting = Lasting {
        kind,
        from: now_us(),
        members: vec![world.members[at].id],
        at,
        leader: world.leader(),
        passed: world.network.passed(),
        syncs: world.members[at].disk.syncs(),
        sync_us: 0,
    };
    match kind {
        Kind::Partition | Kind::OneWay => lasting.cut_links(world),
        Kind::Partial => lasting.cut_one_link(world),
        Kind::Delay | Kind::Loss => lasting.degrade(world),
        Kind::SlowDisk => {
            lasting.sync_us = world.rng.random_range(20_000..600_000);
            let slow = (lasting.sync_us / 4, lasting.sync_us);
            world.members[at].disk.set_pace(slow.0, slow.1);
        }
        _ => world.members[at].freeze(),
    }
    lasting
}

impl Lasting {
    /// Whether both can last at the same time: each undoes what it did, and nothing else.
    pub fn goes_with(&self, other: Kind) -> bool {
        let of_links = |kind| {
            matches!(
                kind,
                Kind::Partition | Kind::OneWay | Kind::Partial | Kind::Delay | Kind::Loss
            )
        };
        self.kind != other && !(of_links(self.kind) && of_links(other))
    }

    fn cut_links(&mut self, world: &mut World) {
        if world.members.len() > 3 && world.rng.random_bool(0.5) {
            let other = (self.at + 1) % world.members.len();
            self.members.push(world.members[other].id);
        }
        let one_way = self.kind == Kind::OneWay;
        let outward = world.rng.random_bool(0.5);
        for a in &self.members {
            for b in world.ids().iter().filter(|b| !self.members.contains(b)) {
                let (out, back) = (!one_way || outward, !one_way || !outward);
                world.network.set(*a, *b, |link| link.blocked = out);
                world.network.set(*b, *a, |link| link.blocked = back);
            }
        }
    }

    fn cut_one_link(&mut self, world: &mut World) {
        let others = world.members.len() - 1;
        let other = (self.at + 1 + world.rng.random_range(0..others)) % world.members.len();
        let (a, b) = (self.members[0], world.members[other].id);
        self.members.push(b);
        world.network.set(a, b, |link| link.blocked = true);
        world.network.set(b, a, |link| link.blocked = true);
    }

    fn degrade(&mut self, world: &mut World) {
        self.members = world.ids();
        for a in &self.members {
            for b in &self.members {
                let least = world.rng.random_range(0..20_000);
                let most = least + world.rng.random_range(0..150_000);
                let lost = world.rng.random_range(0..200);
                world.network.set(*a, *b, |link| match self.kind {
                    Kind::Loss => link.lost = lost,
                    _ => (link.least_us, link.most_us) = (least, most),
                });
            }
        }
    }

    pub fn end(self, world: &mut World) -> FaultRecord {
        let observed = match self.kind {
            Kind::SlowDisk => self.end_slow_disk(world),
            Kind::Frozen => {
                let wanted_a_turn = world.members[self.at].thaw() == Some(true);
                wanted_a_turn.then(|| "it had something to do and did nothing".into())
            }
            _ => {
                world.network.heal();
                self.of_links(world)
            }
        };
        FaultRecord {
            kind: self.kind.name().into(),
            members: self.members,
            from: self.from,
            until: now_us(),
            observed,
        }
    }

    fn of_links(&self, world: &World) -> Option<String> {
        let now = world.network.passed();
        let (delayed, lost, held) = (
            now.delayed - self.passed.delayed,
            now.lost - self.passed.lost,
            now.held - self.passed.held,
        );
        match self.kind {
            Kind::Loss => (lost > 0).then(|| format!("{lost} packets lost")),
            Kind::Delay => (delayed > 0).then(|| format!("{delayed} writes took up to 170 ms")),
            _ if held == 0 => None,
            _ if world.leader() == self.leader => Some(format!("{held} reads held, the same leader")),
            _ => Some(format!("{held} reads held, another leader")),
        }
    }

    /// Often it was about to break: then much waits to be written when the power goes.
    fn end_slow_disk(&self, world: &mut World) -> Option<String> {
        let breaks = world.rng.random_bool(0.4);
        if breaks {
            world.members[self.at].crash(true);
        }
        let disk = &world.members[self.at].disk;
        disk.set_healthy_pace();
        let syncs = disk.syncs() - self.syncs;
        let seen = format!("{syncs} syncs took up to {} µs", self.sync_us);
        if breaks {
            start(world, self.at);
        }
        (syncs > 0).then(|| match breaks {
            true => format!("{seen}, and then the power was cut"),
            false => seen,
        })
    }
}
