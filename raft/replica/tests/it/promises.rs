//! Members whose data went back in time: what they had promised must not be lost in silence, and never served wrongly.

use std::{
    fs,
    path::{Path, PathBuf},
};

use barque_replica::MemberId;

use crate::cluster::{Cluster, PATIENCE, local, read, within, write, write_until_acknowledged};

/// Copies a directory of a member that does not run.
fn copy_dir(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        match entry.file_type().unwrap().is_dir() {
            true => copy_dir(&entry.path(), &target),
            false => drop(fs::copy(entry.path(), target).unwrap()),
        }
    }
}

/// A copy of a member's data directory, to be put back later.
struct Copy {
    data_dir: PathBuf,
    copy: tempfile::TempDir,
}

impl Copy {
    fn of(cluster: &Cluster, number: usize) -> Self {
        let (data_dir, copy) = (cluster.data_dir(number), tempfile::tempdir().unwrap());
        copy_dir(&data_dir, copy.path());
        Self { data_dir, copy }
    }

    /// These directories of the data directory go back.
    fn put_back(&self, names: &[&str]) {
        for name in names {
            fs::remove_dir_all(self.data_dir.join(name)).unwrap();
            copy_dir(&self.copy.path().join(name), &self.data_dir.join(name));
        }
    }
}

const EVERYTHING: &[&str] = &["member", "snap", "state", "wal"];
/// As after a disk that did not sync what it was told to: who the member is has not changed.
const LOG_AND_STATE: &[&str] = &["state", "wal"];

/// Three members that know each other; the last one, c, went back behind writes that a and it had acknowledged, while b
/// was down. a is down now.
struct WentBack {
    cluster: Cluster,
    a: usize,
    b: usize,
    c: usize,
    /// Of c.
    id: MemberId,
}

impl WentBack {
    async fn new(went_back: &[&str]) -> Self {
        let mut cluster = Cluster::started(3).await;
        write_until_acknowledged(cluster.replica(0), "before", "1").await;
        cluster.introduced().await;
        let a = cluster.leader().await;
        let (b, c) = ((a + 1) % 3, (a + 2) % 3);
        cluster.kill(c).await;
        let copy = Copy::of(&cluster, c);
        cluster.start(c).await;
        cluster.ready(c).await;
        // Everybody has heard of this start.
        write_until_acknowledged(cluster.replica(c), "between", "1").await;
        cluster.caught_up(b).await;
        cluster.caught_up(c).await;
        // Followers of one leader tell each other, too.
        assert_eq!(noted_start(&cluster, b, c), 2);
        cluster.kill(b).await;
        for turn in 1..=30 {
            write_until_acknowledged(cluster.replica(a), &format!("w{turn}"), "v").await;
        }
        let id = cluster.id(c);
        cluster.kill(a).await;
        cluster.kill(c).await;
        copy.put_back(went_back);
        Self { cluster, a, b, c, id }
    }
}

/// The start of another that the member has noted.
fn noted_start(cluster: &Cluster, number: usize, of: usize) -> u64 {
    let path = cluster.data_dir(number).join("member").join("peers.json");
    let notes: serde_json::Value = serde_json::from_slice(&fs::read(path).unwrap()).unwrap();
    let id = format!("{:x}", cluster.id(of).0);
    let peers = notes["peers"].as_array().unwrap();
    let peer = peers.iter().find(|peer| peer["member_id"] == id);
    peer.unwrap()["start"]["number"].as_u64().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_older_copy_of_a_member_is_refused_and_nothing_is_lost() {
    let WentBack {
        mut cluster,
        a,
        b,
        c,
        id,
    } = WentBack::new(EVERYTHING).await;
    cluster.start(b).await;
    // It is told before it takes part.
    let reason = cluster.try_start(c).await.unwrap_err().to_string();
    let id = id.0;
    assert!(
        reason.starts_with(&format!("member {id:x} runs on an older copy of its data")),
        "{reason}"
    );
    assert!(
        reason.contains(&format!("`etcdctl member remove {id:x}`")),
        "{reason}"
    );
    // It does not ask again.
    let refused = cluster.try_start(c).await.unwrap_err().to_string();
    assert_eq!(refused, reason);
    cluster.start(a).await;
    for turn in 1..=30 {
        cluster.caught_up(b).await;
        assert_eq!(
            read(cluster.replica(b), &format!("w{turn}")).await.as_deref(),
            Some("v")
        );
    }
    write_until_acknowledged(cluster.replica(b), "after", "1").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_older_copy_is_refused_though_it_was_started_before_while_nobody_heard() {
    let WentBack {
        mut cluster, a, b, c, ..
    } = WentBack::new(EVERYTHING).await;
    // Its counter is beyond what b has noted then.
    for _ in 0..2 {
        cluster.start(c).await;
        cluster.kill(c).await;
    }
    cluster.start(b).await;
    let reason = cluster.try_start(c).await.unwrap_err().to_string();
    assert!(
        reason.contains(
            "runs on an older copy of its data: start 2 of it was seen before, and this one says start 4"
        ),
        "{reason}"
    );
    cluster.start(a).await;
    cluster.caught_up(b).await;
    assert_eq!(read(cluster.replica(b), "w30").await.as_deref(), Some("v"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_applied_is_never_taken_back() {
    let WentBack {
        mut cluster, a, b, c, ..
    } = WentBack::new(LOG_AND_STATE).await;
    cluster.start(b).await;
    cluster.start(c).await;
    // Raft cannot know that these two are not the quorum that they seem to be.
    for turn in 1..=10 {
        write_until_acknowledged(cluster.replica(b), &format!("z{turn}"), "v").await;
    }
    for _ in 0..2 {
        cluster.start(a).await;
        let reason = within(cluster.replica(a).failed()).await;
        assert!(
            [
                "has an entry of term",
                "takes back this member's log",
                "both lead in term"
            ]
            .iter()
            .any(|way| reason.contains(way)),
            "{reason}"
        );
        assert!(reason.contains("Nothing was changed here"), "{reason}");
        // It has what it had, and nothing of the other history.
        assert_eq!(local(cluster.replica(a), "w30").as_deref(), Some("v"));
        assert_eq!(local(cluster.replica(a), "z1"), None);
        assert!(cluster.replica(a).read_barrier().await.is_err());
        cluster.kill(a).await;
    }
    write_until_acknowledged(cluster.replica(b), "after", "1").await;
    assert_eq!(read(cluster.replica(c), "z10").await.as_deref(), Some("v"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_follower_that_lost_what_it_had_acknowledged_is_refused_and_the_others_go_on() {
    let mut cluster = Cluster::started(3).await;
    write_until_acknowledged(cluster.replica(0), "before", "1").await;
    cluster.introduced().await;
    let leader = cluster.leader().await;
    let (other, lost) = ((leader + 1) % 3, (leader + 2) % 3);
    cluster.kill(lost).await;
    let copy = Copy::of(&cluster, lost);
    cluster.start(lost).await;
    for turn in 0..30 {
        write_until_acknowledged(cluster.replica(leader), &format!("k{turn}"), "v").await;
    }
    cluster.caught_up(lost).await;
    let (id, term) = (cluster.id(lost).0, cluster.replica(leader).status().term);
    cluster.kill(lost).await;
    copy.put_back(LOG_AND_STATE);
    cluster.start(lost).await;
    let reason = within(cluster.replica(lost).failed()).await;
    assert!(
        reason.starts_with(&format!(
            "member {id:x} has lost log entries that it had acknowledged"
        )),
        "{reason}"
    );
    // Two of three go on, under the leader that they had.
    write(cluster.replica(leader), "after", "1").await.unwrap();
    cluster.caught_up(other).await;
    assert_eq!(cluster.replica(leader).status().term, term);
    // Neither comes back by a restart: not the one that lost, nor the trust of the one that saw it.
    cluster.kill(lost).await;
    assert_eq!(cluster.try_start(lost).await.unwrap_err().to_string(), reason);
    let peers = cluster.data_dir(leader).join("member").join("peers.json");
    assert!(fs::read_to_string(peers).unwrap().contains("\"lost\""));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_removed_while_it_was_down_is_told_after_the_others_were_restarted() {
    let mut cluster = Cluster::started(3).await;
    write_until_acknowledged(cluster.replica(0), "a", "1").await;
    cluster.introduced().await;
    let gone = cluster.follower().await;
    let id = cluster.id(gone);
    let others = [(gone + 1) % 3, (gone + 2) % 3];
    cluster.kill(gone).await;
    within(async {
        while cluster.replica(others[0]).remove_member(id).await.is_err() {}
        while others
            .iter()
            .any(|other| cluster.replica(*other).members().len() != 2)
        {}
    })
    .await;
    write_until_acknowledged(cluster.replica(others[0]), "b", "1").await;
    cluster.caught_up(others[1]).await;
    for other in others {
        cluster.kill(other).await;
    }
    for other in others {
        cluster.start(other).await;
    }
    for other in others {
        cluster.ready(other).await;
    }
    let reason = cluster.try_start(gone).await.unwrap_err().to_string();
    assert_eq!(
        reason,
        format!("member {:x} has been permanently removed from the cluster", id.0)
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_member_remembers_of_its_peers_may_not_be_lost() {
    let mut cluster = Cluster::started(1).await;
    write(cluster.replica(0), "a", "1").await.unwrap();
    cluster.kill(0).await;
    let peers = cluster.data_dir(0).join("member").join("peers.json");
    let whole = fs::read(&peers).unwrap();
    fs::remove_file(&peers).unwrap();
    let refused = cluster.try_start(0).await.unwrap_err().to_string();
    assert!(refused.contains("peers.json is missing"), "{refused}");
    for damaged in [&whole[..whole.len() / 2], b"[]", b""] {
        fs::write(&peers, damaged).unwrap();
        let refused = cluster.try_start(0).await.unwrap_err().to_string();
        assert!(refused.contains("peers.json"), "{refused}");
        assert_eq!(fs::read(&peers).unwrap(), damaged);
    }
    fs::write(&peers, &whole).unwrap();
    cluster.start(0).await;
    tokio::time::timeout(PATIENCE, cluster.ready(0)).await.unwrap();
}
