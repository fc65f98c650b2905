//! Which puts and deletes of one txn may touch the same key: etcd's rule, branch by branch.
//!
//! A put clashes with any other put, and with any delete, of its key at its own level or below it. Of sibling
//! txns, a put clashes with the puts of all earlier siblings, the opposite branch included, and with their
//! deletes; then and else of one txn exclude each other, so they may share puts. Hence a put in an earlier
//! sibling and a delete in a later one pass, and one revision can change a key twice.

use std::{
    collections::{BTreeMap, HashSet},
    ops::Bound,
};

use barque_proto::etcd::etcdserverpb::{DeleteRangeRequest, RequestOp, request_op::Request};

use crate::Error;

pub(crate) fn check(branch: &[RequestOp]) -> Result<(), Error> {
    touched(branch).map(|_| ())
}

/// What a branch and everything nested in it may write.
#[derive(Default)]
struct Touched<'a> {
    puts: HashSet<&'a [u8]>,
    deletes: Intervals,
}

fn touched(branch: &[RequestOp]) -> Result<Touched<'_>, Error> {
    let mut level = Touched::default();
    for operation in branch {
        if let Some(Request::RequestDeleteRange(request)) = &operation.request {
            level.deletes.insert_request(request);
        }
    }
    for operation in branch {
        if let Some(Request::RequestTxn(txn)) = &operation.request {
            level.nest(touched(&txn.success)?, touched(&txn.failure)?)?;
        }
    }
    for operation in branch {
        if let Some(Request::RequestPut(request)) = &operation.request {
            level.put(&request.key)?;
        }
    }
    Ok(level)
}

impl<'a> Touched<'a> {
    fn put(&mut self, key: &'a [u8]) -> Result<(), Error> {
        if self.deletes.contains(key) || !self.puts.insert(key) {
            return Err(Error::DuplicateKey);
        }
        Ok(())
    }

    /// Takes in one nested txn. Its own deletes count against its later siblings and against this level.
    fn nest(&mut self, success: Touched<'a>, failure: Touched<'a>) -> Result<(), Error> {
        for key in &success.puts {
            self.put(key)?;
        }
        for key in &failure.puts {
            if success.puts.contains(key) {
                // Never both; and the other branch was checked against the deletes just now.
                continue;
            }
            self.put(key)?;
        }
        self.deletes.merge(success.deletes);
        self.deletes.merge(failure.deletes);
        Ok(())
    }
}

/// A union of half-open intervals of keys, kept disjoint so that a look-up is one step.
#[derive(Default)]
struct Intervals {
    /// From each start to its end; `None`: no end.
    ends: BTreeMap<Vec<u8>, Option<Vec<u8>>>,
}

impl Intervals {
    fn insert_request(&mut self, request: &DeleteRangeRequest) {
        let start = request.key.to_vec();
        let end = match request.range_end.as_ref() {
            [] => {
                let mut after = start.clone();
                after.push(0);
                Some(after)
            }
            [0] => None,
            end => Some(end.to_vec()),
        };
        self.insert(start, end);
    }

    fn insert(&mut self, mut start: Vec<u8>, mut end: Option<Vec<u8>>) {
        if end.as_ref().is_some_and(|end| *end <= start) {
            return;
        }
        // Swallow the neighbour that reaches into the new interval, then all that start within it.
        if let Some((before, reach)) = self.ends.range(..=start.clone()).next_back()
            && reach.as_ref().is_none_or(|reach| *reach >= start)
        {
            start = before.clone();
        }
        while let Some((next, reach)) = self.ends.range(start.clone()..).next()
            && end.as_ref().is_none_or(|end| next <= end)
        {
            let (next, reach) = (next.clone(), reach.clone());
            self.ends.remove(&next);
            end = match (end, reach) {
                (Some(end), Some(reach)) => Some(end.max(reach)),
                _ => None,
            };
        }
        self.ends.insert(start, end);
    }

    fn merge(&mut self, other: Intervals) {
        for (start, end) in other.ends {
            self.insert(start, end);
        }
    }

    fn contains(&self, key: &[u8]) -> bool {
        let mut up_to_key = self
            .ends
            .range::<[u8], _>((Bound::Unbounded, Bound::Included(key)));
        up_to_key
            .next_back()
            .is_some_and(|(_, end)| end.as_ref().is_none_or(|end| key < end.as_slice()))
    }
}

#[cfg(test)]
mod tests {
    use barque_proto::etcd::etcdserverpb::{PutRequest, TxnRequest};
    use proptest::prelude::*;

    use super::*;

    fn put(key: &str) -> RequestOp {
        let request = PutRequest {
            key: key.to_owned().into(),
            ..Default::default()
        };
        RequestOp {
            request: Some(Request::RequestPut(request)),
        }
    }

    fn del(key: &str, end: &str) -> RequestOp {
        let request = DeleteRangeRequest {
            key: key.to_owned().into(),
            range_end: end.to_owned().into(),
            prev_kv: false,
        };
        RequestOp {
            request: Some(Request::RequestDeleteRange(request)),
        }
    }

    fn txn(success: Vec<RequestOp>, failure: Vec<RequestOp>) -> RequestOp {
        RequestOp {
            request: Some(Request::RequestTxn(TxnRequest {
                success,
                failure,
                ..Default::default()
            })),
        }
    }

    #[track_caller]
    fn accepted(branch: Vec<RequestOp>) {
        assert_eq!(check(&branch), Ok(()));
    }

    #[track_caller]
    fn rejected(branch: Vec<RequestOp>) {
        assert_eq!(check(&branch), Err(Error::DuplicateKey));
    }

    #[test]
    fn on_one_level() {
        accepted(vec![put("a"), put("b"), del("c", "")]);
        rejected(vec![put("a"), put("a")]);
        rejected(vec![put("a"), del("a", "")]);
        rejected(vec![del("a", ""), put("a")]);
        accepted(vec![del("a", ""), del("a", "")]);
        accepted(vec![del("a", "c"), del("b", "d")]);
    }

    #[test]
    fn deletes_are_intervals() {
        rejected(vec![put("b"), del("a", "c")]);
        accepted(vec![put("c"), del("a", "c")]);
        accepted(vec![put("b"), del("c", "a")]);
        rejected(vec![put("z"), del("a", "\0")]);
        accepted(vec![put("a"), del("b", "\0")]);
        rejected(vec![put("bb"), del("a", "b"), del("b", "c")]);
    }

    #[test]
    fn between_a_level_and_what_is_nested_in_any_order() {
        rejected(vec![put("a"), txn(vec![put("a")], vec![])]);
        rejected(vec![txn(vec![put("a")], vec![]), put("a")]);
        rejected(vec![txn(vec![], vec![put("a")]), put("a")]);
        rejected(vec![put("a"), txn(vec![del("a", "")], vec![])]);
        rejected(vec![txn(vec![], vec![del("a", "b")]), put("a")]);
        rejected(vec![del("a", ""), txn(vec![put("a")], vec![])]);
        rejected(vec![txn(vec![put("a")], vec![]), del("a", "")]);
        accepted(vec![del("a", ""), txn(vec![del("a", "")], vec![])]);
        rejected(vec![put("a"), txn(vec![txn(vec![], vec![put("a")])], vec![])]);
    }

    #[test]
    fn between_siblings() {
        rejected(vec![txn(vec![put("a")], vec![]), txn(vec![put("a")], vec![])]);
        rejected(vec![txn(vec![put("a")], vec![]), txn(vec![], vec![put("a")])]);
        accepted(vec![txn(vec![put("a")], vec![]), txn(vec![del("a", "")], vec![])]);
        rejected(vec![txn(vec![del("a", "")], vec![]), txn(vec![put("a")], vec![])]);
        accepted(vec![
            txn(vec![del("a", "")], vec![]),
            txn(vec![del("a", "")], vec![]),
        ]);
    }

    #[test]
    fn between_then_and_else_of_one_txn() {
        accepted(vec![txn(vec![put("a")], vec![put("a")])]);
        accepted(vec![txn(vec![put("a")], vec![del("a", "")])]);
        accepted(vec![txn(vec![del("a", "")], vec![put("a")])]);
        rejected(vec![txn(vec![put("a"), put("a")], vec![])]);
        rejected(vec![txn(vec![], vec![put("a"), del("a", "")])]);
    }

    proptest! {
        #[test]
        fn a_union_of_intervals_holds_what_one_of_them_holds(
            intervals in prop::collection::vec((0u8..20, 0u8..22), 0..12),
            key in 0u8..24,
        ) {
            let mut union = Intervals::default();
            for (start, end) in &intervals {
                // 21 stands for no end.
                union.insert(vec![*start], (*end != 21).then(|| vec![*end]));
            }
            let held = intervals.iter().any(|(start, end)| *start <= key && (key < *end || *end == 21));
            prop_assert_eq!(union.contains(&[key]), held);
        }
    }
}
