//! Alarms: raised and disarmed for a member, replicated like everything else.

use barque_proto::command::{self, alarm::Kind, command::Op};
use bytes::Bytes;

use super::{Applied, Machine, Refusal};
use crate::{
    CommandError, Response, Revision,
    kv::Family,
    state::{self, Alarm, AlarmKind},
    state_hash::Effect,
};

impl Machine {
    /// While CORRUPT is raised for any member, nothing changes the keyspace, not even what would be a delete or a
    /// compaction: evidence stays where it is. As in etcd reads go on, and so does what is not the clients': remaining
    /// TTLs, and the alarms themselves.
    pub(super) fn check_not_corrupt(&self, op: &Op) -> Applied<()> {
        let changes_keyspace = match op {
            Op::Put(_)
            | Op::DeleteRange(_)
            | Op::Txn(_)
            | Op::Compact(_)
            | Op::LeaseGrant(_)
            | Op::LeaseRevoke(_) => true,
            Op::LeaseCheckpoint(_) | Op::Alarm(_) => false,
        };
        match changes_keyspace && self.state.has_alarm(AlarmKind::Corrupt) {
            true => Err(CommandError::Corrupt.into()),
            false => Ok(()),
        }
    }

    pub(super) fn alarm(&mut self, command: &command::Alarm) -> Applied<Response> {
        let kind = match Kind::try_from(command.kind).map_err(|_| Refusal::Unknown)? {
            Kind::None => None,
            Kind::Nospace => Some(AlarmKind::NoSpace),
            Kind::Corrupt => Some(AlarmKind::Corrupt),
            Kind::Damaged => Some(AlarmKind::Damaged),
        };
        if let Some(kind) = kind {
            self.set_alarm(
                Alarm {
                    kind,
                    member_id: command.member_id,
                },
                command.active,
            );
        }
        Ok(Response::Alarm {
            revision: Revision(self.state.revision),
        })
    }

    fn set_alarm(&mut self, alarm: Alarm, active: bool) {
        let changed = if active {
            self.state.alarms.insert(alarm)
        } else {
            self.state.alarms.remove(&alarm)
        };
        if !changed {
            return;
        }
        let key = state::alarm_key(alarm);
        self.hash.absorb(Effect::Alarm, &[&key, &[u8::from(active)]]);
        match active {
            true => self.overlay.put(Family::Meta, key, Bytes::new()),
            false => self.overlay.delete(Family::Meta, key),
        }
    }
}
