//! A member that finds not all of its files refuses to start, and loses nothing of what is left by trying.

use std::{
    fs,
    path::{Path, PathBuf},
};

use crate::cluster::{Cluster, count, write};

/// A single member whose log begins after the first entries.
async fn purged(cluster: &mut Cluster) {
    for turn in 0..400 {
        write(cluster.replica(0), &format!("k/{turn:03}"), "v")
            .await
            .unwrap();
    }
    let status = cluster.replica(0).status();
    assert!(status.purged_index > 100, "{status:?}");
    cluster.kill(0).await;
}

fn state(cluster: &Cluster, number: u64) -> PathBuf {
    cluster
        .data_dir(0)
        .join("state")
        .join(format!("state-{number:08}"))
}

fn point_to(cluster: &Cluster, number: u64) {
    let pointer = cluster.data_dir(0).join("state/CURRENT_STATE");
    fs::write(pointer, format!("state-{number:08}\n")).unwrap();
}

fn tables(dir: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
    let is_table = |path: &PathBuf| path.extension().is_some_and(|extension| extension == "sst");
    let mut tables: Vec<_> = entries.filter(is_table).collect();
    tables.sort();
    tables
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_its_pointer_a_member_keeps_its_state() {
    let mut cluster = Cluster::new(1);
    cluster.snapshot_entries = 50;
    cluster.start_all().await;
    purged(&mut cluster).await;
    let before = tables(&state(&cluster, 1));
    assert!(!before.is_empty());
    fs::remove_file(cluster.data_dir(0).join("state/CURRENT_STATE")).unwrap();
    let refused = cluster.try_start(0).await.unwrap_err().to_string();
    assert!(
        refused.contains("CURRENT_STATE is missing; found: state-00000001; nothing was changed"),
        "{refused}"
    );
    assert_eq!(tables(&state(&cluster, 1)), before);
    point_to(&cluster, 1);
    cluster.start(0).await;
    cluster.ready(0).await;
    assert_eq!(count(cluster.replica(0), "k/"), 400);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_state_that_the_log_does_not_reach_back_to_removes_no_other() {
    let mut cluster = Cluster::new(1);
    cluster.snapshot_entries = 50;
    cluster.start_all().await;
    write(cluster.replica(0), "k/first", "v").await.unwrap();
    cluster.kill(0).await;
    let old = cluster.data_dir(0).join("old");
    fs::create_dir(&old).unwrap();
    for entry in fs::read_dir(state(&cluster, 1)).unwrap() {
        let path = entry.unwrap().path();
        fs::copy(&path, old.join(path.file_name().unwrap())).unwrap();
    }
    cluster.start(0).await;
    cluster.ready(0).await;
    purged(&mut cluster).await;

    // The pointer names what the state was long ago.
    fs::rename(state(&cluster, 1), state(&cluster, 2)).unwrap();
    fs::rename(&old, state(&cluster, 1)).unwrap();
    let before = tables(&state(&cluster, 2));
    for _ in 0..2 {
        let refused = cluster.try_start(0).await.unwrap_err().to_string();
        assert!(refused.contains("the log begins after index"), "{refused}");
        assert_eq!(tables(&state(&cluster, 2)), before);
    }
    point_to(&cluster, 2);
    cluster.start(0).await;
    cluster.ready(0).await;
    assert_eq!(count(cluster.replica(0), "k/"), 401);
    let names = fs::read_dir(cluster.data_dir(0).join("state")).unwrap();
    let mut names: Vec<_> = names.map(|entry| entry.unwrap().file_name()).collect();
    names.sort();
    assert_eq!(names, ["CURRENT_STATE", "state-00000002"]);
}
