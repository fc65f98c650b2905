//! etcd's Range: revision, limit, sort, filters, count.

use std::{cmp::Ordering, ops::ControlFlow};

use barque_proto::command::{
    Range,
    range::{SortOrder, SortTarget},
};
use bytes::Bytes;

use super::{At, Keyspace};
use crate::{KeyRange, KeyValue, RangeResult, ReadError, Revision, StoreError, codec::Record, planted};

/// The query names a sort that this program does not know.
#[derive(Debug)]
pub struct UnknownSort;

/// How rows are ordered when key order will not do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Sort {
    target: SortTarget,
    descending: bool,
}

impl Sort {
    /// `None`: key order, as rows are found. Contract line 3: another target without an order is ascending.
    fn of(query: &Range) -> Result<Option<Self>, UnknownSort> {
        let target = SortTarget::try_from(query.sort_target).map_err(|_| UnknownSort)?;
        let order = SortOrder::try_from(query.sort_order).map_err(|_| UnknownSort)?;
        let descending = order == SortOrder::Descend;
        Ok((target != SortTarget::Key || descending).then_some(Self { target, descending }))
    }

    fn compare(self, a: &KeyValue, b: &KeyValue) -> Ordering {
        let order = match self.target {
            SortTarget::Key => a.key.cmp(&b.key),
            SortTarget::Version => a.version.cmp(&b.version),
            SortTarget::Create => a.create_revision.cmp(&b.create_revision),
            SortTarget::Mod => a.mod_revision.cmp(&b.mod_revision),
            SortTarget::Value => a.value.cmp(&b.value),
        };
        if self.descending { order.reverse() } else { order }
    }
}

/// Refuses a sort that this program does not know.
pub fn check_sort(query: &Range) -> Result<(), UnknownSort> {
    Sort::of(query).map(|_| ())
}

impl Keyspace<'_> {
    /// Contract lines 1 to 4 and 14a. An unknown sort is taken for key order; who must not guess asks
    /// [`check_sort`] first.
    pub fn range(&self, query: &Range) -> Result<RangeResult, ReadError> {
        let at = self.resolve(Revision(query.revision))?;
        let range = KeyRange::from_etcd(query.key.clone(), query.range_end.clone());
        let sort = Sort::of(query).unwrap_or(None);
        let mut result = RangeResult {
            revision: Revision(self.revision),
            ..RangeResult::default()
        };
        if query.count_only {
            result.count = match range.as_single() {
                Some(key) => i64::from(self.get(key, at)?.is_some()),
                None => self.count(&range, at)?,
            };
            return Ok(result);
        }
        let limit = usize::try_from(query.limit).ok().filter(|limit| *limit > 0);
        let in_key_order = sort.is_none() || planted("limit-before-sort");
        let pushed_down = limit.filter(|_| in_key_order && !has_filter(query));
        let with_values = !query.keys_only || sort.is_some_and(|sort| sort.target == SortTarget::Value);
        let cut = self.collect(&range, at, query, with_values, pushed_down, &mut result)?;
        result.more = cut;
        if cut {
            result.count = self.count(&range, at)?;
        }
        if let Some(sort) = sort {
            result.kvs.sort_by(|a, b| sort.compare(a, b));
        }
        if let Some(limit) = limit.filter(|limit| *limit < result.kvs.len()) {
            result.kvs.truncate(limit);
            result.more = true;
        }
        if query.keys_only && with_values {
            result.kvs.iter_mut().for_each(|kv| kv.value = Bytes::new());
        }
        Ok(result)
    }

    /// Adds what passes the filters, and counts what is there; `true` when it stopped at the limit.
    fn collect(
        &self,
        range: &KeyRange,
        at: At,
        query: &Range,
        with_values: bool,
        limit: Option<usize>,
        result: &mut RangeResult,
    ) -> Result<bool, StoreError> {
        if let Some(key) = range.as_single() {
            let found = self.get(key, at)?;
            result.count = i64::from(found.is_some());
            result
                .kvs
                .extend(found.filter(|kv| passes(query, kv.mod_revision, kv.create_revision)));
            if !with_values {
                result.kvs.iter_mut().for_each(|kv| kv.value = Bytes::new());
            }
            return Ok(false);
        }
        let mut cut = false;
        let mut failed = None;
        self.scan(range, at, &mut |key, record| {
            if limit.is_some_and(|limit| result.kvs.len() == limit) {
                cut = true;
                return ControlFlow::Break(());
            }
            result.count += 1;
            if !passes(query, record.modified.revision(), Revision(record.create)) {
                return ControlFlow::Continue(());
            }
            match copy(key, &record, with_values) {
                Ok(kv) => result.kvs.push(kv),
                Err(error) => {
                    failed = Some(error);
                    return ControlFlow::Break(());
                }
            }
            ControlFlow::Continue(())
        })?;
        failed.map_or(Ok(cut), Err)
    }
}

fn copy(key: &[u8], record: &Record<'_>, with_value: bool) -> Result<KeyValue, StoreError> {
    let value = if with_value {
        Bytes::copy_from_slice(record.value)
    } else {
        Bytes::new()
    };
    Ok(KeyValue {
        key: Bytes::copy_from_slice(key),
        value,
        create_revision: Revision(record.create),
        mod_revision: record.modified.revision(),
        version: record.version,
        lease: record.lease,
        terms: record.terms()?,
        splice_offset: record.splice_offset,
    })
}

fn has_filter(query: &Range) -> bool {
    query.min_mod_revision != 0
        || query.max_mod_revision != 0
        || query.min_create_revision != 0
        || query.max_create_revision != 0
}

fn passes(query: &Range, modified: Revision, created: Revision) -> bool {
    let within = |revision: Revision, min: i64, max: i64| {
        (min == 0 || revision.0 >= min) && (max == 0 || revision.0 <= max)
    };
    within(modified, query.min_mod_revision, query.max_mod_revision)
        && within(created, query.min_create_revision, query.max_create_revision)
}
