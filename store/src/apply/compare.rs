//! A txn's compares.

use std::{cmp::Ordering, ops::ControlFlow};

use barque_proto::command::{
    Compare,
    compare::{Result as Expected, Target},
};

use super::{Applied, Machine, Refusal};
use crate::{KeyRange, codec::Record, planted, read::At};

impl Machine {
    pub(super) fn all_hold(&self, compares: &[Compare]) -> Applied<bool> {
        for compare in compares {
            if !self.holds(compare)? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Contract line 5: every key of a range must pass; nothing there compares as 0, and never by value.
    fn holds(&self, compare: &Compare) -> Applied<bool> {
        let target = compare.target.as_ref().ok_or(Refusal::Unknown)?;
        let expected = Expected::try_from(compare.result).map_err(|_| Refusal::Unknown)?;
        let range = KeyRange::from_etcd(compare.key.clone(), compare.range_end.clone());
        let mut any = false;
        let mut all = true;
        if let Some(key) = range.as_single() {
            if let Some(row) = self.live().get(key)? {
                any = true;
                all = passes(expected, order(target, Some(&Record::decode(&row)?)));
            }
        } else {
            self.keyspace().scan(&range, At::Head, &mut |_, record| {
                any = true;
                all = passes(expected, order(target, Some(&record)));
                if all && !planted("range-compare-of-first-key") {
                    ControlFlow::Continue(())
                } else {
                    ControlFlow::Break(())
                }
            })?;
        }
        Ok(if any {
            all
        } else {
            passes(expected, order(target, None))
        })
    }
}

/// How what is there compares to what was given; `None` when there is no value to compare.
fn order(target: &Target, found: Option<&Record<'_>>) -> Option<Ordering> {
    let number = |of: fn(&Record<'_>) -> i64, given: &i64| found.map_or(0, of).cmp(given);
    Some(match target {
        Target::Version(given) => number(|record| record.version, given),
        Target::CreateRevision(given) => number(|record| record.create, given),
        Target::ModRevision(given) => number(|record| record.modified.main, given),
        Target::Lease(given) => number(|record| record.lease.0, given),
        Target::Value(given) => found?.value.cmp(given),
    })
}

fn passes(expected: Expected, order: Option<Ordering>) -> bool {
    let Some(order) = order else { return false };
    match expected {
        Expected::Equal => order.is_eq(),
        Expected::Greater => order.is_gt(),
        Expected::Less => order.is_lt(),
        Expected::NotEqual => order.is_ne(),
    }
}
