//! What a client does next, drawn from its seed.

use barque_checks::history::{Compare, Order, Relation, Request, Shape, Target};
use rand::{Rng, rngs::StdRng};

use crate::Plan;

/// Of a value's padding: it fits the smallest batch of a simulated member, and a few dozen fill a stream's window.
const LARGE_BYTES: std::ops::Range<usize> = 500..2500;

/// One client's dice, and what it remembers of what it saw.
pub struct Choice {
    pub rng: StdRng,
    client: u32,
    sequence: u64,
    prefix: String,
    keys: u32,
    large_values: bool,
    wide: bool,
    /// The last revision that it saw of anything.
    pub seen: i64,
    /// The last value that it saw of each key, with its mod revision.
    pub values: std::collections::BTreeMap<String, (String, i64)>,
}

impl Choice {
    pub fn new(plan: &Plan, client: u32) -> Choice {
        use rand::SeedableRng;
        Choice {
            rng: StdRng::seed_from_u64(plan.seed.wrapping_mul(1_000_003).wrapping_add(client.into())),
            client,
            sequence: 0,
            prefix: plan.prefix.clone(),
            keys: plan.keys,
            large_values: plan.large_values,
            wide: plan.wide_requests,
            seen: 0,
            values: Default::default(),
        }
    }

    pub fn key(&mut self) -> String {
        format!("{}{:02}", self.prefix, self.rng.random_range(0..self.keys))
    }

    /// One that no other client writes, between those that all do.
    pub fn own_key(&mut self) -> String {
        format!("{}/{}", self.key(), self.client)
    }

    /// Never the same twice in a run.
    pub fn value(&mut self) -> String {
        self.sequence += 1;
        let value = format!("{}/{}", self.client, self.sequence);
        if !self.large_values || self.rng.random_bool(0.8) {
            return value;
        }
        let padding = self.rng.random_range(LARGE_BYTES);
        format!("{value}/{}", "x".repeat(padding))
    }

    /// One of those that hang on a lease with many; no other client has any like it, and no range but of all keys.
    pub fn leased_key(&mut self, number: u32) -> String {
        format!("{}z{}/{number:02}", self.prefix, self.client)
    }

    pub fn member(&mut self, members: &[u32]) -> u32 {
        members[self.rng.random_range(0..members.len())]
    }

    pub fn request(&mut self) -> Request {
        match self.rng.random_range(0..100) {
            0..36 => self.put(),
            36..44 => self.delete(),
            44..60 => Request::get(self.key()),
            60..68 => self.get(true, 0),
            68..72 => {
                let back = self.rng.random_range(0..20);
                self.get(false, (self.seen - back).max(0))
            }
            72..78 => self.range(),
            78..80 if self.wide => self.delete_range(),
            _ => self.txn(),
        }
    }

    /// Mostly a linearizable one.
    pub fn read(&mut self) -> Request {
        match self.rng.random_range(0..10) {
            0..7 => Request::get(self.key()),
            7..9 => self.range(),
            _ => self.get(true, 0),
        }
    }

    fn put(&mut self) -> Request {
        Request::Put {
            key: self.key(),
            value: self.value(),
            prev_kv: self.rng.random_bool(0.3),
            lease: 0,
        }
    }

    fn delete(&mut self) -> Request {
        Request::Delete {
            key: self.key(),
            prev_kv: self.rng.random_bool(0.3),
        }
    }

    fn get(&mut self, serializable: bool, revision: i64) -> Request {
        Request::Get {
            key: self.key(),
            serializable,
            revision,
        }
    }

    fn range(&mut self) -> Request {
        let (from, to) = self.span();
        Request::Range {
            from,
            to,
            serializable: self.rng.random_bool(0.3),
            revision: 0,
            limit: self.rng.random_range(0..4),
            shape: match self.wide && self.rng.random_bool(0.5) {
                true => self.shape(),
                false => Shape::default(),
            },
        }
    }

    /// From one key to another, the last one itself inside.
    fn span(&mut self) -> (String, String) {
        let (a, b) = (self.key(), self.key());
        (a.clone().min(b.clone()), format!("{}\0", a.max(b)))
    }

    fn shape(&mut self) -> Shape {
        let mut shape = Shape {
            order: [
                Order::ByKey,
                Order::ByKeyDescending,
                Order::ByValue,
                Order::ByValueDescending,
            ][self.rng.random_range(0..4)],
            keys_only: self.rng.random_bool(0.2),
            count_only: self.rng.random_bool(0.2),
            ..Shape::default()
        };
        let bound = (self.seen - self.rng.random_range(0..30)).max(1);
        match self.rng.random_range(0..8) {
            0 => shape.min_mod = bound,
            1 => shape.max_mod = bound,
            2 => shape.min_create = bound,
            3 => shape.max_create = bound,
            _ => {}
        }
        shape
    }

    /// Of two neighbours, or of what hangs between one and the next: most keys are to be there most of the time.
    fn delete_range(&mut self) -> Request {
        let first = self.rng.random_range(0..self.keys);
        Request::DeleteRange {
            from: format!("{}{first:02}", self.prefix),
            to: format!("{}{:02}", self.prefix, first + self.rng.random_range(1..3)),
            prev_kv: self.rng.random_bool(0.5),
        }
    }

    /// Mostly compare-and-swap on one key; now and then on two, or something else altogether.
    fn txn(&mut self) -> Request {
        match self.wide && self.rng.random_bool(0.25) {
            true => self.wide_txn(),
            false => self.narrow_txn(),
        }
    }

    /// A compare over a range, and a txn in a txn.
    fn wide_txn(&mut self) -> Request {
        let (from, to) = self.span();
        let bound = (self.seen - self.rng.random_range(0..20)).max(0);
        let over_range = Compare {
            key: from.clone(),
            to: to.clone(),
            target: match self.rng.random_range(0..3) {
                0 => Target::CreateRevision(0),
                1 => Target::Version(self.rng.random_range(1..6)),
                _ => Target::ModRevision(bound),
            },
            relation: [Relation::Less, Relation::Greater, Relation::NotEqual][self.rng.random_range(0..3)],
        };
        let read = Request::Range {
            from,
            to,
            serializable: false,
            revision: 0,
            limit: 0,
            shape: self.shape(),
        };
        let inner = self.narrow_txn();
        let put = Request::put(self.own_key(), self.value());
        Request::Txn {
            compares: vec![over_range],
            then: vec![put, inner],
            otherwise: vec![read],
        }
    }

    fn narrow_txn(&mut self) -> Request {
        let key = self.key();
        let compares = vec![self.compare(&key)];
        let mut then = vec![match self.rng.random_range(0..5) {
            0 => Request::delete(key.clone()),
            _ => Request::put(key.clone(), self.value()),
        }];
        if self.rng.random_bool(0.2) {
            let other = self.key();
            if other != key {
                then.push(Request::put(other, self.value()));
            }
        }
        then.push(Request::get(key.clone()));
        let otherwise = vec![Request::get(key)];
        Request::Txn {
            compares,
            then,
            otherwise,
        }
    }

    fn compare(&mut self, key: &str) -> Compare {
        let (value, mod_revision) = self.values.get(key).cloned().unwrap_or_default();
        let (target, relation) = match self.rng.random_range(0..5) {
            0 => (Target::CreateRevision(0), Relation::Equal),
            1 => (Target::CreateRevision(0), Relation::NotEqual),
            2 => (Target::Version(3), Relation::Less),
            3 if !value.is_empty() => (Target::Value(value), Relation::Equal),
            _ => (Target::ModRevision(mod_revision), Relation::Equal),
        };
        Compare {
            key: key.to_owned(),
            to: String::new(),
            target,
            relation,
        }
    }
}
