//! Put: one command, answered from this member's own apply.

use barque_proto::{
    command::command::Op,
    etcd::etcdserverpb::{PutRequest, PutResponse},
};
use barque_store::Response;

use crate::{
    Error,
    server::Shared,
    translate::{self, Responses},
    validate,
};

impl Shared {
    pub(crate) async fn put(&self, request: PutRequest) -> Result<PutResponse, Error> {
        validate::put(&request)?;
        validate::size(&request, self.config.max_request_bytes)?;
        self.may_write(&request.key)?;
        self.refuse_on_learner()?;
        match self
            .replica
            .propose(translate::command(Op::Put(translate::put(request))))
            .await?
        {
            Response::Put(response) => Ok(Responses {
                header: self.header(response.revision),
            }
            .put(response)),
            other => translate::unexpected("a put", &other),
        }
    }
}
