//! Raft's records as bytes: what lies in the log on disk and what crosses the wire between peers.
//!
//! Both use the messages of `barque/peer.proto`, so that a log written by one version is read by the next. A
//! log entry's `kind` byte says how its payload reads: nothing, a `CommandBatch`, or a `Membership`.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
};

use barque_proto::peer as pb;
use barque_store::LogPosition;
use barque_wal::WalEntry;
use bytes::Bytes;
use openraft::{EntryPayload, vote::RaftLeaderId};
use prost::Message;

use crate::types::{Commands, Entry, LeaderId, LogId, Membership, Node, StoredMembership, Vote, log_id};

pub const KIND_BLANK: u8 = 0;
pub const KIND_COMMANDS: u8 = 1;
pub const KIND_MEMBERSHIP: u8 = 2;

pub fn corrupt(what: &str, detail: impl std::fmt::Display) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("corrupt {what}: {detail}"))
}

// --- log ids ---

pub fn log_id_to_pb(id: &LogId) -> pb::LogId {
    pb::LogId {
        term: id.leader_id.term,
        index: id.index,
    }
}

pub fn log_id_from_pb(id: pb::LogId) -> LogId {
    log_id(id.term, id.index)
}

pub fn position(id: &LogId) -> LogPosition {
    LogPosition {
        term: id.leader_id.term,
        index: id.index,
    }
}

pub fn log_id_at(position: LogPosition) -> LogId {
    log_id(position.term, position.index)
}

// --- votes ---

pub fn vote_to_pb(vote: &Vote) -> pb::Vote {
    pb::Vote {
        term: vote.leader_id.term,
        node_id: vote.leader_id.voted_for,
        committed: vote.committed,
    }
}

pub fn vote_from_pb(vote: pb::Vote) -> Vote {
    Vote {
        leader_id: LeaderId::new(vote.term, vote.node_id),
        committed: vote.committed,
    }
}

pub fn encode_vote(vote: &Vote) -> Bytes {
    vote_to_pb(vote).encode_to_vec().into()
}

pub fn decode_vote(bytes: Bytes) -> io::Result<Vote> {
    pb::Vote::decode(bytes)
        .map(vote_from_pb)
        .map_err(|e| corrupt("vote in the log", e))
}

// --- membership ---

pub fn node_to_pb(node: &Node) -> pb::Node {
    pb::Node {
        name: node.name.clone(),
        peer_urls: node.peer_urls.clone(),
        client_urls: node.client_urls.clone(),
        incarnation: node.incarnation,
        to_vote: node.to_vote,
    }
}

pub fn node_from_pb(node: pb::Node) -> Node {
    Node {
        name: node.name,
        peer_urls: node.peer_urls,
        client_urls: node.client_urls,
        incarnation: node.incarnation,
        to_vote: node.to_vote,
    }
}

pub fn node_entries(membership: &Membership) -> Vec<pb::membership::NodeEntry> {
    membership
        .nodes()
        .map(|(id, node)| pb::membership::NodeEntry {
            id: *id,
            node: Some(node_to_pb(node)),
        })
        .collect()
}

pub fn membership_to_pb(membership: &Membership) -> pb::Membership {
    let configs = membership.get_joint_config().iter();
    pb::Membership {
        configs: configs
            .map(|ids| pb::membership::Voters {
                ids: ids.iter().copied().collect(),
            })
            .collect(),
        nodes: node_entries(membership),
    }
}

pub fn membership_from_pb(membership: pb::Membership) -> io::Result<Membership> {
    let configs: Vec<BTreeSet<u64>> = membership
        .configs
        .into_iter()
        .map(|voters| voters.ids.into_iter().collect())
        .collect();
    let nodes: BTreeMap<u64, Node> = membership
        .nodes
        .into_iter()
        .map(|entry| (entry.id, node_from_pb(entry.node.unwrap_or_default())))
        .collect();
    if configs.is_empty() && nodes.is_empty() {
        return Ok(Membership::default());
    }
    Membership::new(configs, nodes).map_err(|e| corrupt("membership", e))
}

pub fn encode_membership(membership: &Membership) -> Bytes {
    membership_to_pb(membership).encode_to_vec().into()
}

pub fn decode_membership(bytes: Bytes) -> io::Result<Membership> {
    let message = pb::Membership::decode(bytes).map_err(|e| corrupt("membership", e))?;
    membership_from_pb(message)
}

/// The membership as the state keeps it: which entry wrote it, and its bytes.
pub fn stored_membership(kept: Option<(LogPosition, Bytes)>) -> io::Result<StoredMembership> {
    match kept {
        None => Ok(StoredMembership::default()),
        Some((position, bytes)) => Ok(StoredMembership::new(
            Some(log_id_at(position)),
            decode_membership(bytes)?,
        )),
    }
}

// --- entries ---

fn payload_bytes(payload: &EntryPayload<Commands, u64, Node>) -> (u8, Bytes) {
    match payload {
        EntryPayload::Blank => (KIND_BLANK, Bytes::new()),
        EntryPayload::Normal(batch) => (KIND_COMMANDS, batch.0.clone()),
        EntryPayload::Membership(membership) => (KIND_MEMBERSHIP, encode_membership(membership)),
    }
}

fn payload_from(kind: u8, payload: Bytes) -> io::Result<EntryPayload<Commands, u64, Node>> {
    match kind {
        KIND_BLANK => Ok(EntryPayload::Blank),
        KIND_COMMANDS => Ok(EntryPayload::Normal(Commands(payload))),
        KIND_MEMBERSHIP => Ok(EntryPayload::Membership(decode_membership(payload)?)),
        other => Err(corrupt(
            "log entry",
            format!("unknown kind {other}: this member is older than its log"),
        )),
    }
}

pub fn entry_to_wal(entry: &Entry) -> WalEntry {
    let (kind, payload) = payload_bytes(&entry.payload);
    WalEntry {
        term: entry.log_id.leader_id.term,
        index: entry.log_id.index,
        kind,
        payload,
    }
}

pub fn entry_from_wal(entry: WalEntry) -> io::Result<Entry> {
    Ok(Entry {
        log_id: log_id(entry.term, entry.index),
        payload: payload_from(entry.kind, entry.payload)?,
    })
}

pub fn entry_to_pb(entry: &Entry) -> pb::Entry {
    let (kind, payload) = payload_bytes(&entry.payload);
    pb::Entry {
        term: entry.log_id.leader_id.term,
        index: entry.log_id.index,
        kind: kind.into(),
        payload,
    }
}

/// Copies the payload: it would otherwise pin the whole buffer that it was received in.
pub fn entry_from_pb(entry: pb::Entry) -> io::Result<Entry> {
    let kind = u8::try_from(entry.kind).map_err(|_| corrupt("log entry", "kind out of range"))?;
    let payload = Bytes::copy_from_slice(&entry.payload);
    Ok(Entry {
        log_id: log_id(entry.term, entry.index),
        payload: payload_from(kind, payload)?,
    })
}

pub fn entry_to_store(entry: Entry) -> barque_store::Entry {
    let body = match entry.payload {
        EntryPayload::Blank => barque_store::EntryBody::Blank,
        EntryPayload::Normal(batch) => barque_store::EntryBody::Commands(batch.0),
        EntryPayload::Membership(m) => barque_store::EntryBody::Membership(encode_membership(&m)),
    };
    barque_store::Entry {
        position: position(&entry.log_id),
        body,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn membership() -> Membership {
        let node = |name: &str| Node {
            name: name.into(),
            peer_urls: vec![format!("https://{name}:2380")],
            client_urls: vec![],
            incarnation: 12,
            to_vote: true,
        };
        let nodes: BTreeMap<u64, Node> = [(7, node("a")), (9, node("b")), (u64::MAX, node("c"))].into();
        Membership::new(vec![[7, 9].into(), [7, u64::MAX].into()], nodes).unwrap()
    }

    #[test]
    fn every_kind_of_entry_survives_the_log_and_the_wire() {
        let payloads = [
            EntryPayload::Blank,
            EntryPayload::Normal(Commands(Bytes::from_static(b"batch"))),
            EntryPayload::Membership(membership()),
        ];
        for (index, payload) in payloads.into_iter().enumerate() {
            let entry = Entry {
                log_id: log_id(3, index as u64),
                payload,
            };
            assert_eq!(entry_from_wal(entry_to_wal(&entry)).unwrap(), entry);
            assert_eq!(entry_from_pb(entry_to_pb(&entry)).unwrap(), entry);
        }
    }

    #[test]
    fn an_unknown_kind_is_an_error() {
        let entry = WalEntry {
            term: 1,
            index: 1,
            kind: 9,
            payload: Bytes::new(),
        };
        assert!(
            entry_from_wal(entry)
                .unwrap_err()
                .to_string()
                .contains("unknown kind 9")
        );
    }

    #[test]
    fn the_bytes_on_disk_stay_what_they_are() {
        let vote = Vote {
            leader_id: LeaderId::new(5, 0x0102),
            committed: true,
        };
        let golden: &[u8] = &[0x08, 5, 0x11, 2, 1, 0, 0, 0, 0, 0, 0, 0x18, 1];
        assert_eq!(encode_vote(&vote), golden);
        assert_eq!(decode_vote(Bytes::from_static(golden)).unwrap(), vote);

        let one = Membership::new(vec![[1].into()], BTreeMap::from([(1, Node::default())])).unwrap();
        let golden: &[u8] = &[
            0x0a, 10, 0x0a, 8, 1, 0, 0, 0, 0, 0, 0, 0, 0x12, 11, 0x09, 1, 0, 0, 0, 0, 0, 0, 0, 0x12, 0,
        ];
        assert_eq!(encode_membership(&one), golden);
        assert_eq!(decode_membership(Bytes::from_static(golden)).unwrap(), one);

        let node = Node {
            name: "a".into(),
            peer_urls: vec!["p".into()],
            client_urls: vec!["c".into()],
            incarnation: 0x0304,
            to_vote: true,
        };
        let told = Membership::new(vec![[1].into()], BTreeMap::from([(1, node)])).unwrap();
        let golden: &[u8] = &[
            0x0a, 10, 0x0a, 8, 1, 0, 0, 0, 0, 0, 0, 0, 0x12, 31, 0x09, 1, 0, 0, 0, 0, 0, 0, 0, 0x12, 20,
            0x0a, 1, b'a', 0x12, 1, b'p', 0x1a, 1, b'c', 0x21, 4, 3, 0, 0, 0, 0, 0, 0, 0x28, 1,
        ];
        assert_eq!(encode_membership(&told), golden);
        assert_eq!(decode_membership(Bytes::from_static(golden)).unwrap(), told);
    }
}
