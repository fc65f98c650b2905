//! A txn that only reads, evaluated on one view of the store by the rules that apply uses for one that writes.

use std::{cmp::Ordering, ops::ControlFlow};

use barque_proto::command::{
    Compare, Operation, Txn,
    compare::{Result as Relation, Target},
    operation::Op,
};
use barque_store::{KeyRange, LeaseId, Reader, Response, Revision, TxnResponse};

use crate::Error;

/// # Panics
/// When the txn writes: the caller proposes those.
pub(crate) fn evaluate(reader: &Reader, txn: &Txn) -> Result<TxnResponse, Error> {
    let succeeded = all_hold(reader, &txn.compare)?;
    let branch = if succeeded { &txn.success } else { &txn.failure };
    let mut responses = Vec::with_capacity(branch.len());
    for operation in branch {
        responses.push(run(reader, operation)?);
    }
    Ok(TxnResponse {
        revision: reader.head().revision,
        succeeded,
        responses,
    })
}

fn run(reader: &Reader, operation: &Operation) -> Result<Response, Error> {
    match &operation.op {
        Some(Op::Range(query)) => Ok(Response::Range(reader.range(query)?)),
        Some(Op::Txn(nested)) => Ok(Response::Txn(evaluate(reader, nested)?)),
        Some(Op::Put(_) | Op::DeleteRange(_)) | None => {
            panic!("broken invariant: a read-only txn holds {operation:?}")
        }
    }
}

fn all_hold(reader: &Reader, compares: &[Compare]) -> Result<bool, Error> {
    for compare in compares {
        if !holds(reader, compare)? {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Every key of the range must pass; a missing key or an empty range compares as zero.
fn holds(reader: &Reader, compare: &Compare) -> Result<bool, Error> {
    let range = KeyRange::from_etcd(compare.key.clone(), compare.range_end.clone());
    let mut seen_any = false;
    let mut all_pass = true;
    reader.scan(&range, Revision(0), &mut |row| {
        seen_any = true;
        let ordering = match target(compare) {
            Target::Version(version) => row.version.cmp(version),
            Target::CreateRevision(revision) => row.create_revision.0.cmp(revision),
            Target::ModRevision(revision) => row.mod_revision.0.cmp(revision),
            Target::Value(value) => row.value.cmp(value.as_ref()),
            Target::Lease(lease) => row.lease.cmp(&LeaseId(*lease)),
        };
        all_pass = passes(compare, ordering);
        if all_pass {
            ControlFlow::Continue(())
        } else {
            ControlFlow::Break(())
        }
    })?;
    Ok(if seen_any {
        all_pass
    } else {
        absent_passes(compare)
    })
}

/// Nothing has no value: not even NOT_EQUAL holds of it.
fn absent_passes(compare: &Compare) -> bool {
    let number = match target(compare) {
        Target::Value(_) => return false,
        Target::Version(number)
        | Target::CreateRevision(number)
        | Target::ModRevision(number)
        | Target::Lease(number) => *number,
    };
    passes(compare, 0.cmp(&number))
}

fn passes(compare: &Compare, ordering: Ordering) -> bool {
    match compare.result() {
        Relation::Equal => ordering.is_eq(),
        Relation::NotEqual => ordering.is_ne(),
        Relation::Greater => ordering.is_gt(),
        Relation::Less => ordering.is_lt(),
    }
}

fn target(compare: &Compare) -> &Target {
    compare
        .target
        .as_ref()
        .expect("translation sets every compare's target")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn compare(result: Relation, target: Target) -> Compare {
        Compare {
            result: result.into(),
            key: "k".into(),
            target: Some(target),
            ..Default::default()
        }
    }

    #[test]
    fn what_is_not_there_compares_as_zero_and_has_no_value() {
        assert!(absent_passes(&compare(Relation::Equal, Target::ModRevision(0))));
        assert!(absent_passes(&compare(Relation::Less, Target::Version(1))));
        assert!(absent_passes(&compare(Relation::NotEqual, Target::Lease(1))));
        assert!(!absent_passes(&compare(
            Relation::Greater,
            Target::CreateRevision(0)
        )));
        assert!(!absent_passes(&compare(
            Relation::Equal,
            Target::Value("".into())
        )));
        assert!(!absent_passes(&compare(
            Relation::NotEqual,
            Target::Value("v".into())
        )));
    }

    #[test]
    fn relations_read_from_the_key_to_the_given_value() {
        assert!(passes(&compare(Relation::Greater, Target::Version(1)), 2.cmp(&1)));
        assert!(!passes(
            &compare(Relation::Greater, Target::Version(1)),
            1.cmp(&1)
        ));
        assert!(passes(&compare(Relation::Less, Target::Version(1)), 0.cmp(&1)));
    }
}
