//! Compact: logical once applied; `physical` waits for this member's own clean-up.

use barque_proto::{
    command::{self, command::Op},
    etcd::etcdserverpb::{CompactionRequest, CompactionResponse},
};
use barque_store::{Response, Revision};

use crate::{Error, server::Shared, translate};

impl Shared {
    pub(crate) async fn compact(&self, request: CompactionRequest) -> Result<CompactionResponse, Error> {
        self.refuse_on_learner()?;
        let op = Op::Compact(command::Compact {
            revision: request.revision,
        });
        let revision = match self.replica.propose(translate::command(op)).await? {
            Response::Compact { revision } => revision,
            other => translate::unexpected("a compaction", &other),
        };
        if request.physical {
            self.replica
                .physically_compacted(Revision(request.revision))
                .await?;
        }
        Ok(CompactionResponse {
            header: Some(self.header(revision)),
        })
    }
}
