//! openraft's own tests of a log and a state machine, run against ours.

use std::{path::PathBuf, sync::Arc};

use barque_store::{LogPosition, Store, StoreConfig};
use barque_wal::{Wal, WalConfig, files::RealFiles};
use openraft::{
    StorageError,
    testing::log::{StoreBuilder, Suite},
};
use tempfile::TempDir;
use tokio::sync::Notify;

use crate::{
    applied::{Applied, FlushedState},
    installing::Installing,
    log_store::LogStore,
    retention::LogSize,
    state_machine::{Parts, StateMachine},
    types::TypeConfig,
    waiters::Waiters,
};

struct Builder;

fn store_config(dir: PathBuf) -> StoreConfig {
    StoreConfig {
        dir,
        ring_bytes: 1 << 16,
        block_cache_bytes: 1 << 20,
        quota_backend_bytes: 0,
    }
}

impl StoreBuilder<TypeConfig, LogStore, StateMachine, TempDir> for Builder {
    async fn build(&self) -> Result<(TempDir, LogStore, StateMachine), StorageError<TypeConfig>> {
        let dir = tempfile::tempdir().unwrap();
        let config = WalConfig {
            segment_bytes: 64 << 10,
            cache_bytes: 1 << 20,
        };
        let (wal, recovered) = Wal::open(&dir.path().join("wal"), Arc::new(RealFiles), config).unwrap();
        let (_, applier) = Store::open(store_config(dir.path().join("state"))).unwrap();
        // The suite purges entries that it never applied.
        let flushed = FlushedState::default();
        flushed.set(Some(LogPosition {
            term: u64::MAX,
            index: u64::MAX,
        }));
        let installing = Installing::new(dir.path());
        // Nor does it know that what was applied may not be removed.
        let nothing = Arc::new(Applied::new(None));
        let log = LogStore::new(wal, recovered, flushed, nothing, installing.clone()).unwrap();
        // It applies entries, too, that it never appended.
        log.durable.set(Some(u64::MAX));
        let state_machine = StateMachine::new(Parts {
            flushed: FlushedState::default(),
            durable: log.durable.clone(),
            applied: Arc::new(Applied::new(applier.applied())),
            waiters: Waiters::new(1, 0),
            lessor: Arc::default(),
            counters: Arc::default(),
            compaction: Arc::new(Notify::new()),
            log_size: LogSize::new(1 << 30),
            snapshot_dir: dir.path().to_path_buf(),
            installing,
            applier,
        });
        state_machine.started();
        Ok((dir, log, state_machine))
    }
}

type Openraft = Suite<TypeConfig, LogStore, StateMachine, Builder, TempDir>;

/// Each case by itself, so that one failure does not hide the next.
macro_rules! cases {
    ($($case:ident)*) => {$(
        #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn $case() {
            let (_dir, log, state_machine) = Builder.build().await.unwrap();
            Openraft::$case(log, state_machine).await.unwrap();
        }
    )*};
}

cases! {
    last_membership_in_log_initial
    last_membership_in_log
    last_membership_in_log_multi_step
    get_membership_initial
    get_membership_from_log_and_empty_sm
    get_membership_from_empty_log_and_sm
    get_membership_from_log_le_sm_last_applied
    get_membership_from_log_gt_sm_last_applied_1
    get_membership_from_log_gt_sm_last_applied_2
    get_initial_state_without_init
    get_initial_state_membership_from_empty_log_and_sm
    get_initial_state_membership_from_sm_inlog_is_smaller
    get_initial_state_membership_from_log_insm_is_smaller
    get_initial_state_with_state
    get_initial_state_last_log_gt_sm
    get_initial_state_last_log_lt_sm
    get_initial_state_inverted_log_order
    get_initial_state_conflict_at_same_index
    get_initial_state_log_ids
    get_initial_state_re_apply_committed
    save_vote
    get_log_entries
    limited_get_log_entries
    leader_bounded_stream
    entries_stream
    try_get_log_entry
    log_reader_reads_new_entries
    initial_logs
    get_log_state
    get_log_id
    last_id_in_log
    last_applied_state
    purge_logs_upto_0
    purge_logs_upto_5
    purge_logs_upto_20
    delete_logs_after_11
    delete_logs_after_5
    delete_logs_after_0
    delete_logs_after_none
    append_to_log
    snapshot_meta
    snapshot_meta_optional
    apply_single
    apply_multiple
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn transfer_snapshot() {
    Openraft::transfer_snapshot(&Builder).await.unwrap();
}
