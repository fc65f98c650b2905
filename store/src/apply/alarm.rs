//! Alarms: raised and disarmed for a member, replicated like everything else.

use barque_proto::command::{self, alarm::Kind};
use bytes::Bytes;

use super::{Applied, Machine, Refusal};
use crate::{
    Response, Revision,
    kv::Family,
    state::{self, Alarm, AlarmKind},
    state_hash::Effect,
};

impl Machine {
    pub(super) fn alarm(&mut self, command: &command::Alarm) -> Applied<Response> {
        let kind = match Kind::try_from(command.kind).map_err(|_| Refusal::Unknown)? {
            Kind::None => None,
            Kind::Nospace => Some(AlarmKind::NoSpace),
            Kind::Corrupt => Some(AlarmKind::Corrupt),
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
