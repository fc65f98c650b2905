//! Txn: proposed when it may write, else evaluated on one local view.

use barque_proto::{
    command::command::Op,
    etcd::etcdserverpb::{RequestOp, TxnRequest, TxnResponse, request_op::Request},
};
use barque_store::Response;

use crate::{
    Error, range, read_txn,
    server::Shared,
    translate::{self, Responses},
    validate,
};

impl Shared {
    pub(crate) async fn txn(&self, request: TxnRequest) -> Result<TxnResponse, Error> {
        validate::txn(&request, self.config.max_txn_ops)?;
        self.refuse_on_learner()?;
        if is_read_only(&request) {
            return self.read_only_txn(request).await;
        }
        validate::size(&request, self.config.max_request_bytes)?;
        self.may_run(&request)?;
        match self
            .replica
            .propose(translate::command(Op::Txn(translate::txn(request))))
            .await?
        {
            Response::Txn(response) => Ok(Responses {
                header: self.header(response.revision),
            }
            .txn(response)),
            other => translate::unexpected("a txn", &other),
        }
    }

    async fn read_only_txn(&self, request: TxnRequest) -> Result<TxnResponse, Error> {
        if !is_serializable(&request) {
            self.barrier().await?;
        }
        let small = is_small(&request);
        let txn = translate::txn(request);
        let response = if small {
            read_txn::evaluate(&self.replica.store().reader(), &txn)?
        } else {
            self.read_at_length(move |reader| read_txn::evaluate(&reader, &txn))
                .await?
        };
        Ok(Responses {
            header: self.header(response.revision),
        }
        .txn(response))
    }
}

fn operations(txn: &TxnRequest) -> impl Iterator<Item = &RequestOp> {
    txn.success.iter().chain(&txn.failure)
}

fn is_read_only(txn: &TxnRequest) -> bool {
    operations(txn).all(|operation| match &operation.request {
        Some(Request::RequestTxn(nested)) => is_read_only(nested),
        Some(Request::RequestRange(_)) | None => true,
        Some(Request::RequestPut(_) | Request::RequestDeleteRange(_)) => false,
    })
}

/// No range in it asks for more than this member's own state. A txn of compares alone asks for nothing less
/// than the truth.
fn is_serializable(txn: &TxnRequest) -> bool {
    fn every_range(txn: &TxnRequest, ranges: &mut usize) -> bool {
        operations(txn).all(|operation| match &operation.request {
            Some(Request::RequestRange(range)) => {
                *ranges += 1;
                range.serializable
            }
            Some(Request::RequestTxn(nested)) => every_range(nested, ranges),
            _ => true,
        })
    }
    let mut ranges = 0;
    every_range(txn, &mut ranges) && ranges > 0
}

fn is_small(txn: &TxnRequest) -> bool {
    let compares_keys = txn.compare.iter().all(|compare| compare.range_end.is_empty());
    let mut ranges = operations(txn).map(|operation| match &operation.request {
        Some(Request::RequestRange(request)) => range::is_small(request),
        Some(Request::RequestTxn(nested)) => is_small(nested),
        _ => true,
    });
    compares_keys && ranges.all(|small| small)
}

#[cfg(test)]
mod tests {
    use barque_proto::etcd::etcdserverpb::{PutRequest, RangeRequest};

    use super::*;

    fn get(serializable: bool) -> RequestOp {
        let request = RangeRequest {
            key: "k".into(),
            serializable,
            ..Default::default()
        };
        RequestOp {
            request: Some(Request::RequestRange(request)),
        }
    }

    fn put() -> RequestOp {
        RequestOp {
            request: Some(Request::RequestPut(PutRequest {
                key: "k".into(),
                ..Default::default()
            })),
        }
    }

    fn branches(success: Vec<RequestOp>, failure: Vec<RequestOp>) -> TxnRequest {
        TxnRequest {
            success,
            failure,
            ..Default::default()
        }
    }

    fn nested(txn: TxnRequest) -> RequestOp {
        RequestOp {
            request: Some(Request::RequestTxn(txn)),
        }
    }

    #[test]
    fn a_put_anywhere_makes_it_a_write() {
        assert!(is_read_only(&branches(
            vec![get(false)],
            vec![nested(branches(vec![get(false)], vec![]))]
        )));
        assert!(!is_read_only(&branches(vec![get(false)], vec![put()])));
        assert!(!is_read_only(&branches(
            vec![nested(branches(vec![], vec![put()]))],
            vec![]
        )));
    }

    #[test]
    fn one_linearizable_range_needs_the_barrier() {
        assert!(is_serializable(&branches(vec![get(true)], vec![get(true)])));
        assert!(!is_serializable(&branches(vec![get(true)], vec![get(false)])));
        assert!(!is_serializable(&branches(
            vec![nested(branches(vec![get(false)], vec![]))],
            vec![]
        )));
        assert!(!is_serializable(&branches(vec![], vec![])));
    }
}
