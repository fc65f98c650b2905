//! The keyspace at its simplest: every revision's full content in a list. What the engine must agree with.

use std::collections::{BTreeMap, BTreeSet};

use barque_proto::command::{
    Compare, DeleteRange, Operation, Put, Range, Txn,
    alarm::Kind,
    command::Op,
    compare::{Result as Is, Target},
    operation,
    range::{SortOrder, SortTarget},
};
use barque_proto::etcd::mvccpb;
use barque_store::{
    CommandError, DeleteRangeResponse, IndexTerm, KeyRange, KeyValue, LeaseGrantResponse, LeaseId, Outcome,
    PutResponse, RangeResult, Response, Revision, TxnResponse,
};
use bytes::Bytes;
use prost::Message;

pub type Content = BTreeMap<Bytes, KeyValue>;

/// A change; `None`: the key was deleted.
pub type Change = (Bytes, Option<KeyValue>);

#[derive(Debug, Clone)]
pub struct Model {
    pub revision: i64,
    pub compact: i64,
    /// By revision; 0 and 1 are empty.
    contents: Vec<Content>,
    /// By revision.
    changes: Vec<Vec<Change>>,
    leases: BTreeMap<i64, (i64, i64)>,
    alarms: BTreeSet<(u64, i32)>,
    /// Of the command under way.
    now: Content,
    pending: Vec<Change>,
}

impl Model {
    pub fn new() -> Self {
        Self {
            revision: 1,
            compact: 0,
            contents: vec![Content::new(); 2],
            changes: vec![Vec::new(); 2],
            leases: BTreeMap::new(),
            alarms: BTreeSet::new(),
            now: Content::new(),
            pending: Vec::new(),
        }
    }

    pub fn apply(&mut self, op: &Op) -> Outcome {
        let before = self.clone();
        let outcome = self.run(op);
        if outcome.is_err() {
            *self = before;
        } else if !self.pending.is_empty() {
            self.revision += 1;
            self.contents.push(self.now.clone());
            self.changes.push(std::mem::take(&mut self.pending));
        }
        outcome
    }

    pub fn at(&self, revision: i64) -> &Content {
        &self.contents[revision as usize]
    }

    pub fn leases(&self) -> Vec<(LeaseId, i64, i64)> {
        self.leases
            .iter()
            .map(|(id, (ttl, left))| (LeaseId(*id), *ttl, *left))
            .collect()
    }

    pub fn lease_keys(&self, lease: i64) -> Vec<Bytes> {
        self.now
            .values()
            .filter(|kv| kv.lease.0 == lease)
            .map(|kv| kv.key.clone())
            .collect()
    }

    /// Every change from `from` on as (revision, change, the version before if that may be known).
    pub fn history(&self, from: i64) -> Vec<(i64, Change, Option<KeyValue>)> {
        let mut told = Vec::new();
        for revision in from..=self.revision {
            for change in &self.changes[revision as usize] {
                let known = revision > self.compact;
                let prev = self.at(revision - 1).get(&change.0).filter(|_| known).cloned();
                told.push((revision, change.clone(), prev));
            }
        }
        told
    }

    /// The changes alone.
    pub fn changes_from(&self, from: i64) -> impl Iterator<Item = (i64, Bytes, Option<KeyValue>)> {
        let from = from.max(0) as usize;
        self.changes
            .iter()
            .enumerate()
            .skip(from)
            .flat_map(|(revision, changes)| {
                changes
                    .iter()
                    .map(move |(key, kv)| (revision as i64, key.clone(), kv.clone()))
            })
    }

    fn current(&self) -> i64 {
        self.revision + i64::from(!self.pending.is_empty())
    }

    fn run(&mut self, op: &Op) -> Outcome {
        let raised = |kind: Kind| self.alarms.iter().any(|(_, raised)| *raised == i32::from(kind));
        if raised(Kind::Corrupt) && !matches!(op, Op::LeaseCheckpoint(_) | Op::Alarm(_)) {
            return Err(CommandError::Corrupt);
        }
        let no_space = raised(Kind::Nospace);
        let needs_space = match op {
            Op::Put(_) | Op::LeaseGrant(_) => true,
            Op::Txn(txn) => puts(txn),
            _ => false,
        };
        if no_space && needs_space {
            return Err(CommandError::NoSpace);
        }
        let revision = Revision(self.revision);
        match op {
            Op::Put(put) => self.put(put).map(Response::Put),
            Op::DeleteRange(delete) => Ok(Response::DeleteRange(self.delete(delete))),
            Op::Txn(txn) => {
                let mut taken = Vec::new();
                self.choose(txn, &mut taken);
                taken.reverse();
                self.txn(txn, &mut taken).map(Response::Txn)
            }
            Op::Compact(compact) if compact.revision <= self.compact => Err(CommandError::Compacted {
                compact_revision: Revision(self.compact),
            }),
            Op::Compact(compact) if compact.revision > self.revision => Err(CommandError::FutureRevision),
            Op::Compact(compact) => {
                self.compact = compact.revision;
                Ok(Response::Compact { revision })
            }
            Op::LeaseGrant(grant) if self.leases.contains_key(&grant.id) => Err(CommandError::LeaseExists),
            Op::LeaseGrant(grant) => {
                self.leases.insert(grant.id, (grant.ttl_s, grant.ttl_s));
                Ok(Response::LeaseGrant(LeaseGrantResponse {
                    revision,
                    id: LeaseId(grant.id),
                    ttl_s: grant.ttl_s,
                }))
            }
            Op::LeaseRevoke(revoke) => {
                self.leases
                    .remove(&revoke.id)
                    .ok_or(CommandError::LeaseNotFound)?;
                for key in self.lease_keys(revoke.id) {
                    self.change(key, None);
                }
                Ok(Response::LeaseRevoke {
                    revision: Revision(self.current()),
                    complete: true,
                })
            }
            Op::LeaseCheckpoint(checkpoint) => {
                for left in &checkpoint.leases {
                    if let Some(lease) = self.leases.get_mut(&left.id) {
                        lease.1 = left.remaining_ttl_s;
                    }
                }
                Ok(Response::LeaseCheckpoint { revision })
            }
            Op::Alarm(alarm) => {
                let entry = (alarm.member_id, alarm.kind);
                if alarm.active {
                    self.alarms.insert(entry)
                } else {
                    self.alarms.remove(&entry)
                };
                Ok(Response::Alarm { revision })
            }
        }
    }

    fn change(&mut self, key: Bytes, kv: Option<KeyValue>) {
        match &kv {
            Some(kv) => self.now.insert(key.clone(), kv.clone()),
            None => self.now.remove(&key),
        };
        self.pending.push((key, kv));
    }

    fn put(&mut self, put: &Put) -> Result<PutResponse, CommandError> {
        if put.lease != 0 && !self.leases.contains_key(&put.lease) {
            return Err(CommandError::LeaseNotFound);
        }
        let old = self.now.get(&put.key).cloned();
        if old.is_none() && (put.ignore_value || put.ignore_lease) {
            return Err(CommandError::KeyNotFound);
        }
        let kept = old.clone().unwrap_or_default();
        let given = put.terms.iter().map(|term| IndexTerm {
            field: term.field.clone(),
            value: term.value.clone(),
        });
        let mut kv = KeyValue {
            key: put.key.clone(),
            value: put.value.clone(),
            create_revision: old
                .as_ref()
                .map_or(Revision(self.revision + 1), |old| old.create_revision),
            mod_revision: Revision(self.revision + 1),
            version: kept.version + 1,
            lease: LeaseId(put.lease),
            terms: given.collect(),
            splice_offset: put.splice_offset,
        };
        if put.ignore_value {
            (kv.value, kv.terms, kv.splice_offset) = (kept.value, kept.terms, kept.splice_offset);
        }
        if put.ignore_lease {
            kv.lease = kept.lease;
        }
        self.change(put.key.clone(), Some(kv));
        Ok(PutResponse {
            revision: Revision(self.current()),
            prev_kv: old.filter(|_| put.prev_kv),
        })
    }

    fn delete(&mut self, delete: &DeleteRange) -> DeleteRangeResponse {
        let range = KeyRange::from_etcd(delete.key.clone(), delete.range_end.clone());
        let doomed: Vec<KeyValue> = self
            .now
            .values()
            .filter(|kv| range.contains(&kv.key))
            .cloned()
            .collect();
        for kv in &doomed {
            self.change(kv.key.clone(), None);
        }
        DeleteRangeResponse {
            revision: Revision(self.current()),
            deleted: doomed.len() as i64,
            prev_kvs: if delete.prev_kv { doomed } else { Vec::new() },
        }
    }

    fn choose(&self, txn: &Txn, taken: &mut Vec<bool>) {
        let succeeded = txn.compare.iter().all(|compare| self.holds(compare));
        taken.push(succeeded);
        for operation in branch(txn, succeeded) {
            if let Some(operation::Op::Txn(nested)) = &operation.op {
                self.choose(nested, taken);
            }
        }
    }

    fn holds(&self, compare: &Compare) -> bool {
        let range = KeyRange::from_etcd(compare.key.clone(), compare.range_end.clone());
        let found: Vec<&KeyValue> = self.now.values().filter(|kv| range.contains(&kv.key)).collect();
        if found.is_empty() {
            return !matches!(compare.target, Some(Target::Value(_)))
                && passes(compare, &KeyValue::default());
        }
        found.into_iter().all(|kv| passes(compare, kv))
    }

    fn txn(&mut self, txn: &Txn, taken: &mut Vec<bool>) -> Result<TxnResponse, CommandError> {
        let succeeded = taken.pop().unwrap();
        let mut responses = Vec::new();
        for operation in branch(txn, succeeded) {
            responses.push(match operation.op.as_ref().unwrap() {
                operation::Op::Range(query) => Response::Range(self.range(query)?),
                operation::Op::Put(put) => Response::Put(self.put(put)?),
                operation::Op::DeleteRange(delete) => Response::DeleteRange(self.delete(delete)),
                operation::Op::Txn(nested) => Response::Txn(self.txn(nested, taken)?),
            });
        }
        Ok(TxnResponse {
            revision: Revision(self.current()),
            succeeded,
            responses,
        })
    }

    pub fn range(&self, query: &Range) -> Result<RangeResult, CommandError> {
        if query.revision > self.revision {
            return Err(CommandError::FutureRevision);
        }
        if query.revision > 0 && query.revision < self.compact {
            return Err(CommandError::Compacted {
                compact_revision: Revision(self.compact),
            });
        }
        let content = if query.revision <= 0 {
            &self.now
        } else {
            self.at(query.revision)
        };
        let range = KeyRange::from_etcd(query.key.clone(), query.range_end.clone());
        let found: Vec<&KeyValue> = content.values().filter(|kv| range.contains(&kv.key)).collect();
        let count = found.len() as i64;
        let mut kvs: Vec<KeyValue> = found
            .into_iter()
            .filter(|kv| filtered(query, kv))
            .cloned()
            .collect();
        sort(query, &mut kvs);
        let mut more = false;
        if query.limit > 0 && kvs.len() as i64 > query.limit {
            kvs.truncate(query.limit as usize);
            more = true;
        }
        if query.keys_only {
            kvs.iter_mut().for_each(|kv| kv.value = Bytes::new());
        }
        if query.count_only {
            (kvs, more) = (Vec::new(), false);
        }
        Ok(RangeResult {
            revision: Revision(self.current()),
            kvs,
            more,
            count,
        })
    }

    /// etcd's rule over what etcd's bucket would hold once compaction is through.
    pub fn hash_kv(&self, revision: i64) -> u32 {
        let bucket = self.bucket();
        let keep = |at: i64| {
            let mut newest: BTreeMap<&Bytes, (i64, usize, bool)> = BTreeMap::new();
            for (main, sub, (key, kv)) in self.sequence().filter(|(main, ..)| *main <= at) {
                newest.insert(key, (main, sub, kv.is_none()));
            }
            newest.into_values().collect::<Vec<_>>()
        };
        let live: Vec<_> = keep(revision)
            .into_iter()
            .filter(|(.., tombstone)| !tombstone)
            .collect();
        let mut hash = crc32c::crc32c(b"key");
        for (main, sub, (key, kv)) in bucket {
            let kept = live.is_empty() || live.contains(&(main, sub, kv.is_none()));
            let skipped =
                main > revision || main <= self.compact && !kept || main == self.compact && kv.is_none();
            if !skipped {
                let mut row = [&main.to_be_bytes()[..], b"_", &(sub as u64).to_be_bytes()].concat();
                if kv.is_none() {
                    row.push(b't');
                }
                hash = crc32c::crc32c_append(hash, &row);
                hash = crc32c::crc32c_append(hash, &wire(key, kv.as_ref()));
            }
        }
        hash
    }

    fn sequence(&self) -> impl Iterator<Item = (i64, usize, &Change)> {
        self.changes.iter().enumerate().flat_map(|(main, changes)| {
            changes
                .iter()
                .enumerate()
                .map(move |(sub, change)| (main as i64, sub, change))
        })
    }

    /// Everything after the compact revision, and each key's newest change up to it unless that is a tombstone
    /// of before.
    fn bucket(&self) -> Vec<(i64, usize, &Change)> {
        let mut newest = BTreeMap::new();
        for (main, sub, (key, _)) in self.sequence().filter(|(main, ..)| *main <= self.compact) {
            newest.insert(key, (main, sub));
        }
        let stays = |main: i64, sub: usize, change: &Change| {
            main > self.compact
                || newest.get(&change.0) == Some(&(main, sub)) && (change.1.is_some() || main == self.compact)
        };
        self.sequence()
            .filter(|(main, sub, change)| stays(*main, *sub, change))
            .collect()
    }
}

fn wire(key: &Bytes, kv: Option<&KeyValue>) -> Vec<u8> {
    let mut message = mvccpb::KeyValue {
        key: key.clone(),
        ..mvccpb::KeyValue::default()
    };
    if let Some(kv) = kv {
        message.create_revision = kv.create_revision.0;
        message.mod_revision = kv.mod_revision.0;
        message.version = kv.version;
        message.value = kv.value.clone();
        message.lease = kv.lease.0;
    }
    message.encode_to_vec()
}

fn branch(txn: &Txn, succeeded: bool) -> &[Operation] {
    if succeeded { &txn.success } else { &txn.failure }
}

fn puts(txn: &Txn) -> bool {
    txn.success
        .iter()
        .chain(&txn.failure)
        .any(|operation| match operation.op.as_ref().unwrap() {
            operation::Op::Put(_) => true,
            operation::Op::Txn(nested) => puts(nested),
            _ => false,
        })
}

fn passes(compare: &Compare, kv: &KeyValue) -> bool {
    let order = match compare.target.as_ref().unwrap() {
        Target::Version(given) => kv.version.cmp(given),
        Target::CreateRevision(given) => kv.create_revision.0.cmp(given),
        Target::ModRevision(given) => kv.mod_revision.0.cmp(given),
        Target::Lease(given) => kv.lease.0.cmp(given),
        Target::Value(given) => kv.value.cmp(given),
    };
    match Is::try_from(compare.result).unwrap() {
        Is::Equal => order.is_eq(),
        Is::NotEqual => order.is_ne(),
        Is::Greater => order.is_gt(),
        Is::Less => order.is_lt(),
    }
}

fn filtered(query: &Range, kv: &KeyValue) -> bool {
    let within = |revision: Revision, min: i64, max: i64| {
        (min == 0 || revision.0 >= min) && (max == 0 || revision.0 <= max)
    };
    within(kv.mod_revision, query.min_mod_revision, query.max_mod_revision)
        && within(
            kv.create_revision,
            query.min_create_revision,
            query.max_create_revision,
        )
}

fn sort(query: &Range, kvs: &mut [KeyValue]) {
    let descending = query.sort_order == i32::from(SortOrder::Descend);
    kvs.sort_by(|a, b| {
        let order = match SortTarget::try_from(query.sort_target).unwrap() {
            SortTarget::Key => a.key.cmp(&b.key),
            SortTarget::Version => a.version.cmp(&b.version),
            SortTarget::Create => a.create_revision.cmp(&b.create_revision),
            SortTarget::Mod => a.mod_revision.cmp(&b.mod_revision),
            SortTarget::Value => a.value.cmp(&b.value),
        };
        if descending { order.reverse() } else { order }
    });
}
