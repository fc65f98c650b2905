//! Compact: logical and immediate. Rows are removed later, in the background.

use barque_proto::command::Compact;

use super::{Applied, Machine};
use crate::{CommandError, Response, Revision, state_hash::Effect};

impl Machine {
    pub(super) fn compact(&mut self, compact: &Compact) -> Applied<Response> {
        if compact.revision <= self.state.compact_revision {
            let compact_revision = Revision(self.state.compact_revision);
            return Err(CommandError::Compacted { compact_revision }.into());
        }
        if compact.revision > self.state.revision {
            return Err(CommandError::FutureRevision.into());
        }
        self.state.compact_revision = compact.revision;
        self.hash
            .absorb(Effect::Compact, &[&compact.revision.to_be_bytes()]);
        Ok(Response::Compact {
            revision: Revision(self.state.revision),
        })
    }
}
