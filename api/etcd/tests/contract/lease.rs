//! Lines 15–18: leases.

use std::time::{Duration, Instant};

use barque_proto::etcd::{
    etcdserverpb::{
        LeaseGrantRequest, LeaseKeepAliveRequest, LeaseLeasesRequest, LeaseTimeToLiveRequest,
        LeaseTimeToLiveResponse,
    },
    mvccpb::event::EventType,
};
use bytes::Bytes;

use crate::{
    client::Target,
    watch_stream::{WatchStream, everything, mod_revision},
};

/// The TTL with which the server answers a keep-alive.
pub async fn keep_alive(t: &Target, id: i64) -> i64 {
    let request = tokio_stream::once(LeaseKeepAliveRequest { id });
    let mut answers = t.lease().lease_keep_alive(request).await.unwrap().into_inner();
    let answer = answers.message().await.unwrap().expect("an answer");
    assert_eq!(answer.id, id);
    answer.ttl
}

pub async fn time_to_live(t: &Target, id: i64, keys: bool) -> LeaseTimeToLiveResponse {
    t.lease()
        .lease_time_to_live(LeaseTimeToLiveRequest { id, keys })
        .await
        .unwrap()
        .into_inner()
}

pub async fn missing_leases_are_no_error_to_readers(t: Target) {
    assert_eq!(keep_alive(&t, 0x7eed_0bad).await, 0);
    let answer = time_to_live(&t, 0x7eed_0bad, true).await;
    assert_eq!((answer.id, answer.ttl, answer.keys.len()), (0x7eed_0bad, -1, 0));
    let revoked = t.grant(600).await;
    t.revoke(revoked).await;
    assert_eq!(keep_alive(&t, revoked).await, 0);
    assert_eq!(time_to_live(&t, revoked, false).await.ttl, -1);
}

pub async fn a_short_ttl_is_raised(t: Target) {
    let request = LeaseGrantRequest { ttl: 1, id: 0 };
    let granted = t.lease().lease_grant(request).await.unwrap().into_inner();
    assert!(granted.ttl >= 1);
    assert_eq!(
        time_to_live(&t, granted.id, false).await.granted_ttl,
        granted.ttl,
        "what the answer said"
    );
    assert_eq!(keep_alive(&t, granted.id).await, granted.ttl);
    t.revoke(granted.id).await;
    let chosen = LeaseGrantRequest {
        ttl: 600,
        id: 0x5eed_1234,
    };
    let granted = t.lease().lease_grant(chosen).await.unwrap().into_inner();
    assert_eq!((granted.id, granted.ttl), (0x5eed_1234, 600));
    t.revoke(granted.id).await;
}

pub async fn an_unrenewed_lease_expires(t: Target) {
    let mut stream = WatchStream::open(&t).await;
    stream.create(everything(&t)).await;
    stream.created().await;
    let start = Instant::now();
    let granted = t
        .lease()
        .lease_grant(LeaseGrantRequest { ttl: 2, id: 0 })
        .await
        .unwrap()
        .into_inner();
    t.put_leased("k", granted.id).await;
    assert_eq!(stream.events().await[0].r#type(), EventType::Put);
    assert_eq!(stream.events().await[0].r#type(), EventType::Delete);
    let lived = start.elapsed();
    assert!(
        lived >= Duration::from_secs(granted.ttl as u64),
        "{lived:?} of {} s",
        granted.ttl
    );
    assert!(t.get("k").await.is_none());
    assert_eq!(time_to_live(&t, granted.id, false).await.ttl, -1);
}

pub async fn a_renewed_lease_stays(t: Target) {
    let id = t.grant(5).await;
    let bound = t.put_leased("k", id).await;
    // Well past what it would have lived without.
    for _ in 0..14 {
        tokio::time::sleep(Duration::from_millis(500)).await;
        assert_eq!(keep_alive(&t, id).await, 5);
    }
    assert_eq!(t.get("k").await.unwrap().mod_revision, bound);
    t.revoke(id).await;
}

pub async fn revoke_deletes_in_one_revision_in_key_order(t: Target) {
    let lease = t.grant(600).await;
    for name in ["d", "a", "c", "b"] {
        t.put_leased(name, lease).await;
    }
    t.put("free", "v").await;
    let mut stream = WatchStream::open(&t).await;
    stream.create(everything(&t)).await;
    stream.created().await;
    let before = t.revision().await;
    assert_eq!(t.revoke(lease).await, before + 1);
    let events = stream.events().await;
    let keys: Vec<Bytes> = events
        .iter()
        .map(|event| event.kv.as_ref().unwrap().key.clone())
        .collect();
    assert_eq!(keys, ["a", "b", "c", "d"].map(|name| t.key(name)));
    assert!(events.iter().all(|event| mod_revision(event) == before + 1));
    assert!(t.get("free").await.is_some());
}

/// Around its expiry a lease is either renewed and its key there, or gone and its key gone with it.
pub async fn a_keep_alive_agrees_with_the_keys(t: Target) {
    let mut tasks = Vec::new();
    for step in 0..20 {
        let t = t.clone();
        tasks.push(tokio::spawn(async move {
            let name = format!("k{step}");
            let id = t.grant(2).await;
            t.put_leased(&name, id).await;
            tokio::time::sleep(Duration::from_millis(1800 + 60 * step)).await;
            let ttl = keep_alive(&t, id).await;
            let there = t.get(&name).await.is_some();
            assert_eq!(ttl > 0, there, "a keep-alive was answered with {ttl}");
            if there {
                t.revoke(id).await;
            }
        }));
    }
    for task in tasks {
        task.await.unwrap();
    }
}

pub async fn time_to_live_lists_keys(t: Target) {
    let id = t.grant(600).await;
    t.put_leased("b", id).await;
    t.put_leased("a", id).await;
    let answer = time_to_live(&t, id, true).await;
    assert_eq!((answer.id, answer.granted_ttl), (id, 600));
    assert!((1..=600).contains(&answer.ttl), "{}", answer.ttl);
    let mut keys = answer.keys;
    keys.sort();
    assert_eq!(keys, [t.key("a"), t.key("b")]);
    assert!(time_to_live(&t, id, false).await.keys.is_empty());
    t.revoke(id).await;
}

pub async fn leases_are_listed(t: Target) {
    let (first, second) = (t.grant(600).await, t.grant(600).await);
    let listed = async || -> Vec<i64> {
        let leases = t
            .lease()
            .lease_leases(LeaseLeasesRequest {})
            .await
            .unwrap()
            .into_inner()
            .leases;
        leases.iter().map(|lease| lease.id).collect()
    };
    let both = listed().await;
    assert!(both.contains(&first) && both.contains(&second), "{both:?}");
    t.revoke(first).await;
    let one = listed().await;
    assert!(!one.contains(&first) && one.contains(&second), "{one:?}");
    t.revoke(second).await;
}
