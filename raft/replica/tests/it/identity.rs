//! Who may take part: the right cluster, and never a member that has lost its data.

use std::{
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use serde_json::{Value, json};

use crate::cluster::{Cluster, read, within, write, write_until_acknowledged};

fn identity_file(data_dir: &Path) -> PathBuf {
    data_dir.join("member").join("identity.json")
}

fn peers_file(data_dir: &Path) -> PathBuf {
    data_dir.join("member").join("peers.json")
}

fn load(path: &Path) -> Value {
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

/// As the program itself would have written it: with a checksum that fits.
fn save(path: &Path, value: &Value) {
    let mut sealed = value.clone();
    let fields = sealed.as_object_mut().unwrap();
    fields.remove("checksum");
    // Keys are sorted, and there is no white space.
    let checksum = crc32c::crc32c(&serde_json::to_vec(&fields).unwrap());
    fields.insert("checksum".into(), format!("{checksum:08x}").into());
    std::fs::write(path, serde_json::to_vec(&sealed).unwrap()).unwrap();
}

/// Three members of which everybody knows everything.
async fn introduced() -> Cluster {
    let cluster = Cluster::started(3).await;
    write(cluster.replica(0), "a", "1").await.unwrap();
    for number in 0..3 {
        cluster.caught_up(number).await;
    }
    cluster.introduced().await;
    cluster
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wiped_member_is_refused_by_its_peers() {
    let mut cluster = introduced().await;
    let id = cluster.id(2);
    cluster.kill(2).await;
    cluster.wipe(2);
    let refused = cluster.try_start(2).await.unwrap_err().to_string();
    assert!(
        refused.contains(&format!("member {:x} has already been bootstrapped", id.0)),
        "{refused}"
    );
    assert!(
        refused.contains(&format!("etcdctl member remove {:x}", id.0)),
        "{refused}"
    );
    // The directory that it is told to start with must be as empty as it was.
    assert!(!identity_file(&cluster.data_dir(2)).exists());
    cluster.new_cluster = false;
    let refused = cluster.try_start(2).await.unwrap_err().to_string();
    assert!(refused.contains("has already been bootstrapped"), "{refused}");
    write_until_acknowledged(cluster.replica(0), "b", "2").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wiped_member_that_started_alone_never_votes_and_stops() {
    let mut cluster = introduced().await;
    let term = kill_all(&mut cluster).await;
    cluster.wipe(2);
    // Nobody is there to tell it.
    let alone = cluster.begin(2);
    cluster.start(1).await;
    let refused = within(alone).await.unwrap().err().unwrap().to_string();
    assert!(refused.contains("has already been bootstrapped"), "{refused}");
    // One of three and a wiped one are no quorum.
    assert_eq!(without_a_leader(&cluster, 1).await, term);
    cluster.start(0).await;
    cluster.ready(0).await;
    assert_eq!(read(cluster.replica(1), "a").await.as_deref(), Some("1"));
}

/// The leader last, so that there is no other; returns its term.
async fn kill_all(cluster: &mut Cluster) -> u64 {
    let leader = cluster.leader().await;
    let term = cluster.replica(leader).status().term;
    for number in [leader + 1, leader + 2, leader] {
        cluster.kill(number % 3).await;
    }
    term
}

/// Waits until the member names no leader: neither itself nor the one of before, which its vote on disk still names.
/// Returns its term: nobody begins another without a quorum that would elect it.
async fn without_a_leader(cluster: &Cluster, number: usize) -> u64 {
    let mut leadership = cluster.replica(number).leadership();
    let alone = within(leadership.wait_for(|now| now.leader.is_none())).await;
    alone.unwrap().term
}

/// A voted for B. B is down, A is wiped, and C never spoke with A: their votes must not elect anybody.
struct Hole {
    cluster: Cluster,
    a: usize,
    b: usize,
    c: usize,
    term: u64,
}

impl Hole {
    async fn new() -> Self {
        let mut cluster = introduced().await;
        let b = cluster.leader().await;
        let (a, c) = ((b + 1) % 3, (b + 2) % 3);
        let term = kill_all(&mut cluster).await;
        let peers = peers_file(&cluster.data_dir(c));
        let mut nobody = load(&peers);
        nobody["peers"] = json!([]);
        save(&peers, &nobody);
        Self {
            cluster,
            a,
            b,
            c,
            term,
        }
    }

    /// C elected nobody. With B back there is a quorum of members that have all they ever had.
    async fn closed(mut self) {
        assert_eq!(without_a_leader(&self.cluster, self.c).await, self.term);
        self.cluster.start(self.b).await;
        self.cluster.ready(self.b).await;
        assert_eq!(
            read(self.cluster.replica(self.c), "a").await.as_deref(),
            Some("1")
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wiped_member_does_not_start_beside_one_that_knows_it_from_the_log_alone() {
    let mut hole = Hole::new().await;
    hole.cluster.wipe(hole.a);
    let wiped = hole.cluster.begin(hole.a);
    hole.cluster.start(hole.c).await;
    let refused = within(wiped).await.unwrap().err().unwrap().to_string();
    assert!(refused.contains("has already been bootstrapped"), "{refused}");
    hole.closed().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_data_directory_gets_and_gives_no_vote_even_if_it_runs() {
    let mut hole = Hole::new().await;
    let data_dir = hole.cluster.data_dir(hole.a);
    let mut forged = load(&identity_file(&data_dir));
    hole.cluster.wipe(hole.a);
    // As if everybody had agreed to it.
    forged["incarnation"] = json!("1234");
    forged["admitted"] = json!(true);
    forged["has_log"] = json!(false);
    std::fs::create_dir_all(data_dir.join("member")).unwrap();
    save(&identity_file(&data_dir), &forged);
    save(
        &peers_file(&data_dir),
        &json!({"format_version": 2, "peers": [], "membership_at": 0}),
    );
    hole.cluster.start(hole.a).await;
    hole.cluster.start(hole.c).await;
    let reason = within(hole.cluster.replica(hole.a).failed()).await;
    assert!(reason.contains("has already been bootstrapped"), "{reason}");
    hole.cluster.kill(hole.a).await;
    hole.closed().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_founder_that_crashed_before_all_had_seen_it_asks_again() {
    let mut cluster = Cluster::new(3);
    let both = [cluster.begin(0), cluster.begin(1)];
    let seen = |cluster: &Cluster, number| {
        let peers = peers_file(&cluster.data_dir(number));
        peers.exists() && load(&peers)["peers"][0].is_object()
    };
    within(async {
        while !(seen(&cluster, 0) && seen(&cluster, 1)) {
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    })
    .await;
    for starting in both {
        starting.abort();
        assert!(starting.await.is_err_and(|error| error.is_cancelled()));
    }
    let before = load(&identity_file(&cluster.data_dir(0)));
    let own_peers = load(&peers_file(&cluster.data_dir(0)));
    assert_eq!(
        (&before["admitted"], &before["founder"]),
        (&json!(false), &json!(true))
    );

    // What the other one remembers decides, and 0 hears of it.
    let peers = peers_file(&cluster.data_dir(1));
    let remembered = load(&peers);
    assert_eq!(remembered["peers"][0]["incarnation"], before["incarnation"]);
    let mut altered = remembered.clone();
    altered["peers"][0]["incarnation"] = json!("1234");
    save(&peers, &altered);
    let (second, other) = (cluster.begin(0), cluster.begin(1));
    let refused = within(second).await.unwrap().err().unwrap().to_string();
    assert!(refused.contains("has already been bootstrapped"), "{refused}");
    other.abort();
    assert!(other.await.is_err_and(|error| error.is_cancelled()));

    // It is still the same as before once all of them are there.
    save(&peers, &remembered);
    save(&peers_file(&cluster.data_dir(0)), &own_peers);
    save(&identity_file(&cluster.data_dir(0)), &before);
    cluster.start_all().await;
    let after = load(&identity_file(&cluster.data_dir(0)));
    assert_eq!(after["incarnation"], before["incarnation"]);
    assert_eq!(after["admitted"], json!(true));
    write(cluster.replica(0), "a", "1").await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_of_another_cluster_does_not_start() {
    let mut cluster = introduced().await;
    cluster.kill(2).await;
    cluster.wipe(2);
    cluster.token = "another".into();
    let refused = cluster.try_start(2).await.unwrap_err().to_string();
    assert!(
        refused.contains("is of cluster") && refused.contains("--initial-cluster-token"),
        "{refused}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_member_keeps_is_for_its_owner_alone() {
    let cluster = Cluster::started(1).await;
    let data_dir = cluster.data_dir(0);
    let below = ["member", "snap", "state", "wal"].map(|name| data_dir.join(name));
    for dir in below.iter().chain([&data_dir]) {
        let mode = dir.metadata().unwrap().permissions().mode() & 0o7777;
        assert_eq!(mode, 0o700, "{}: {mode:o}", dir.display());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_process_leaves_the_snapshots_of_the_first_alone() {
    let mut cluster = Cluster::started(1).await;
    let kept = cluster.data_dir(0).join("snap").join("out-7");
    std::fs::create_dir(&kept).unwrap();
    // It listens elsewhere, and takes itself for the same member.
    let urls = cluster.members[0].peer_urls.clone();
    cluster.relocate(0);
    cluster.members[0].peer_urls = urls;
    let refused = cluster.try_start(0).await.unwrap_err().to_string();
    assert!(refused.ends_with("is in use by another process"), "{refused}");
    assert!(kept.exists());
    write(cluster.replica(0), "a", "1").await.unwrap();
    cluster.kill(0).await;
    cluster.start(0).await;
    assert!(!kept.exists(), "of an earlier life");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_data_directory_in_parts_does_not_open() {
    let mut cluster = Cluster::started(1).await;
    write(cluster.replica(0), "a", "1").await.unwrap();
    cluster.kill(0).await;
    let (wal, identity) = (
        cluster.data_dir(0).join("wal"),
        cluster.data_dir(0).join("member"),
    );
    std::fs::rename(&identity, identity.with_extension("away")).unwrap();
    let refused = cluster.try_start(0).await.unwrap_err().to_string();
    assert!(refused.contains("identity.json is missing"), "{refused}");
    std::fs::rename(identity.with_extension("away"), &identity).unwrap();
    std::fs::rename(&wal, wal.with_extension("away")).unwrap();
    let refused = cluster.try_start(0).await.unwrap_err().to_string();
    assert!(
        refused.contains("the log of member") && refused.contains("is gone"),
        "{refused}"
    );
    std::fs::remove_dir_all(&wal).unwrap();
    std::fs::rename(wal.with_extension("away"), &wal).unwrap();
    cluster.start(0).await;
    cluster.ready(0).await;
    assert_eq!(read(cluster.replica(0), "a").await.as_deref(), Some("1"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn members_may_start_in_any_order_and_at_once() {
    let mut cluster = Cluster::new(3);
    cluster.start_together(&[2, 0, 1]).await;
    for number in 0..3 {
        cluster.ready(number).await;
    }
    write(cluster.replica(1), "a", "1").await.unwrap();
}
