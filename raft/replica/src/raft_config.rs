//! Our settings as openraft's.
//!
//! openraft starts an election only after `election_timeout_max` plus a random time between min and max without
//! a word from the leader, then a pre-vote and a vote. etcd's `--election-timeout` would so mean twice itself; here
//! it bounds the whole: with the default of 1000 ms a follower stands for election after 450 to 600 ms of silence,
//! and the next write is accepted about as long after the leader was killed, plus two round trips and two fsyncs.
//! A leader that no quorum has acknowledged for 300 ms takes no writes. Members far apart need a larger value:
//! at least ten round trips between them.

use std::sync::Arc;

use openraft::{Config, SnapshotPolicy};

use crate::{ReplicaConfig, StartError, peer::MAX_ENTRY_BYTES};

/// Entries per AppendEntries; each also holds about a megabyte at most.
const MAX_ENTRIES_PER_MESSAGE: u64 = 1024;

pub fn raft_config(config: &ReplicaConfig, cluster_id: u64) -> Result<Arc<Config>, StartError> {
    let heartbeat_ms = config.heartbeat_interval.as_millis() as u64;
    let election_ms = config.election_timeout.as_millis() as u64;
    if heartbeat_ms == 0 || election_ms < 5 * heartbeat_ms {
        return Err(StartError::Config(format!(
            "--election-timeout[{election_ms}ms] should be at least as 5 times as \
             --heartbeat-interval[{heartbeat_ms}ms]"
        )));
    }
    check_batches(config)?;
    let election_timeout_max = election_ms * 3 / 10;
    let raft = Config {
        cluster_name: format!("{cluster_id:x}"),
        heartbeat_interval: (heartbeat_ms / 2).max(1),
        election_timeout_min: election_timeout_max / 2,
        election_timeout_max,
        enable_pre_vote: Some(true),
        // A leader that lost its quorum falls silent now and then, so that others may elect another.
        quorum_loss_probe_interval: Some(2 * election_timeout_max + election_ms / 10),
        // The state is not flushed at each apply: a restarted leader is elected anew, or not at all.
        enable_leader_restore: Some(false),
        allow_log_reversion: Some(false),
        max_payload_entries: MAX_ENTRIES_PER_MESSAGE,
        replication_lag_threshold: 2 * config.snapshot_entries,
        snapshot_policy: SnapshotPolicy::LogsSinceLast(config.snapshot_entries),
        max_in_snapshot_log_to_keep: config.snapshot_entries,
        purge_batch_size: (config.snapshot_entries / 10).max(1),
        backoff: "20ms 40ms ...500ms".into(),
        ..Config::default()
    };
    raft.validate()
        .map(Arc::new)
        .map_err(|error| StartError::Config(error.to_string()))
}

/// A batch that the log does not take stops the leader, and one that no message holds is never replicated.
fn check_batches(config: &ReplicaConfig) -> Result<(), StartError> {
    let (batch, most) = (
        config.max_batch_bytes,
        config.log.max_entry_bytes().min(MAX_ENTRY_BYTES),
    );
    if batch > most {
        return Err(StartError::Config(format!(
            "a batch of {batch} bytes is more than the log and the messages between members hold: {most}"
        )));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn etcds_defaults_make_a_failover_below_a_second() {
        let config = crate::config::tests::example();
        let raft = raft_config(&config, 1).unwrap();
        assert_eq!((raft.election_timeout_min, raft.election_timeout_max), (150, 300));
        assert_eq!(raft.heartbeat_interval, 50);
    }

    #[test]
    fn batches_that_cannot_be_carried_are_refused() {
        let with = |max_batch_bytes, segment_bytes| {
            let mut config = ReplicaConfig {
                max_batch_bytes,
                ..crate::config::tests::example()
            };
            config.log.segment_bytes = segment_bytes;
            raft_config(&config, 1)
                .map(drop)
                .map_err(|error| error.to_string())
        };
        assert_eq!(with(MAX_ENTRY_BYTES, 1 << 30), Ok(()));
        let error = with(MAX_ENTRY_BYTES + 1, 1 << 30).unwrap_err();
        assert!(
            error.starts_with("a batch of 62914561 bytes is more than"),
            "{error}"
        );
        assert_eq!(with(32 << 10, 64 << 10), Ok(()));
        let error = with(64 << 10, 64 << 10).unwrap_err();
        assert!(
            error.starts_with("a batch of 65536 bytes is more than"),
            "{error}"
        );
    }

    #[test]
    fn an_election_timeout_too_short_is_refused() {
        let config = ReplicaConfig {
            election_timeout: Duration::from_millis(200),
            ..crate::config::tests::example()
        };
        let error = raft_config(&config, 1).unwrap_err();
        assert!(
            error
                .to_string()
                .starts_with("--election-timeout[200ms] should be at least as 5 times"),
            "{error}"
        );
    }
}
