//! Between the history's words and etcd's messages.

use barque_checks::history::{
    Answer, Compare, EventKind, KeyValue, Order, Relation, Request, Response, Shape, Target, WatchEvent,
};
use barque_proto::etcd::{etcdserverpb as pb, mvccpb};

type Header = Option<pb::ResponseHeader>;

pub fn revision(header: &Header) -> i64 {
    header.as_ref().map_or(0, |header| header.revision)
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn key_value(kv: mvccpb::KeyValue) -> KeyValue {
    KeyValue {
        key: text(&kv.key),
        value: text(&kv.value),
        create_revision: kv.create_revision,
        mod_revision: kv.mod_revision,
        version: kv.version,
        lease: kv.lease,
    }
}

fn key_values(kvs: Vec<mvccpb::KeyValue>) -> Vec<KeyValue> {
    kvs.into_iter().map(key_value).collect()
}

pub fn put(key: &str, value: &str, prev_kv: bool, lease: i64) -> pb::PutRequest {
    pb::PutRequest {
        key: key.to_owned().into(),
        value: value.to_owned().into(),
        lease,
        prev_kv,
        ..Default::default()
    }
}

/// `to` as in a history's span.
pub fn delete(key: &str, to: &str, prev_kv: bool) -> pb::DeleteRangeRequest {
    pb::DeleteRangeRequest {
        key: key.to_owned().into(),
        range_end: to.to_owned().into(),
        prev_kv,
    }
}

pub fn range(from: &str, to: &str, serializable: bool, revision: i64, limit: i64) -> pb::RangeRequest {
    pb::RangeRequest {
        key: from.to_owned().into(),
        range_end: to.to_owned().into(),
        serializable,
        revision,
        limit,
        ..Default::default()
    }
}

/// The same read, answered as it is to be.
pub fn shaped(read: pb::RangeRequest, shape: &Shape) -> pb::RangeRequest {
    use pb::range_request::{SortOrder, SortTarget};
    let (order, target) = match shape.order {
        Order::ByKey => (SortOrder::None, SortTarget::Key),
        Order::ByKeyDescending => (SortOrder::Descend, SortTarget::Key),
        Order::ByValue => (SortOrder::Ascend, SortTarget::Value),
        Order::ByValueDescending => (SortOrder::Descend, SortTarget::Value),
    };
    pb::RangeRequest {
        sort_order: order.into(),
        sort_target: target.into(),
        keys_only: shape.keys_only,
        count_only: shape.count_only,
        min_mod_revision: shape.min_mod,
        max_mod_revision: shape.max_mod,
        min_create_revision: shape.min_create,
        max_create_revision: shape.max_create,
        ..read
    }
}

pub fn txn(compares: &[Compare], then: &[Request], otherwise: &[Request]) -> pb::TxnRequest {
    pb::TxnRequest {
        compare: compares.iter().map(compare).collect(),
        success: then.iter().filter_map(op).collect(),
        failure: otherwise.iter().filter_map(op).collect(),
    }
}

fn compare(compare: &Compare) -> pb::Compare {
    use pb::compare::{CompareResult, CompareTarget, TargetUnion};
    let (target, operand) = match &compare.target {
        Target::Value(value) => (CompareTarget::Value, TargetUnion::Value(value.clone().into())),
        Target::ModRevision(revision) => (CompareTarget::Mod, TargetUnion::ModRevision(*revision)),
        Target::CreateRevision(revision) => (CompareTarget::Create, TargetUnion::CreateRevision(*revision)),
        Target::Version(version) => (CompareTarget::Version, TargetUnion::Version(*version)),
    };
    let result = match compare.relation {
        Relation::Equal => CompareResult::Equal,
        Relation::NotEqual => CompareResult::NotEqual,
        Relation::Less => CompareResult::Less,
        Relation::Greater => CompareResult::Greater,
    };
    pb::Compare {
        result: result.into(),
        target: target.into(),
        key: compare.key.clone().into(),
        range_end: compare.to.clone().into(),
        target_union: Some(operand),
    }
}

/// `None` for what a txn cannot hold.
fn op(request: &Request) -> Option<pb::RequestOp> {
    use pb::request_op::Request as Op;
    let op = match request {
        Request::Put {
            key,
            value,
            prev_kv,
            lease,
        } => Op::RequestPut(put(key, value, *prev_kv, *lease)),
        Request::Delete { key, prev_kv } => Op::RequestDeleteRange(delete(key, "", *prev_kv)),
        Request::DeleteRange { from, to, prev_kv } => Op::RequestDeleteRange(delete(from, to, *prev_kv)),
        Request::Get {
            key,
            serializable,
            revision,
        } => Op::RequestRange(range(key, "", *serializable, *revision, 0)),
        Request::Range {
            from,
            to,
            serializable,
            revision,
            limit,
            shape,
        } => Op::RequestRange(shaped(range(from, to, *serializable, *revision, *limit), shape)),
        Request::Txn {
            compares,
            then,
            otherwise,
        } => Op::RequestTxn(txn(compares, then, otherwise)),
        _ => return None,
    };
    Some(pb::RequestOp { request: Some(op) })
}

pub fn put_answer(answer: pb::PutResponse) -> Response {
    Response {
        revision: revision(&answer.header),
        answer: Answer::Put {
            prev_kv: answer.prev_kv.map(key_value),
        },
    }
}

pub fn delete_answer(answer: pb::DeleteRangeResponse) -> Response {
    Response {
        revision: revision(&answer.header),
        answer: Answer::Delete {
            deleted: answer.deleted,
            prev_kvs: key_values(answer.prev_kvs),
        },
    }
}

pub fn range_answer(answer: pb::RangeResponse) -> Response {
    Response {
        revision: revision(&answer.header),
        answer: Answer::Range {
            count: answer.count,
            more: answer.more,
            kvs: key_values(answer.kvs),
        },
    }
}

pub fn txn_answer(answer: pb::TxnResponse) -> Response {
    use pb::response_op::Response as Op;
    let nested = answer.responses.into_iter().filter_map(|op| op.response);
    let responses = nested.map(|op| match op {
        Op::ResponsePut(put) => put_answer(put),
        Op::ResponseDeleteRange(delete) => delete_answer(delete),
        Op::ResponseRange(range) => range_answer(range),
        Op::ResponseTxn(txn) => txn_answer(txn),
    });
    Response {
        revision: revision(&answer.header),
        answer: Answer::Txn {
            succeeded: answer.succeeded,
            responses: responses.collect(),
        },
    }
}

pub fn event(event: mvccpb::Event) -> WatchEvent {
    let kind = match event.r#type() {
        mvccpb::event::EventType::Put => EventKind::Put,
        mvccpb::event::EventType::Delete => EventKind::Delete,
    };
    let kv = event.kv.unwrap_or_default();
    WatchEvent {
        revision: kv.mod_revision,
        create_revision: kv.create_revision,
        version: kv.version,
        key: text(&kv.key),
        kind,
        value: text(&kv.value),
        lease: kv.lease,
        prev_kv: event.prev_kv.map(key_value),
    }
}
