//! What is refused before it is proposed: empty keys, contradictory options, too many operations, sizes.
//!
//! Pure functions over wire types. The rules are etcd's; [`crate::overlap`] has the one about duplicate keys.

use barque_proto::etcd::etcdserverpb::{
    DeleteRangeRequest, PutRequest, RangeRequest, RequestOp, TxnRequest,
    compare::{CompareResult, CompareTarget},
    range_request::{SortOrder, SortTarget},
    request_op::Request,
};
use barque_replica::MAX_TXN_DEPTH;
use prost::Message;

use crate::{Error, overlap};

pub(crate) fn range(request: &RangeRequest) -> Result<(), Error> {
    key(&request.key)?;
    let known =
        SortOrder::try_from(request.sort_order).is_ok() && SortTarget::try_from(request.sort_target).is_ok();
    if known {
        Ok(())
    } else {
        Err(Error::InvalidSortOption)
    }
}

pub(crate) fn put(request: &PutRequest) -> Result<(), Error> {
    key(&request.key)?;
    if request.ignore_value && !request.value.is_empty() {
        return Err(Error::ValueProvided);
    }
    if request.ignore_lease && request.lease != 0 {
        return Err(Error::LeaseProvided);
    }
    Ok(())
}

pub(crate) fn delete_range(request: &DeleteRangeRequest) -> Result<(), Error> {
    key(&request.key)
}

/// Shape first, then overlaps: counting operations keeps the second affordable.
pub(crate) fn txn(request: &TxnRequest, max_ops: usize) -> Result<(), Error> {
    txn_shape(request, max_ops, MAX_TXN_DEPTH)?;
    overlap::check(&request.success)?;
    overlap::check(&request.failure)
}

pub(crate) fn size(request: &impl Message, max_bytes: usize) -> Result<(), Error> {
    if request.encoded_len() > max_bytes {
        Err(Error::RequestTooLarge)
    } else {
        Ok(())
    }
}

fn key(key: &[u8]) -> Result<(), Error> {
    if key.is_empty() {
        Err(Error::EmptyKey)
    } else {
        Ok(())
    }
}

fn txn_shape(request: &TxnRequest, max_ops: usize, max_depth: usize) -> Result<(), Error> {
    let Some(below) = max_depth.checked_sub(1) else {
        return Err(Error::TxnTooDeep);
    };
    let ops = request
        .compare
        .len()
        .max(request.success.len())
        .max(request.failure.len());
    let Some(left) = max_ops.checked_sub(ops) else {
        return Err(Error::TooManyOps);
    };
    for compare in &request.compare {
        key(&compare.key)?;
        let known = CompareResult::try_from(compare.result).is_ok()
            && CompareTarget::try_from(compare.target).is_ok();
        if !known {
            return Err(Error::InvalidCompare);
        }
    }
    for operation in request.success.iter().chain(&request.failure) {
        self::operation(operation, left, below)?;
    }
    Ok(())
}

fn operation(operation: &RequestOp, max_ops: usize, max_depth: usize) -> Result<(), Error> {
    match &operation.request {
        Some(Request::RequestRange(request)) => range(request),
        Some(Request::RequestPut(request)) => put(request),
        Some(Request::RequestDeleteRange(request)) => delete_range(request),
        Some(Request::RequestTxn(request)) => txn_shape(request, max_ops, max_depth),
        // etcd's answer to an operation that is none.
        None => Err(Error::KeyNotFound),
    }
}

#[cfg(test)]
mod tests {
    use barque_proto::{
        command::{CommandBatch, command::Op},
        etcd::etcdserverpb::Compare,
    };

    use super::*;
    use crate::translate;

    fn get(key: &'static str) -> RequestOp {
        RequestOp {
            request: Some(Request::RequestRange(RangeRequest {
                key: key.into(),
                ..Default::default()
            })),
        }
    }

    fn nested(txn: TxnRequest) -> RequestOp {
        RequestOp {
            request: Some(Request::RequestTxn(txn)),
        }
    }

    fn success(operations: Vec<RequestOp>) -> TxnRequest {
        TxnRequest {
            success: operations,
            ..Default::default()
        }
    }

    #[test]
    fn keys_must_not_be_empty() {
        assert_eq!(range(&RangeRequest::default()), Err(Error::EmptyKey));
        assert_eq!(put(&PutRequest::default()), Err(Error::EmptyKey));
        assert_eq!(delete_range(&DeleteRangeRequest::default()), Err(Error::EmptyKey));
        assert_eq!(txn(&success(vec![get("")]), 128), Err(Error::EmptyKey));
        let compare = TxnRequest {
            compare: vec![Compare::default()],
            ..Default::default()
        };
        assert_eq!(txn(&compare, 128), Err(Error::EmptyKey));
    }

    #[test]
    fn what_is_ignored_must_not_be_given() {
        let mut request = PutRequest {
            key: "k".into(),
            value: "v".into(),
            lease: 7,
            ignore_value: true,
            ..Default::default()
        };
        assert_eq!(put(&request), Err(Error::ValueProvided));
        request.ignore_value = false;
        request.ignore_lease = true;
        assert_eq!(put(&request), Err(Error::LeaseProvided));
        request.lease = 0;
        assert_eq!(put(&request), Ok(()));
    }

    #[test]
    fn sort_options_are_known_ones() {
        let bad = RangeRequest {
            key: "k".into(),
            sort_order: 3,
            ..Default::default()
        };
        assert_eq!(range(&bad), Err(Error::InvalidSortOption));
        let bad = RangeRequest {
            key: "k".into(),
            sort_target: 5,
            ..Default::default()
        };
        assert_eq!(range(&bad), Err(Error::InvalidSortOption));
        let good = RangeRequest {
            key: "k".into(),
            sort_order: 2,
            sort_target: 4,
            ..Default::default()
        };
        assert_eq!(range(&good), Ok(()));
    }

    #[test]
    fn operations_are_counted_with_their_nesting() {
        let many = |n: usize| (0..n).map(|_| get("k")).collect::<Vec<_>>();
        assert_eq!(txn(&success(many(128)), 128), Ok(()));
        assert_eq!(txn(&success(many(129)), 128), Err(Error::TooManyOps));
        let mut both = success(many(100));
        both.failure = many(128);
        assert_eq!(txn(&both, 128), Ok(()), "branches do not add up");
        assert_eq!(txn(&success(vec![nested(success(many(127)))]), 128), Ok(()));
        assert_eq!(
            txn(&success(vec![nested(success(many(128)))]), 128),
            Err(Error::TooManyOps)
        );
        let compares = TxnRequest {
            compare: vec![
                Compare {
                    key: "k".into(),
                    ..Default::default()
                };
                129
            ],
            ..Default::default()
        };
        assert_eq!(txn(&compares, 128), Err(Error::TooManyOps));
    }

    #[test]
    fn what_is_accepted_can_be_read_back_from_the_log() {
        let put = PutRequest {
            key: "k".into(),
            ..Default::default()
        };
        let mut request = success(vec![RequestOp {
            request: Some(Request::RequestPut(put)),
        }]);
        let mut accepted = Vec::new();
        for depth in 1..=60 {
            if let Ok(received) = TxnRequest::decode(request.encode_to_vec().as_slice())
                && txn(&received, 128).is_ok()
            {
                let batch = CommandBatch {
                    commands: vec![translate::command(Op::Txn(translate::txn(received)))],
                    ..Default::default()
                };
                let read = CommandBatch::decode(batch.encode_to_vec().as_slice());
                assert_eq!(read.unwrap(), batch, "depth {depth}");
                accepted.push(depth);
            }
            request = success(vec![nested(request)]);
        }
        assert_eq!(accepted, (1..=MAX_TXN_DEPTH).collect::<Vec<_>>());
        assert_eq!(txn(&request, 128), Err(Error::TxnTooDeep));
    }

    #[test]
    fn an_operation_must_be_one() {
        assert_eq!(
            txn(&success(vec![RequestOp { request: None }]), 128),
            Err(Error::KeyNotFound)
        );
    }

    #[test]
    fn sizes_are_those_of_the_encoded_request() {
        let request = PutRequest {
            key: "k".into(),
            value: vec![0; 100].into(),
            ..Default::default()
        };
        assert_eq!(size(&request, request.encoded_len()), Ok(()));
        assert_eq!(
            size(&request, request.encoded_len() - 1),
            Err(Error::RequestTooLarge)
        );
    }
}
