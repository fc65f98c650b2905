//! Concurrent clients of a [`Store`] that does one thing at a time: histories that are right.

use barque_checks::history::{
    Answer, Compare, FaultRecord, History, LeaderRecord, MemberState, Operation, Order, Outcome, Relation,
    Request, Response, Shape, Target,
};

use super::{dice::Dice, store::Store, watching};

#[derive(Debug, Clone)]
pub struct Traffic {
    pub seed: u64,
    pub clients: u32,
    pub operations: usize,
    pub keys: u64,
    /// The longest pause of a client between two calls, in microseconds.
    pub pause: u64,
    /// Of a hundred operations.
    pub unknown: u64,
    pub not_applied: u64,
    /// Whether txns and ranges touch several keys.
    pub tied: bool,
    pub leases: bool,
    pub watches: usize,
}

impl Default for Traffic {
    fn default() -> Traffic {
        Traffic {
            seed: 1,
            clients: 5,
            operations: 300,
            keys: 6,
            pause: 3000,
            unknown: 6,
            not_applied: 3,
            tied: true,
            leases: false,
            watches: 4,
        }
    }
}

pub const MEMBERS: u32 = 3;

/// How far a member is behind with what nobody asked it for.
pub fn lag(member: u32) -> u64 {
    [0, 4000, 15_000][member as usize % 3]
}

/// An operation before it is known what it does.
struct Slot {
    client: u32,
    member: u32,
    call: u64,
    /// `None`: it never takes effect.
    effect: Option<u64>,
    ret: Option<u64>,
    fate: Fate,
}

#[derive(PartialEq)]
enum Fate {
    Answered,
    Refused,
    Unknown,
}

impl Traffic {
    pub fn history(&self) -> History {
        self.history_and_store().0
    }

    pub fn history_and_store(&self) -> (History, Store) {
        let mut dice = Dice::new(self.seed);
        let mut slots = self.slots(&mut dice);
        slots.sort_by_key(|slot| slot.effect.unwrap_or(slot.call));
        let mut run = Run {
            traffic: self,
            store: Store::new(),
            applied: vec![1; MEMBERS as usize],
            sequences: vec![0; self.clients as usize],
            next_lease: 100,
            dice,
        };
        let mut operations: Vec<Operation> = slots.into_iter().map(|slot| run.operation(slot)).collect();
        operations.sort_by_key(|operation| (operation.call, operation.client));
        let busy = operations
            .iter()
            .map(|operation| operation.call)
            .max()
            .unwrap_or_default();
        let end = busy + 1_000_000;
        let Run {
            mut store, mut dice, ..
        } = run;
        store.expire(end);
        let watches = watching::watches(&store, self, end, &mut dice);
        let history = History {
            seed: self.seed,
            description: "three members that do one thing at a time".to_owned(),
            members: (0..MEMBERS).collect(),
            operations,
            watches,
            states: states(&store),
            faults: vec![fault(busy)],
            requested_faults: vec!["kill".to_owned()],
            leaders: vec![leader(0, 1, 0), leader(end / 2, 2, 1)],
            committed: Some(store.committed()),
            aftermath_us: Some(0),
            ..History::default()
        };
        (history, store)
    }

    fn slots(&self, dice: &mut Dice) -> Vec<Slot> {
        let mut free = vec![0; self.clients as usize];
        let mut slots = Vec::new();
        for _ in 0..self.operations {
            let client = dice.below(u64::from(self.clients)) as u32;
            let call = free[client as usize] + 1 + dice.below(self.pause);
            let effect = call + dice.below(2000);
            let ret = effect + dice.below(2000);
            free[client as usize] = ret;
            let mut slot = Slot {
                client,
                member: dice.below(u64::from(MEMBERS)) as u32,
                call,
                effect: Some(effect),
                ret: Some(ret),
                fate: Fate::Answered,
            };
            if dice.in_hundred(self.unknown) {
                slot.fate = Fate::Unknown;
                slot.ret = Some(ret).filter(|_| dice.in_hundred(70));
                slot.effect = Some(call + dice.below(60_000)).filter(|_| dice.in_hundred(60));
            } else if dice.in_hundred(self.not_applied) {
                slot.fate = Fate::Refused;
                slot.effect = None;
            }
            slots.push(slot);
        }
        slots
    }
}

fn states(store: &Store) -> Vec<MemberState> {
    let state = |member| MemberState {
        member,
        revision: store.revision,
        compact_revision: store.compacted,
        applied: 1000,
        hash: 0xfeed,
        hash_revision: store.revision,
    };
    (0..MEMBERS).map(state).collect()
}

fn fault(busy: u64) -> FaultRecord {
    FaultRecord {
        kind: "kill".to_owned(),
        members: vec![0],
        from: busy / 2,
        until: busy / 2 + busy / 20,
        observed: Some("exited by signal 9".to_owned()),
    }
}

fn leader(time: u64, term: u64, member: u32) -> LeaderRecord {
    LeaderRecord { time, term, member }
}

struct Run<'t> {
    traffic: &'t Traffic,
    store: Store,
    /// By member.
    applied: Vec<i64>,
    /// By client.
    sequences: Vec<u64>,
    next_lease: i64,
    dice: Dice,
}

impl Run<'_> {
    fn operation(&mut self, slot: Slot) -> Operation {
        let request = self.request(slot.client);
        let outcome = match (slot.fate, slot.effect) {
            (Fate::Refused, _) => Outcome::NotApplied("etcdserver: no leader".to_owned()),
            (Fate::Unknown, effect) => {
                if let Some(effect) = effect {
                    // What it would have been answered nobody knows.
                    let _ = self.store.run(&request, effect);
                }
                Outcome::Unknown("etcdserver: request timed out".to_owned())
            }
            (Fate::Answered, effect) => {
                match self.run(&request, slot.member, effect.expect("it took effect")) {
                    Ok(response) => Outcome::Done(response),
                    Err(error) => Outcome::NotApplied(error),
                }
            }
        };
        Operation {
            client: slot.client,
            member: slot.member,
            life: 0,
            call: slot.call,
            ret: slot.ret,
            request,
            outcome,
        }
    }

    fn run(&mut self, request: &Request, member: u32, now: u64) -> Result<Response, String> {
        let at = member as usize;
        let own = self
            .store
            .revision_at(now.saturating_sub(lag(member)))
            .max(self.applied[at]);
        let response = match request {
            read if read.is_serializable() => self.store.read(read, own)?,
            _ => self.store.run(request, now)?,
        };
        let told_by_the_leader = matches!(
            response.answer,
            Answer::LeaseKeepAlive { .. } | Answer::LeaseTimeToLive { .. }
        );
        let revision = if told_by_the_leader {
            own
        } else {
            response.revision
        };
        self.applied[at] = self.applied[at].max(revision);
        Ok(Response { revision, ..response })
    }

    fn key(&mut self) -> String {
        format!("k{:04}", self.dice.below(self.traffic.keys))
    }

    fn value(&mut self, client: u32) -> String {
        let sequence = &mut self.sequences[client as usize];
        *sequence += 1;
        format!("{client}/{sequence}")
    }

    fn request(&mut self, client: u32) -> Request {
        if self.traffic.leases && self.dice.in_hundred(25) {
            return self.lease_request();
        }
        match self.dice.below(100) {
            0..30 => self.put(client),
            30..32 if self.traffic.tied => Request::DeleteRange {
                from: self.key(),
                to: self.key(),
                prev_kv: self.dice.in_hundred(50),
            },
            30..38 => Request::Delete {
                key: self.key(),
                prev_kv: self.dice.in_hundred(50),
            },
            38..60 => self.get(),
            60..70 if self.traffic.tied => self.range(),
            60..70 => self.get(),
            70..90 => self.update(client),
            90..97 if self.traffic.tied => self.exchange(client),
            90..97 => self.put(client),
            97..99 => self.past(),
            _ => Request::Compact {
                revision: self.store.compacted.max(self.store.revision - 20) + self.dice.below(5) as i64 - 1,
            },
        }
    }

    fn put(&mut self, client: u32) -> Request {
        let attached = self.traffic.leases && self.dice.in_hundred(40);
        Request::Put {
            key: self.key(),
            value: self.value(client),
            prev_kv: self.dice.in_hundred(30),
            lease: if attached { self.lease() } else { 0 },
        }
    }

    /// Mostly one that there is.
    fn lease(&mut self) -> i64 {
        let oldest = (self.next_lease - 6).max(100);
        oldest + self.dice.below((self.next_lease - oldest).max(1) as u64) as i64
    }

    fn lease_request(&mut self) -> Request {
        let id = self.lease();
        match self.dice.below(10) {
            0..3 => {
                self.next_lease += 1;
                Request::LeaseGrant {
                    id: self.next_lease - 1,
                    ttl: 1 + self.dice.below(2) as i64,
                }
            }
            3..7 => Request::LeaseKeepAlive { id },
            7..9 => Request::LeaseTimeToLive { id },
            _ => Request::LeaseRevoke { id },
        }
    }

    fn get(&mut self) -> Request {
        Request::Get {
            key: self.key(),
            serializable: self.dice.in_hundred(30),
            revision: 0,
        }
    }

    fn range(&mut self) -> Request {
        Request::Range {
            from: self.key(),
            to: if self.dice.in_hundred(30) {
                "\0".to_owned()
            } else {
                self.key() + "~"
            },
            serializable: self.dice.in_hundred(30),
            revision: 0,
            limit: self.dice.below(4) as i64,
            shape: match self.dice.in_hundred(40) {
                true => self.shape(),
                false => Shape::default(),
            },
        }
    }

    fn shape(&mut self) -> Shape {
        let orders = [
            Order::ByKey,
            Order::ByKeyDescending,
            Order::ByValue,
            Order::ByValueDescending,
        ];
        let bound = self.dice.below(self.store.revision as u64 + 1) as i64;
        let mut shape = Shape {
            order: orders[self.dice.below(4) as usize],
            keys_only: self.dice.in_hundred(20),
            count_only: self.dice.in_hundred(20),
            ..Shape::default()
        };
        match self.dice.below(6) {
            0 => shape.min_mod = bound,
            1 => shape.max_mod = bound,
            2 => shape.min_create = bound,
            3 => shape.max_create = bound,
            _ => {}
        }
        shape
    }

    fn past(&mut self) -> Request {
        Request::Get {
            key: self.key(),
            serializable: false,
            revision: 1 + self.dice.below(self.store.revision as u64) as i64,
        }
    }

    /// What an apiserver does: change it if it is as it was read, else read it again.
    fn update(&mut self, client: u32) -> Request {
        let key = self.key();
        let known = self
            .store
            .at(&key, self.store.revision - self.dice.below(3) as i64);
        let revision = known.map_or(0, |kv| kv.mod_revision);
        let put = Request::put(&key, self.value(client));
        let change = if self.dice.in_hundred(80) {
            put
        } else {
            Request::delete(&key)
        };
        let read = Request::get(&key);
        Request::Txn {
            compares: vec![Compare {
                key,
                to: String::new(),
                target: Target::ModRevision(revision),
                relation: Relation::Equal,
            }],
            then: vec![change],
            otherwise: if self.dice.in_hundred(70) {
                vec![read]
            } else {
                Vec::new()
            },
        }
    }

    /// A txn over several keys, with one nested in it.
    fn exchange(&mut self, client: u32) -> Request {
        let (one, other) = (self.key(), self.key());
        let nested = Request::Txn {
            compares: vec![self.compare(&other)],
            then: vec![Request::get(&one)],
            otherwise: vec![Request::delete(&one)],
        };
        let mut then = vec![Request::put(&one, self.value(client)), Request::get(&one)];
        if one != other {
            then.push(Request::delete(&other));
        }
        Request::Txn {
            compares: vec![self.compare(&one), self.compare(&other)],
            then,
            otherwise: vec![nested, self.range()],
        }
    }

    fn compare(&mut self, key: &str) -> Compare {
        let relation = match self.dice.below(4) {
            0 => Relation::Equal,
            1 => Relation::NotEqual,
            2 => Relation::Less,
            _ => Relation::Greater,
        };
        let target = match self.dice.below(4) {
            0 => Target::Value(format!("{}/{}", self.dice.below(5), self.dice.below(20))),
            1 => Target::ModRevision(self.dice.below(self.store.revision as u64 + 1) as i64),
            2 => Target::CreateRevision(self.dice.below(self.store.revision as u64 + 1) as i64),
            _ => Target::Version(self.dice.below(4) as i64),
        };
        Compare {
            key: key.to_owned(),
            to: match self.traffic.tied && self.dice.in_hundred(30) {
                true => self.key() + "~",
                false => String::new(),
            },
            target,
            relation,
        }
    }
}
