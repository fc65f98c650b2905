//! Members whose states differ are found, and stopped; members that agree never are.

use std::time::Duration;

use barque_proto::command::{Alarm, Command, Compact, alarm::Kind, command::Op};
use barque_replica::{Leadership, ProposeError, Replica, ask_for_rebuild};
use barque_store::CommandError;

use crate::{
    cluster::{Cluster, local, within, write, write_until_acknowledged},
    tamper::{alarmed, make_differ, stop, swap_rows},
};

/// Three members (or as many) that hold two keys.
async fn with_two_keys(size: usize) -> Cluster {
    let cluster = Cluster::started(size).await;
    for (key, value) in [("a", "1"), ("b", "2")] {
        write_until_acknowledged(cluster.replica(0), key, value).await;
    }
    for number in 0..size {
        cluster.caught_up(number).await;
    }
    cluster
}

async fn disarm(replica: &Replica, member: u64) {
    let alarm = Alarm {
        kind: Kind::Corrupt.into(),
        member_id: member,
        active: false,
    };
    let command = Command {
        op: Some(Op::Alarm(alarm)),
        ..Command::default()
    };
    replica.propose(command).await.unwrap();
}

async fn refuses(replica: &Replica) {
    let refused = write(replica, "c", "3").await;
    assert!(
        matches!(refused, Err(ProposeError::Refused(CommandError::Corrupt))),
        "{refused:?}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_follower_that_differs_stops_for_good_and_the_alarm_is_raised() {
    let mut cluster = with_two_keys(3).await;
    let follower = cluster.follower().await;
    let id = cluster.id(follower).0;
    stop(&mut cluster, follower).await;
    make_differ(&cluster, follower, "a", "b");
    // It lags, too.
    let leader = cluster.leader().await;
    for turn in 0..50 {
        write(cluster.replica(leader), &format!("k/{turn}"), "v")
            .await
            .unwrap();
    }
    cluster.start(follower).await;
    assert_eq!(local(cluster.replica(follower), "a").as_deref(), Some("2"));
    let reason = within(cluster.replica(follower).failed()).await;
    let expected = format!("the state of member {id:x} cannot be trusted: after entry ");
    assert!(
        reason.starts_with(&expected) && reason.contains("run `barque rebuild --data-dir "),
        "{reason}"
    );
    // By whoever leads by now.
    let found = |cluster: &Cluster| -> u64 {
        let others = (0..3).filter(|number| *number != follower);
        others
            .map(|number| cluster.replica(number).metrics().divergences)
            .sum()
    };
    let once = found(&cluster);
    assert!(once >= 1);

    // Raised before the member was told.
    alarmed(cluster.replica(leader), Kind::Corrupt, id).await;
    cluster.kill(follower).await;
    for number in cluster.running() {
        refuses(cluster.replica(number)).await;
        cluster.replica(number).read_barrier().await.unwrap();
        assert_eq!(local(cluster.replica(number), "a").as_deref(), Some("1"));
    }
    let refused = cluster
        .try_start(follower)
        .await
        .err()
        .map(|error| error.to_string());
    assert!(
        refused.as_ref().is_some_and(|text| text.starts_with(&expected)),
        "{refused:?}"
    );
    disarm(cluster.replica(leader), id).await;
    for number in cluster.running() {
        write(cluster.replica(number), "c", "3").await.unwrap();
    }

    // Rebuilt from the others it is the member that it was.
    ask_for_rebuild(&cluster.data_dir(follower)).unwrap();
    cluster.start(follower).await;
    cluster.ready(follower).await;
    cluster.caught_up(follower).await;
    assert_eq!(cluster.id(follower).0, id);
    assert_eq!(local(cluster.replica(follower), "a").as_deref(), Some("1"));
    write(cluster.replica(follower), "d", "4").await.unwrap();
    assert!(cluster.data_dir(follower).join("state.damaged-1").is_dir());
    assert_eq!(found(&cluster), once, "none since");
    cluster.kill(follower).await;
    cluster.start(follower).await;
    cluster.ready(follower).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_that_differs_from_the_majority_hands_over_and_stops() {
    let mut cluster = with_two_keys(3).await;
    let wrong = cluster.follower().await;
    let id = cluster.id(wrong).0;
    // It goes last, so that nobody's log is longer.
    for number in [(wrong + 1) % 3, (wrong + 2) % 3, wrong] {
        stop(&mut cluster, number).await;
    }
    make_differ(&cluster, wrong, "a", "b");
    // It is much quicker than the others to stand for election.
    for number in [wrong, (wrong + 1) % 3, (wrong + 2) % 3] {
        let mut config = cluster.config(number);
        let (quick, slow) = (Duration::from_millis(500), Duration::from_secs(5));
        config.election_timeout = if number == wrong { quick } else { slow };
        cluster.replicas[number] = Some(Replica::start(config).await.unwrap());
    }
    let leads = |now: &Leadership| now.is_self;
    let mut leadership = cluster.replica(wrong).leadership();
    within(leadership.wait_for(leads)).await.unwrap();
    let reason = within(cluster.replica(wrong).failed()).await;
    assert!(
        reason.starts_with(&format!("the state of member {id:x}")),
        "{reason}"
    );
    cluster.kill(wrong).await;
    for number in cluster.running() {
        alarmed(cluster.replica(number), Kind::Corrupt, id).await;
        assert_eq!(local(cluster.replica(number), "a").as_deref(), Some("1"));
        refuses(cluster.replica(number)).await;
    }
    let leader = cluster.leader().await;
    disarm(cluster.replica(leader), id).await;
    write(cluster.replica(leader), "c", "3").await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_two_members_the_follower_stops_and_the_alarm_is_raised_before() {
    let mut cluster = with_two_keys(2).await;
    let follower = cluster.follower().await;
    stop(&mut cluster, follower).await;
    make_differ(&cluster, follower, "a", "b");
    cluster.start(follower).await;
    // Either may lead now, and the other one is told to stop: nobody can say which of the two is right.
    let stopped = within(async {
        tokio::select! {
            _ = cluster.replica(0).failed() => 0,
            _ = cluster.replica(1).failed() => 1,
        }
    })
    .await;
    let (told, left) = (cluster.id(stopped).0, cluster.replica(1 - stopped));
    alarmed(left, Kind::Corrupt, told).await;
    assert!(left.metrics().divergences >= 1);
    cluster.kill(stopped).await;
    let alone = cluster.replica(1 - stopped).read_barrier().await;
    assert!(alone.is_err(), "one of two is no majority");
    let believed = local(cluster.replica(1 - stopped), "a");

    // Whoever is rebuilt asks the other one, which has nobody to lead it.
    ask_for_rebuild(&cluster.data_dir(stopped)).unwrap();
    cluster.start(stopped).await;
    cluster.caught_up(stopped).await;
    assert_eq!(local(cluster.replica(stopped), "a"), believed);
    disarm(cluster.replica(stopped), told).await;
    write(cluster.replica(stopped), "c", "3").await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn members_that_agree_are_left_alone_whatever_happens_to_them() {
    let mut cluster = Cluster::new(3);
    cluster.snapshot_entries = 20;
    cluster.start_all().await;
    for turn in 0..4 {
        let away = cluster.follower().await;
        cluster.kill(away).await;
        // Enough for a snapshot to be sent in every other turn.
        for key in 0..(10 + 60 * (turn % 2)) {
            write_until_acknowledged(cluster.replica(cluster.leader().await), &format!("k/{key}"), "v").await;
        }
        let leader = cluster.leader().await;
        let revision = cluster.replica(leader).store().head().revision.0;
        let compact = Op::Compact(Compact { revision });
        let command = Command {
            op: Some(compact),
            ..Command::default()
        };
        cluster.replica(leader).propose(command).await.unwrap();
        cluster.start(away).await;
        cluster.ready(away).await;
        let to = Some(cluster.id(away));
        cluster.caught_up(away).await;
        drop(within(cluster.replica(leader).transfer_leadership(to)).await);
        write_until_acknowledged(cluster.replica(away), "turn", "v").await;
    }
    // Rounds without number have compared them by now; the last one compares what all have applied.
    for number in 0..3 {
        cluster.caught_up(number).await;
        let replica = cluster.replica(number);
        assert_eq!(replica.metrics().divergences, 0);
        assert!(replica.store().alarms().is_empty());
    }
    let index = (0..3)
        .filter_map(|number| cluster.replica(number).store().newest_mark())
        .map(|mark| mark.index)
        .min()
        .unwrap();
    let marks: Vec<_> = (0..3)
        .map(|number| cluster.replica(number).store().mark_at(index))
        .collect();
    assert!(
        marks[0].is_some() && marks.iter().all(|mark| *mark == marks[0]),
        "{marks:?}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rows_that_differ_are_found_by_the_walk_through_all_rows() {
    let mut cluster = with_two_keys(3).await;
    let follower = cluster.follower().await;
    let id = cluster.id(follower).0;
    for number in 0..3 {
        stop(&mut cluster, number).await;
    }
    swap_rows(&cluster, follower, "a", "b");
    cluster.scrub_every = Duration::from_millis(500);
    for number in 0..3 {
        cluster.start(number).await;
    }
    let reason = within(cluster.replica(follower).failed()).await;
    assert!(
        reason.contains("at revision 3 the rows here hash to "),
        "{reason}"
    );
    cluster.kill(follower).await;
    for number in cluster.running() {
        alarmed(cluster.replica(number), Kind::Corrupt, id).await;
        refuses(cluster.replica(number)).await;
        assert!(cluster.replica(number).metrics().scrubs > 0);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn members_that_write_all_the_time_are_walked_through_without_an_alarm() {
    let mut cluster = Cluster::new(3);
    cluster.scrub_every = Duration::from_millis(100);
    cluster.start_all().await;
    let leader = cluster.leader().await;
    let walked = |number: usize| cluster.replica(number).metrics().scrubs >= 5;
    within(async {
        for turn in 0.. {
            if (0..3).all(walked) {
                return;
            }
            let key = format!("k/{}", turn % 10);
            write_until_acknowledged(cluster.replica(turn % 3), &key, "v").await;
        }
    })
    .await;
    assert_eq!(cluster.replica(leader).metrics().divergences, 0);
    assert!(cluster.replica(leader).store().alarms().is_empty());
}
