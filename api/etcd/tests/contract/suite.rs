//! The list of the contract's lines and the function that checks each, run one after another on one cluster.

use std::{future::Future, pin::Pin};

use barque_chaos::cluster::Cluster;

use crate::{
    client::Target, compaction, difference, errors, kubernetes, lease, library, operations, range, txn,
    txn_checks, watch, write,
};

/// Whose server is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    Oracle,
    Ours,
}

type Check = fn(Target) -> Pin<Box<dyn Future<Output = ()> + Send>>;

macro_rules! lines {
    ($($line:literal $module:ident::$name:ident,)*) => {
        &[$(($line, concat!(stringify!($module), "::", stringify!($name)),
            (|target| Box::pin($module::$name(target))) as Check),)*]
    };
}

// The first needs a store that nothing was written to.
const LINES: &[(&str, &str, Check)] = lines! {
    "10" write::an_empty_store_is_at_revision_1,
    "1" range::ranges_by_key_and_end,
    "1" range::an_empty_key_is_refused,
    "2" range::filters_and_sorts_come_before_the_limit,
    "2" range::count_ignores_limit_and_filters,
    "3" range::a_sort_without_order_ascends,
    "3" range::sorts_by_every_target,
    "4" range::history_carries_the_current_revision,
    "14a" range::counts_are_counts_at_the_revision,
    "-" range::keys_only_leaves_values_out,
    "-" range::serializable_reads_answer,
    "10" write::revisions_move_with_changes_only,
    "10" write::versions_and_create_revisions,
    "12" write::ignore_value_and_ignore_lease,
    "12" write::leases_move_and_detach,
    "-" write::prev_kv_of_put_and_delete,
    "5" txn::compares_of_missing_keys,
    "5" txn::compares_over_a_range,
    "5" txn::compares_of_every_target,
    "6" txn::compares_come_before_operations,
    "7" txn::a_range_sees_the_txns_own_operations,
    "10" txn::one_revision_per_txn,
    "11" txn::inner_responses_carry_the_revision,
    "-" txn::nested_branches_are_chosen,
    "8" txn_checks::operations_are_limited,
    "9" txn_checks::duplicate_keys,
    "-" txn_checks::a_failing_operation_changes_nothing,
    "4" compaction::the_compact_revision_is_readable,
    "13" compaction::a_tombstone_at_the_compact_revision_is_kept,
    "13" compaction::hash_kv_is_the_same_on_repetition,
    "14" errors::the_space_alarm_stops_what_grows,
    "errors" errors::the_corrupt_alarm_stops_what_changes,
    "errors" errors::codes_and_texts,
    "8" errors::requests_are_limited_in_size,
    "15" lease::missing_leases_are_no_error_to_readers,
    "16" lease::a_short_ttl_is_raised,
    "16" lease::an_unrenewed_lease_expires,
    "16" lease::a_renewed_lease_stays,
    "17" lease::revoke_deletes_in_one_revision_in_key_order,
    "18" lease::a_keep_alive_agrees_with_the_keys,
    "-" lease::time_to_live_lists_keys,
    "-" lease::leases_are_listed,
    "19" watch::created_comes_first,
    "19" watch::start_0_is_the_next_revision,
    "20" watch::failed_creates,
    "20" watch::cancels,
    "21" watch::a_compacted_start,
    "22" watch::progress_on_request,
    "23" watch::a_start_in_the_future,
    "24" watch::one_revision_is_one_response,
    "24" watch::fragments_on_request,
    "24" watch::history_and_present_join_without_gap,
    "25" watch::prev_kv,
    "25" watch::a_delete_carries_key_and_revision,
    "25" watch::prev_kv_is_absent_when_compacted,
    "25a" watch::a_start_at_the_compact_revision,
    "25a" watch::filters,
    "25a" watch::chosen_ids,
    "-" watch::goes_on_when_the_client_closed_its_half,
    "1" watch::ranges_of_watches,
    "26" operations::status_reports_a_version_that_clients_compare,
    "26" operations::status_names_members_and_sizes,
    "-" operations::members_are_listed,
    "29" operations::frequent_pings_are_accepted,
    "k8s" kubernetes::create_update_delete,
    "k8s" kubernetes::lists_in_pages,
    "k8s" kubernetes::watch_of_a_prefix,
    "k8s" kubernetes::compaction_by_one_of_many,
    "k8s" kubernetes::leases_are_shared,
    "k8s" kubernetes::health_and_size,
    "library" library::kv_and_txn,
    "library" library::watch_and_lease,
};

/// Runs every line through member `index` and fails at the end with the list of those that failed.
pub async fn run(cluster: &Cluster, index: usize, side: Side) {
    let connection = Target::connect(&cluster.endpoint(index), side).await;
    let mut failed = Vec::new();
    for (line, name, check) in LINES {
        // A task of its own, so that one failing line does not hide the next.
        let outcome = tokio::spawn(check(connection.for_check(name))).await;
        if outcome.is_err() {
            failed.push(format!("line {line}: {name}"));
        }
    }
    assert!(
        failed.is_empty(),
        "{} of {} failed:\n{}",
        failed.len(),
        LINES.len(),
        failed.join("\n")
    );
    if side == Side::Oracle {
        difference::assert_all_met(&connection);
    }
}
