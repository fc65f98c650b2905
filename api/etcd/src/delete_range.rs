//! DeleteRange: one command, answered from this member's own apply.

use barque_proto::{
    command::command::Op,
    etcd::etcdserverpb::{DeleteRangeRequest, DeleteRangeResponse},
};
use barque_store::Response;

use crate::{
    Error,
    server::Shared,
    translate::{self, Responses},
    validate,
};

impl Shared {
    pub(crate) async fn delete_range(
        &self,
        request: DeleteRangeRequest,
    ) -> Result<DeleteRangeResponse, Error> {
        validate::delete_range(&request)?;
        validate::size(&request, self.config.max_request_bytes)?;
        self.may_delete(&request.key, &request.range_end)?;
        self.refuse_on_learner()?;
        let op = Op::DeleteRange(translate::delete_range(request));
        match self.replica.propose(translate::command(op)).await? {
            Response::DeleteRange(response) => Ok(Responses {
                header: self.header(response.revision),
            }
            .delete_range(response)),
            other => translate::unexpected("a delete range", &other),
        }
    }
}
