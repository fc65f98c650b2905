//! `--quota-backend-bytes` from the first refusal to the first write after it, as an operator goes through it.

use barque_chaos::cluster::{Cluster, Etcdctl, Options};
use barque_proto::etcd::etcdserverpb::{DeleteRangeRequest, LeaseGrantRequest, RangeRequest};
use tonic::Code;

use crate::{
    client::{Target, always, assert_refused, op_put, put},
    suite::Side,
};

const QUOTA_BYTES: usize = 4 << 20;
const VALUE_BYTES: usize = 256 << 10;
const NO_SPACE: &str = "etcdserver: mvcc: database space exceeded";

async fn cluster() -> Cluster {
    let options = Options {
        extra_flags: vec![format!("--quota-backend-bytes={QUOTA_BYTES}")],
        ..Options::default()
    };
    Cluster::barque(3, options).await.unwrap()
}

async fn target(cluster: &Cluster, index: usize) -> Target {
    Target::connect(&cluster.endpoint(index), Side::Ours)
        .await
        .for_check("quota")
}

/// Of all members, by addresses without a scheme: this old etcdctl would send a URL whole as the authority.
fn etcdctl_of_all(cluster: &Cluster) -> Etcdctl {
    let addresses = cluster.endpoints().into_iter();
    Etcdctl::new(addresses.map(|url| url.replace("http://", "")).collect(), None)
}

async fn etcdctl(etcdctl: &Etcdctl, arguments: &[&str]) -> String {
    etcdctl.run(arguments).await.unwrap().success().unwrap()
}

/// Puts until one is refused, and says how many were not.
async fn fill(target: &Target) -> usize {
    let value = "x".repeat(VALUE_BYTES);
    for filled in 0..2 * QUOTA_BYTES / VALUE_BYTES {
        let outcome = target.try_put(put(target.key(&filled.to_string()), &value)).await;
        if outcome.is_err() {
            assert_refused(outcome, Code::ResourceExhausted, NO_SPACE);
            return filled;
        }
    }
    panic!("twice the quota was taken");
}

/// Whatever grows is refused through this member, however little it is.
async fn refuses_growth(target: &Target) {
    let small = target.try_put(put(target.key("small"), "v")).await;
    assert_refused(small, Code::ResourceExhausted, NO_SPACE);
    let txn = target
        .try_txn(always(vec![op_put(target.key("small"), "v")]))
        .await;
    assert_refused(txn, Code::ResourceExhausted, NO_SPACE);
    let grant = target
        .lease()
        .lease_grant(LeaseGrantRequest { ttl: 600, id: 0 })
        .await;
    assert_refused(grant, Code::ResourceExhausted, NO_SPACE);
}

#[tokio::test]
async fn a_full_database_takes_writes_again_once_space_was_freed() {
    let cluster = cluster().await;
    let (one, other) = (target(&cluster, 0).await, target(&cluster, 1).await);
    let all = etcdctl_of_all(&cluster);

    let filled = fill(&one).await;
    // Each value is kept once, so not far from as many as the quota holds.
    assert!(
        (8..=QUOTA_BYTES / VALUE_BYTES).contains(&filled),
        "{filled} were taken"
    );
    for target in [&one, &other] {
        refuses_growth(target).await;
    }
    let listed = etcdctl(&all, &["alarm", "list"]).await;
    assert!(listed.contains("alarm:NOSPACE"), "{listed}");
    let error = all.run(&["put", "k", "v"]).await.unwrap();
    assert!(
        !error.status.success() && error.stderr.contains(NO_SPACE),
        "{error:?}"
    );

    // Disarmed while there is no space, it comes back.
    etcdctl(&all, &["alarm", "disarm"]).await;
    assert_eq!(etcdctl(&all, &["alarm", "list"]).await, "");
    let value = "x".repeat(VALUE_BYTES);
    let refused = one.try_put(put(one.key("more"), &value)).await;
    assert_refused(refused, Code::ResourceExhausted, NO_SPACE);
    assert!(etcdctl(&all, &["alarm", "list"]).await.contains("alarm:NOSPACE"));

    // What an operator does about it.
    let (key, range_end) = other.all();
    let found = other
        .range(RangeRequest {
            key: key.clone(),
            range_end: range_end.clone(),
            count_only: true,
            ..RangeRequest::default()
        })
        .await;
    assert_eq!(found.count, filled as i64);
    let deleted = other
        .try_delete(DeleteRangeRequest {
            key,
            range_end,
            ..DeleteRangeRequest::default()
        })
        .await
        .unwrap();
    assert_eq!(deleted.deleted, filled as i64);
    let revision = deleted.header.unwrap().revision.to_string();
    etcdctl(&all, &["compact", &revision]).await;
    // Every member must know of the compaction before it is told to give space back.
    for index in 0..cluster.len() {
        target(&cluster, index).await.revision().await;
    }
    etcdctl(&all, &["defrag", "--command-timeout=30s"]).await;
    etcdctl(&all, &["alarm", "disarm"]).await;
    for target in [&one, &other] {
        target.put("again", &value).await;
    }
    assert_eq!(etcdctl(&all, &["alarm", "list"]).await, "");
}
