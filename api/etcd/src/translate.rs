//! Between etcd's wire types and the command envelope: requests in, responses out.
//!
//! Requests arrive here validated. Nothing here decides; an answer of another kind than asked for is a broken
//! invariant and says so.

use barque_proto::{
    command::{self, Command, compare::Target, operation},
    etcd::{
        etcdserverpb::{
            Compare, DeleteRangeRequest, DeleteRangeResponse, PutRequest, PutResponse, RangeRequest,
            RangeResponse, RequestOp, ResponseHeader, ResponseOp, TxnRequest, TxnResponse,
            compare::{CompareTarget, TargetUnion},
            request_op::Request,
            response_op,
        },
        mvccpb,
    },
};
use barque_store::{self as store, KeyValue};

/// A command that no controller fences and every version since the first knows.
pub(crate) fn command(op: command::command::Op) -> Command {
    Command {
        op: Some(op),
        ..Default::default()
    }
}

pub(crate) fn put(request: PutRequest) -> command::Put {
    command::Put {
        key: request.key,
        value: request.value,
        lease: request.lease,
        prev_kv: request.prev_kv,
        ignore_value: request.ignore_value,
        ignore_lease: request.ignore_lease,
        ..Default::default()
    }
}

pub(crate) fn delete_range(request: DeleteRangeRequest) -> command::DeleteRange {
    command::DeleteRange {
        key: request.key,
        range_end: request.range_end,
        prev_kv: request.prev_kv,
    }
}

/// Negative limits and revisions mean what 0 means.
pub(crate) fn range(request: RangeRequest) -> command::Range {
    command::Range {
        key: request.key,
        range_end: request.range_end,
        limit: request.limit.max(0),
        revision: request.revision.max(0),
        sort_order: request.sort_order,
        sort_target: request.sort_target,
        keys_only: request.keys_only,
        count_only: request.count_only,
        min_mod_revision: request.min_mod_revision,
        max_mod_revision: request.max_mod_revision,
        min_create_revision: request.min_create_revision,
        max_create_revision: request.max_create_revision,
    }
}

pub(crate) fn txn(request: TxnRequest) -> command::Txn {
    command::Txn {
        compare: request.compare.into_iter().map(compare).collect(),
        success: request.success.into_iter().filter_map(operation).collect(),
        failure: request.failure.into_iter().filter_map(operation).collect(),
    }
}

/// `None` is what validation refuses: an operation that is none.
fn operation(operation: RequestOp) -> Option<command::Operation> {
    let op = match operation.request? {
        Request::RequestRange(request) => operation::Op::Range(range(request)),
        Request::RequestPut(request) => operation::Op::Put(put(request)),
        Request::RequestDeleteRange(request) => operation::Op::DeleteRange(delete_range(request)),
        Request::RequestTxn(request) => operation::Op::Txn(txn(request)),
    };
    Some(command::Operation { op: Some(op) })
}

/// A target value that is missing, or of another kind than the target, is zero or empty, as in etcd.
fn compare(compare: Compare) -> command::Compare {
    let target = compare.target();
    let given = compare.target_union;
    let target = match (target, given) {
        (CompareTarget::Version, Some(TargetUnion::Version(version))) => Target::Version(version),
        (CompareTarget::Version, _) => Target::Version(0),
        (CompareTarget::Create, Some(TargetUnion::CreateRevision(revision))) => {
            Target::CreateRevision(revision)
        }
        (CompareTarget::Create, _) => Target::CreateRevision(0),
        (CompareTarget::Mod, Some(TargetUnion::ModRevision(revision))) => Target::ModRevision(revision),
        (CompareTarget::Mod, _) => Target::ModRevision(0),
        (CompareTarget::Value, Some(TargetUnion::Value(value))) => Target::Value(value),
        (CompareTarget::Value, _) => Target::Value(bytes::Bytes::new()),
        (CompareTarget::Lease, Some(TargetUnion::Lease(lease))) => Target::Lease(lease),
        (CompareTarget::Lease, _) => Target::Lease(0),
    };
    command::Compare {
        // The two enums share their numbers.
        result: compare.result,
        key: compare.key,
        range_end: compare.range_end,
        target: Some(target),
    }
}

pub(crate) fn key_value(kv: KeyValue) -> mvccpb::KeyValue {
    mvccpb::KeyValue {
        key: kv.key,
        create_revision: kv.create_revision.0,
        mod_revision: kv.mod_revision.0,
        version: kv.version,
        value: kv.value,
        lease: kv.lease.0,
    }
}

/// Makes responses; holds the header to which each response's own revision is added.
pub(crate) struct Responses {
    pub header: ResponseHeader,
}

impl Responses {
    fn header(&self, revision: store::Revision) -> Option<ResponseHeader> {
        Some(ResponseHeader {
            revision: revision.0,
            ..self.header
        })
    }

    pub fn put(&self, response: store::PutResponse) -> PutResponse {
        PutResponse {
            header: self.header(response.revision),
            prev_kv: response.prev_kv.map(key_value),
        }
    }

    pub fn delete_range(&self, response: store::DeleteRangeResponse) -> DeleteRangeResponse {
        DeleteRangeResponse {
            header: self.header(response.revision),
            deleted: response.deleted,
            prev_kvs: response.prev_kvs.into_iter().map(key_value).collect(),
        }
    }

    pub fn range(&self, response: store::RangeResult) -> RangeResponse {
        RangeResponse {
            header: self.header(response.revision),
            kvs: response.kvs.into_iter().map(key_value).collect(),
            more: response.more,
            count: response.count,
        }
    }

    pub fn txn(&self, response: store::TxnResponse) -> TxnResponse {
        TxnResponse {
            header: self.header(response.revision),
            succeeded: response.succeeded,
            responses: response
                .responses
                .into_iter()
                .map(|response| self.inner(response))
                .collect(),
        }
    }

    fn inner(&self, response: store::Response) -> ResponseOp {
        let response = match response {
            store::Response::Range(response) => response_op::Response::ResponseRange(self.range(response)),
            store::Response::Put(response) => response_op::Response::ResponsePut(self.put(response)),
            store::Response::DeleteRange(response) => {
                response_op::Response::ResponseDeleteRange(self.delete_range(response))
            }
            store::Response::Txn(response) => response_op::Response::ResponseTxn(self.txn(response)),
            other => unexpected("inside a txn", &other),
        };
        ResponseOp {
            response: Some(response),
        }
    }
}

/// Apply answered a command with another command's response: nothing after this can be trusted.
#[track_caller]
pub(crate) fn unexpected(command: &str, response: &store::Response) -> ! {
    panic!("broken invariant: apply answered {command} with {response:?}")
}
