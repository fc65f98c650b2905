//! What happens to a member's data behind Raft's back, and what is said of it.

use std::{
    fs::{self, OpenOptions},
    os::unix::fs::FileExt,
    path::PathBuf,
    time::Duration,
};

use barque_proto::command::alarm::Kind;
use barque_replica::Replica;
use barque_store::kv::{Batch, Engine, Family, rocks};
use bytes::Bytes;

use crate::cluster::{Cluster, store_config, within};

/// Changes the state of a member that does not run, behind Raft's back: the key reads as another one does, and the
/// chained hash is another one (its 32 bytes are the last of the state's row).
pub fn make_differ(cluster: &Cluster, number: usize, key: &'static str, like: &str) {
    change_rows(cluster, number, |engine, batch| {
        let view = engine.view();
        let other = view.get(Family::Cur, like.as_bytes()).unwrap().unwrap();
        batch.put(Family::Cur, Bytes::from_static(key.as_bytes()), other);
        let mut state = view.get(Family::Meta, b"state").unwrap().unwrap().to_vec();
        let hash = state.len() - 32;
        state[hash] ^= 1;
        batch.put(Family::Meta, Bytes::from_static(b"state"), state.into());
    });
}

pub fn change_rows(cluster: &Cluster, number: usize, change: impl FnOnce(&dyn Engine, &mut Batch)) {
    let config = store_config(&cluster.data_dir(number));
    let engine = rocks::open(&config.dir, config.block_cache_bytes).unwrap();
    let mut batch = Batch::default();
    change(&engine, &mut batch);
    engine.write(batch).unwrap();
    engine.flush().unwrap();
}

/// The key reads as another one does: rows differ, and the chained hash does not know.
pub fn swap_rows(cluster: &Cluster, number: usize, key: &'static str, like: &str) {
    change_rows(cluster, number, |engine, batch| {
        let other = engine.view().get(Family::Cur, like.as_bytes()).unwrap().unwrap();
        batch.put(Family::Cur, Bytes::from_static(key.as_bytes()), other);
    });
}

/// Flips a byte in the middle of a member's largest table file.
pub fn flip_a_byte(cluster: &Cluster, number: usize) -> PathBuf {
    let state = cluster.data_dir(number).join("state");
    let below = |dir: PathBuf| fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
    let databases = below(state).filter(|path| path.is_dir());
    let tables = databases
        .flat_map(below)
        .filter(|path| path.extension().is_some_and(|extension| extension == "sst"));
    let largest = tables.max_by_key(|path| path.metadata().unwrap().len()).unwrap();
    let file = OpenOptions::new().read(true).write(true).open(&largest).unwrap();
    let (middle, mut byte) = (file.metadata().unwrap().len() / 2, [0]);
    file.read_exact_at(&mut byte, middle).unwrap();
    file.write_all_at(&[byte[0] ^ 1], middle).unwrap();
    largest
}

/// Stops the member in order, so that what it has applied is on disk.
pub async fn stop(cluster: &mut Cluster, number: usize) {
    let replica = cluster.replicas[number].take().unwrap();
    within(replica.shutdown()).await;
}

pub async fn alarmed(replica: &Replica, kind: Kind, member: u64) {
    let raised = (member, kind);
    within(async {
        while !replica.store().alarms().contains(&raised) {
            drop(replica.read_barrier().await);
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
}
