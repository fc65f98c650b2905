//! Commands in short form, and a store under test on either engine.

use std::sync::Arc;

use barque_proto::command::{
    Command, CommandBatch, Compact, Compare, DeleteRange, LeaseGrant, LeaseRevoke, Operation, Put, Range,
    Txn, command::Op, compare, operation,
};
use barque_store::{
    Applier, Entry, EntryBody, KeyRange, KeyValue, LogPosition, Outcome, Reader, Response, Revision, Store,
    StoreConfig,
    kv::memory::MemoryEngine,
    watch::{Changes, Event, EventKind, Place},
};
use bytes::Bytes;
use prost::Message;

pub const RING_BYTES: usize = 1 << 20;

pub struct Fixture {
    pub store: Store,
    pub applier: Applier,
    pub index: u64,
    pub term: u64,
    _dir: Option<tempfile::TempDir>,
}

/// Runs `test` on a fresh store of each engine.
pub fn on_each_engine(test: impl Fn(&mut Fixture)) {
    test(&mut Fixture::memory());
    test(&mut Fixture::rocks());
}

pub fn config(dir: &std::path::Path) -> StoreConfig {
    StoreConfig {
        dir: dir.to_owned(),
        ring_bytes: RING_BYTES,
        block_cache_bytes: 8 << 20,
        quota_backend_bytes: 0,
    }
}

impl Fixture {
    pub fn memory() -> Self {
        let (store, applier) = Store::open_with(Arc::new(MemoryEngine::new()), RING_BYTES).unwrap();
        Self {
            store,
            applier,
            index: 0,
            term: 1,
            _dir: None,
        }
    }

    pub fn rocks() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let (store, applier) = Store::open(config(dir.path())).unwrap();
        Self {
            store,
            applier,
            index: 0,
            term: 1,
            _dir: Some(dir),
        }
    }

    /// One command in an entry of its own.
    pub fn apply(&mut self, op: Op) -> Outcome {
        self.apply_all(vec![op]).remove(0)
    }

    /// Several commands in one entry.
    pub fn apply_all(&mut self, ops: Vec<Op>) -> Vec<Outcome> {
        self.index += 1;
        let entry = entry(self.term, self.index, ops);
        self.applier.apply(&[entry]).unwrap().remove(0)
    }

    pub fn put(&mut self, key: &str, value: &str) -> i64 {
        match self.apply(put(key, value)).unwrap() {
            Response::Put(response) => response.revision.0,
            other => panic!("{other:?}"),
        }
    }

    pub fn delete(&mut self, key: &str) -> i64 {
        match self.apply(delete(key)).unwrap() {
            Response::DeleteRange(response) => response.revision.0,
            other => panic!("{other:?}"),
        }
    }

    pub fn get(&self, key: &str, revision: i64) -> Option<String> {
        self.store
            .reader()
            .get(key.as_bytes(), Revision(revision))
            .unwrap()
            .map(|kv| text(&kv.value))
    }

    /// `key=value` for every key of a range.
    pub fn list(&self, query: Range) -> Vec<String> {
        self.store
            .reader()
            .range(&query)
            .unwrap()
            .kvs
            .iter()
            .map(row)
            .collect()
    }

    /// `revision:op key=value<before` for every retained change from `from` on.
    pub fn history(&self, from: i64) -> Vec<String> {
        let reader = self.store.reader();
        let everything = KeyRange {
            start: Bytes::new(),
            end: None,
        };
        let mut told = Vec::new();
        let mut next = Place::from(Revision(from));
        // Small pieces, so that resuming is tested along the way.
        while next.revision <= reader.head().revision {
            let (history, after) = reader.history(&everything, next, 1).unwrap();
            assert!(after > next);
            told.extend(history.iter().flat_map(|changes| tell(&reader, changes)));
            next = after;
        }
        told
    }
}

pub fn tell(reader: &Reader, changes: &Changes) -> Vec<String> {
    let tell = |event: &Event| {
        let op = match event.kind {
            EventKind::Put => "put",
            EventKind::Delete => "del",
        };
        let before = previous(reader, event)
            .map(|prev| format!("<{}", text(&prev.value)))
            .unwrap_or_default();
        assert_eq!(event.kv.mod_revision, changes.revision);
        format!("{}:{op} {}{before}", changes.revision.0, row(&event.kv))
    };
    changes.events.iter().map(tell).collect()
}

/// The version before the event, read if need be.
pub fn previous(reader: &Reader, event: &Event) -> Option<KeyValue> {
    let read = reader.previous(&[event]).unwrap().remove(0);
    event.prev.get().cloned().or(read)
}

pub fn entry(term: u64, index: u64, ops: Vec<Op>) -> Entry {
    let commands = ops
        .into_iter()
        .map(|op| Command {
            op: Some(op),
            ..Command::default()
        })
        .collect();
    let batch = CommandBatch {
        origin: 7,
        sequence: index,
        commands,
    };
    Entry {
        position: LogPosition { term, index },
        body: EntryBody::Commands(batch.encode_to_vec().into()),
    }
}

pub fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

pub fn row(kv: &KeyValue) -> String {
    format!("{}={}", text(&kv.key), text(&kv.value))
}

pub fn bytes(text: &str) -> Bytes {
    Bytes::copy_from_slice(text.as_bytes())
}

pub fn a_put(key: &str, value: &str) -> Put {
    Put {
        key: bytes(key),
        value: bytes(value),
        ..Put::default()
    }
}

pub fn put(key: &str, value: &str) -> Op {
    Op::Put(a_put(key, value))
}

pub fn put_with_lease(key: &str, value: &str, lease: i64) -> Op {
    Op::Put(Put {
        lease,
        ..a_put(key, value)
    })
}

pub fn a_delete(key: &str, range_end: &str) -> DeleteRange {
    DeleteRange {
        key: bytes(key),
        range_end: bytes(range_end),
        prev_kv: false,
    }
}

pub fn delete(key: &str) -> Op {
    Op::DeleteRange(a_delete(key, ""))
}

pub fn compact(revision: i64) -> Op {
    Op::Compact(Compact { revision })
}

pub fn grant(id: i64, ttl_s: i64) -> Op {
    Op::LeaseGrant(LeaseGrant { id, ttl_s })
}

pub fn revoke(id: i64) -> Op {
    Op::LeaseRevoke(LeaseRevoke { id })
}

pub fn range(key: &str, range_end: &str) -> Range {
    Range {
        key: bytes(key),
        range_end: bytes(range_end),
        ..Range::default()
    }
}

/// Everything: both `"\0"`.
pub fn all() -> Range {
    range("\0", "\0")
}

pub fn txn(compare: Vec<Compare>, success: Vec<operation::Op>, failure: Vec<operation::Op>) -> Txn {
    let wrap = |ops: Vec<operation::Op>| ops.into_iter().map(|op| Operation { op: Some(op) }).collect();
    Txn {
        compare,
        success: wrap(success),
        failure: wrap(failure),
    }
}

pub fn compare(key: &str, result: compare::Result, target: compare::Target) -> Compare {
    Compare {
        result: result.into(),
        key: bytes(key),
        range_end: Bytes::new(),
        target: Some(target),
    }
}
