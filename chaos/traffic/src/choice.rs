//! What a client does next, drawn from its seed.

use barque_checks::history::{Compare, Relation, Request, Target};
use rand::{Rng, rngs::StdRng};

use crate::Plan;

/// One client's dice, and what it remembers of what it saw.
pub struct Choice {
    pub rng: StdRng,
    client: u32,
    sequence: u64,
    prefix: String,
    keys: u32,
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
        format!("{}/{}", self.client, self.sequence)
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
        let (a, b) = (self.key(), self.key());
        Request::Range {
            from: a.clone().min(b.clone()),
            // The last key itself is inside.
            to: format!("{}\0", a.max(b)),
            serializable: self.rng.random_bool(0.3),
            revision: 0,
            limit: self.rng.random_range(0..4),
        }
    }

    /// Mostly compare-and-swap on one key; now and then on two.
    fn txn(&mut self) -> Request {
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
            target,
            relation,
        }
    }
}
