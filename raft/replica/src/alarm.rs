//! Raises an alarm through the log, so that every member knows of it.

use barque_proto::command::{Alarm, Command, alarm::Kind, command::Op};
use barque_store::Store;

use crate::{ProposeError, proposals::ProposalQueue};

/// Idempotent: what is raised already is not proposed again.
pub async fn raise(
    store: &Store,
    queue: &ProposalQueue,
    kind: Kind,
    member_id: u64,
) -> Result<(), ProposeError> {
    if store.alarms().contains(&(member_id, kind)) {
        return Ok(());
    }
    let alarm = Alarm {
        kind: kind.into(),
        member_id,
        active: true,
    };
    let command = Command {
        op: Some(Op::Alarm(alarm)),
        ..Command::default()
    };
    queue.propose(command).await.map(drop)
}
