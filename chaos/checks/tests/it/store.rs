//! The keyspace at its simplest, one request after the other: [`Store`]. Shares no code with what the checks believe.

use std::collections::BTreeMap;

use barque_checks::history::{
    Answer, Committed, CommittedRevision, Compare, EventKind, KeySpan, KeyValue, Relation, Request, Response,
    Shape, Target, WatchEvent,
};

pub const COMPACTED: &str = "mvcc: required revision has been compacted";
pub const NO_LEASE: &str = "requested lease not found";

pub struct Store {
    pub revision: i64,
    pub compacted: i64,
    /// What each key was from which revision on.
    versions: BTreeMap<String, Vec<(i64, Option<KeyValue>)>>,
    pub leases: BTreeMap<i64, Lease>,
    pub log: Vec<CommittedRevision>,
    /// When each of the log was made.
    pub times: Vec<u64>,
    pending: Vec<WatchEvent>,
}

pub struct Lease {
    pub ttl: i64,
    pub deadline: u64,
}

impl Store {
    pub fn new() -> Store {
        Store {
            revision: 1,
            compacted: 0,
            versions: BTreeMap::new(),
            leases: BTreeMap::new(),
            log: Vec::new(),
            times: Vec::new(),
            pending: Vec::new(),
        }
    }

    pub fn committed(&self) -> Committed {
        Committed::whole(self.log.clone())
    }

    /// The newest revision made by then.
    pub fn revision_at(&self, time: u64) -> i64 {
        1 + self.times.partition_point(|made| *made <= time) as i64
    }

    pub fn at(&self, key: &str, revision: i64) -> Option<&KeyValue> {
        let versions = self.versions.get(key)?;
        versions
            .iter()
            .rev()
            .find(|(from, _)| *from <= revision)?
            .1
            .as_ref()
    }

    pub fn content(&self, span: &KeySpan, revision: i64) -> Vec<KeyValue> {
        let keys = self.versions.keys().filter(|key| span.contains(key));
        keys.filter_map(|key| self.at(key, revision)).cloned().collect()
    }

    pub fn keys_of(&self, lease: i64) -> Vec<String> {
        let keys = self.versions.keys();
        let attached = |key: &&String| self.at(key, self.revision).is_some_and(|kv| kv.lease == lease);
        keys.filter(attached).cloned().collect()
    }

    /// All leases that are over by then, each as one revision.
    pub fn expire(&mut self, now: u64) {
        let mut over: Vec<(u64, i64)> = Vec::new();
        over.extend(
            self.leases
                .iter()
                .map(|(id, lease)| (lease.deadline, *id))
                .filter(|(at, _)| *at < now),
        );
        over.sort_unstable();
        for (deadline, id) in over {
            self.remove_lease(id, deadline + 1);
        }
    }

    fn remove_lease(&mut self, id: i64, now: u64) {
        self.leases.remove(&id);
        for key in self.keys_of(id) {
            self.delete(&key);
        }
        self.commit(now);
    }

    /// Runs it now.
    pub fn run(&mut self, request: &Request, now: u64) -> Result<Response, String> {
        self.expire(now);
        let answer = self.answer(request, now);
        if answer.is_err() {
            assert!(self.pending.is_empty(), "a refused request changes nothing");
        }
        let answer = answer?;
        self.commit(now);
        Ok(Response {
            revision: self.revision,
            answer,
        })
    }

    /// A read from what was there at a revision.
    pub fn read(&self, request: &Request, revision: i64) -> Result<Response, String> {
        let (span, asked, limit, shape) = match request {
            Request::Get { key, revision, .. } => (KeySpan::one(key), *revision, 0, Shape::default()),
            Request::Range {
                from,
                to,
                revision,
                limit,
                shape,
                ..
            } => (KeySpan::new(from, to), *revision, *limit, *shape),
            other => panic!("not a read: {other}"),
        };
        if asked > 0 && asked < self.compacted {
            return Err(COMPACTED.to_owned());
        }
        let kvs = self.content(&span, if asked > 0 { asked } else { revision });
        let count = kvs.len() as i64;
        let (kvs, more) = shape.apply(kvs, limit as usize);
        let answer = Answer::Range { kvs, count, more };
        Ok(Response { revision, answer })
    }

    fn commit(&mut self, now: u64) {
        if !self.pending.is_empty() {
            self.revision += 1;
            let events = std::mem::take(&mut self.pending);
            self.log.push(CommittedRevision {
                revision: self.revision,
                events,
            });
            self.times.push(now);
        }
    }

    fn answer(&mut self, request: &Request, now: u64) -> Result<Answer, String> {
        self.check_leases(request)?;
        Ok(match request {
            Request::LeaseGrant { id, ttl } => {
                let deadline = now + *ttl as u64 * 1_000_000;
                self.leases.insert(*id, Lease { ttl: *ttl, deadline });
                Answer::LeaseGrant { id: *id, ttl: *ttl }
            }
            Request::LeaseRevoke { id } => {
                if !self.leases.contains_key(id) {
                    return Err(NO_LEASE.to_owned());
                }
                self.remove_lease(*id, now);
                Answer::LeaseRevoke
            }
            Request::LeaseKeepAlive { id } => match self.leases.get_mut(id) {
                Some(lease) => {
                    lease.deadline = now + lease.ttl as u64 * 1_000_000;
                    Answer::LeaseKeepAlive { ttl: lease.ttl }
                }
                None => Answer::LeaseKeepAlive { ttl: 0 },
            },
            Request::LeaseTimeToLive { id } => match self.leases.get(id) {
                Some(lease) => Answer::LeaseTimeToLive {
                    ttl: (lease.deadline.saturating_sub(now) / 1_000_000) as i64,
                    granted_ttl: lease.ttl,
                },
                None => Answer::LeaseTimeToLive {
                    ttl: -1,
                    granted_ttl: 0,
                },
            },
            Request::Compact { revision } if *revision <= self.compacted => return Err(COMPACTED.to_owned()),
            Request::Compact { revision } => {
                self.compacted = *revision;
                Answer::Compact
            }
            Request::Get { .. } | Request::Range { .. } => self.read(request, self.revision)?.answer,
            _ => {
                let mut branches = Vec::new();
                self.decide(request, &mut branches);
                branches.reverse();
                self.change(request, &mut branches)
            }
        })
    }

    fn check_leases(&self, request: &Request) -> Result<(), String> {
        let mut missing = false;
        request.visit(&mut |request| {
            if let Request::Put { lease, .. } = request {
                missing |= *lease != 0 && !self.leases.contains_key(lease);
            }
        });
        if missing { Err(NO_LEASE.to_owned()) } else { Ok(()) }
    }

    /// The branch of every txn on the way, in the order in which they are met.
    fn decide(&self, request: &Request, branches: &mut Vec<bool>) {
        if let Request::Txn {
            compares,
            then,
            otherwise,
        } = request
        {
            let succeeded = compares.iter().all(|compare| self.holds(compare));
            branches.push(succeeded);
            for nested in if succeeded { then } else { otherwise } {
                self.decide(nested, branches);
            }
        }
    }

    fn holds(&self, compare: &Compare) -> bool {
        if compare.to.is_empty() {
            return Self::holds_of(compare, self.at(&compare.key, self.revision));
        }
        let kvs = self.content(&KeySpan::new(&compare.key, &compare.to), self.revision);
        match kvs.is_empty() {
            true => Self::holds_of(compare, None),
            false => kvs.iter().all(|kv| Self::holds_of(compare, Some(kv))),
        }
    }

    fn holds_of(compare: &Compare, kv: Option<&KeyValue>) -> bool {
        let ordering = match &compare.target {
            Target::Value(given) => match kv {
                None => return false,
                Some(kv) => kv.value.as_str().cmp(given),
            },
            Target::ModRevision(given) => kv.map_or(0, |kv| kv.mod_revision).cmp(given),
            Target::CreateRevision(given) => kv.map_or(0, |kv| kv.create_revision).cmp(given),
            Target::Version(given) => kv.map_or(0, |kv| kv.version).cmp(given),
        };
        match compare.relation {
            Relation::Equal => ordering.is_eq(),
            Relation::NotEqual => ordering.is_ne(),
            Relation::Less => ordering.is_lt(),
            Relation::Greater => ordering.is_gt(),
        }
    }

    fn change(&mut self, request: &Request, branches: &mut Vec<bool>) -> Answer {
        match request {
            Request::Put {
                key,
                value,
                prev_kv,
                lease,
            } => {
                let old = self.at(key, i64::MAX).cloned();
                let next = self.revision + 1;
                let kv = KeyValue {
                    key: key.clone(),
                    value: value.clone(),
                    create_revision: old.as_ref().map_or(next, |old| old.create_revision),
                    mod_revision: next,
                    version: old.as_ref().map_or(1, |old| old.version + 1),
                    lease: *lease,
                };
                self.pending.push(WatchEvent::put(&kv));
                self.versions
                    .entry(key.clone())
                    .or_default()
                    .push((next, Some(kv)));
                Answer::Put {
                    prev_kv: if *prev_kv { old } else { None },
                }
            }
            Request::Delete { key, prev_kv } => {
                let old = self.delete(key);
                Answer::Delete {
                    deleted: old.iter().count() as i64,
                    prev_kvs: if *prev_kv {
                        old.into_iter().collect()
                    } else {
                        Vec::new()
                    },
                }
            }
            Request::DeleteRange { from, to, prev_kv } => {
                let old = self.content(&KeySpan::new(from, to), i64::MAX);
                for kv in &old {
                    self.delete(&kv.key);
                }
                Answer::Delete {
                    deleted: old.len() as i64,
                    prev_kvs: if *prev_kv { old } else { Vec::new() },
                }
            }
            Request::Txn { then, otherwise, .. } => {
                let succeeded = branches.pop().expect("every txn was decided");
                let mut responses = Vec::new();
                for nested in if succeeded { then } else { otherwise } {
                    let answer = self.change(nested, branches);
                    let revision = self.revision + i64::from(!self.pending.is_empty());
                    responses.push(Response { revision, answer });
                }
                Answer::Txn { succeeded, responses }
            }
            read => self.read(read, i64::MAX).expect("a read of now").answer,
        }
    }

    fn delete(&mut self, key: &str) -> Option<KeyValue> {
        let old = self.at(key, i64::MAX).cloned()?;
        let next = self.revision + 1;
        self.pending.push(WatchEvent {
            kind: EventKind::Delete,
            ..WatchEvent::delete(key, next)
        });
        self.versions
            .entry(key.to_owned())
            .or_default()
            .push((next, None));
        Some(old)
    }
}
