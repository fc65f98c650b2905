//! What can be told of an encoded `CommandBatch` and its outcomes without applying it.

use std::io;

use barque_proto::command::{CommandBatch, command::Op};
use barque_store::{LeaseId, Outcome, Response};
use bytes::Bytes;
use prost::Message;

use crate::{codec, lessor::LeaseEvent};

/// Origin and sequence of an encoded `CommandBatch`, without decoding its commands: prost writes fields in the
/// order of their numbers.
pub fn batch_header(bytes: &[u8]) -> io::Result<(u64, u64)> {
    #[derive(Clone, PartialEq, Message)]
    struct Header {
        #[prost(fixed64, tag = "1")]
        origin: u64,
        #[prost(uint64, tag = "2")]
        sequence: u64,
    }
    const LONGEST: usize = 1 + 8 + 1 + 10;
    let mut head = &bytes[..bytes.len().min(LONGEST)];
    // Cut before the first command (field 3, length-delimited: 0x1a).
    let mut at = 0;
    if head.first() == Some(&0x09) {
        at = 9.min(head.len());
    }
    if head.get(at) == Some(&0x10) {
        at += 1 + head[at + 1..]
            .iter()
            .position(|byte| byte & 0x80 == 0)
            .map_or(0, |last| last + 1);
    }
    head = &head[..at];
    let header = Header::decode(head).map_err(|e| codec::corrupt("command batch", e))?;
    Ok((header.origin, header.sequence))
}

/// What the batch did to leases. Decodes it only when one was revoked.
pub fn lease_events(bytes: &Bytes, outcomes: &[Outcome]) -> io::Result<Vec<LeaseEvent>> {
    let granted = outcomes.iter().filter_map(|outcome| match outcome {
        Ok(Response::LeaseGrant(grant)) => Some(LeaseEvent::Granted {
            id: grant.id,
            ttl_s: grant.ttl_s,
        }),
        _ => None,
    });
    let mut events: Vec<LeaseEvent> = granted.collect();
    if outcomes
        .iter()
        .any(|outcome| matches!(outcome, Ok(Response::LeaseRevoke { complete: true, .. })))
    {
        let batch = CommandBatch::decode(bytes.clone()).map_err(|e| codec::corrupt("command batch", e))?;
        events = in_order(batch, outcomes);
    }
    Ok(events)
}

fn in_order(batch: CommandBatch, outcomes: &[Outcome]) -> Vec<LeaseEvent> {
    let pairs = batch.commands.into_iter().zip(outcomes);
    let events = pairs.filter_map(|(command, outcome)| match (command.op, outcome) {
        (Some(Op::LeaseRevoke(revoke)), Ok(Response::LeaseRevoke { complete: true, .. })) => {
            Some(LeaseEvent::Revoked {
                id: LeaseId(revoke.id),
            })
        }
        (_, Ok(Response::LeaseGrant(grant))) => Some(LeaseEvent::Granted {
            id: grant.id,
            ttl_s: grant.ttl_s,
        }),
        _ => None,
    });
    events.collect()
}

#[cfg(test)]
mod tests {
    use barque_proto::command::{Command, LeaseRevoke};
    use barque_store::Revision;

    use super::*;

    #[test]
    fn a_lease_that_is_revoked_in_parts_is_gone_with_the_last() {
        let command = Command {
            op: Some(Op::LeaseRevoke(LeaseRevoke { id: 7 })),
            ..Command::default()
        };
        let batch = CommandBatch {
            commands: vec![command; 2],
            ..CommandBatch::default()
        };
        let bytes = Bytes::from(batch.encode_to_vec());
        let part = |complete| {
            Ok(Response::LeaseRevoke {
                revision: Revision(2),
                complete,
            })
        };
        assert_eq!(
            lease_events(&bytes, &[part(false), part(false)]).unwrap().len(),
            0
        );
        assert_eq!(lease_events(&bytes, &[part(false), part(true)]).unwrap().len(), 1);
    }

    #[test]
    fn the_header_is_read_without_the_commands() {
        for (origin, sequence, commands) in [(0, 0, 0), (7, 0, 1), (0, 300, 2), (u64::MAX, u64::MAX, 3)] {
            let command = Command {
                caller: "somebody".into(),
                ..Command::default()
            };
            let batch = CommandBatch {
                origin,
                sequence,
                commands: vec![command; commands],
            };
            assert_eq!(batch_header(&batch.encode_to_vec()).unwrap(), (origin, sequence));
        }
        assert!(batch_header(&[0x09, 1]).is_err());
    }
}
