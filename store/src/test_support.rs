//! Commands in short form and a store in memory, for unit tests.

use std::sync::Arc;

use barque_proto::command::{Command, CommandBatch, DeleteRange, Put, command::Op};
use bytes::Bytes;
use prost::Message;

use crate::{Applier, Entry, EntryBody, LogPosition, Outcome, Store, kv::memory::MemoryEngine};

pub fn memory_store() -> (Store, Applier) {
    Store::open_with(Arc::new(MemoryEngine::new()), 1 << 20).unwrap()
}

pub fn put(key: &str, value: &str) -> Command {
    let put = Put {
        key: Bytes::from(key.to_owned()),
        value: Bytes::from(value.to_owned()),
        ..Put::default()
    };
    Command {
        op: Some(Op::Put(put)),
        ..Command::default()
    }
}

pub fn delete(key: &str) -> Command {
    let delete = DeleteRange {
        key: Bytes::from(key.to_owned()),
        ..DeleteRange::default()
    };
    Command {
        op: Some(Op::DeleteRange(delete)),
        ..Command::default()
    }
}

pub fn entry(index: u64, commands: Vec<Command>) -> Entry {
    let body = CommandBatch {
        commands,
        ..CommandBatch::default()
    }
    .encode_to_vec();
    Entry {
        position: LogPosition { term: 1, index },
        body: EntryBody::Commands(body.into()),
    }
}

pub fn apply(applier: &mut Applier, index: u64, commands: Vec<Command>) -> Vec<Outcome> {
    applier.apply(&[entry(index, commands)]).unwrap().remove(0)
}
