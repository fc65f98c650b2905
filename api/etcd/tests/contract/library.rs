//! A client library, end to end: what it makes of our answers.

use etcd_client::{
    Client, Compare, CompareOp, EventType, GetOptions, LeaseGrantOptions, PutOptions, Txn, TxnOp,
    TxnOpResponse, WatchOptions,
};

use crate::client::Target;

async fn client(t: &Target) -> Client {
    Client::connect([t.endpoint()], None).await.unwrap()
}

pub async fn kv_and_txn(t: Target) {
    let mut client = client(&t).await;
    let key = t.key("k").to_vec();
    client.put(key.clone(), "1", None).await.unwrap();
    let txn = Txn::new()
        .when([Compare::value(key.clone(), CompareOp::Equal, "1")])
        .and_then([TxnOp::put(key.clone(), "2", None), TxnOp::get(key.clone(), None)])
        .or_else([TxnOp::get(key.clone(), None)]);
    let response = client.txn(txn).await.unwrap();
    assert!(response.succeeded());
    match &response.op_responses()[1] {
        TxnOpResponse::Get(get) => assert_eq!(get.kvs()[0].value(), b"2"),
        other => panic!("{other:?}"),
    }
    let (prefix, _) = t.all();
    let counted = client
        .get(
            prefix.to_vec(),
            Some(GetOptions::new().with_prefix().with_count_only()),
        )
        .await
        .unwrap();
    assert_eq!(counted.count(), 1);
    assert_eq!(client.delete(key, None).await.unwrap().deleted(), 1);
}

pub async fn watch_and_lease(t: Target) {
    let mut client = client(&t).await;
    let (prefix, _) = t.all();
    let options = WatchOptions::new().with_prefix().with_prev_key();
    let mut stream = client.watch(prefix.to_vec(), Some(options)).await.unwrap();
    let lease = client
        .lease_grant(600, Some(LeaseGrantOptions::new()))
        .await
        .unwrap()
        .id();
    let options = PutOptions::new().with_lease(lease);
    client.put(t.key("k").to_vec(), "v", Some(options)).await.unwrap();
    client.lease_revoke(lease).await.unwrap();
    let mut seen = Vec::new();
    while seen.len() < 2 {
        let response = stream.message().await.unwrap().expect("the watch goes on");
        seen.extend(
            response
                .events()
                .iter()
                .map(|event| (event.event_type(), event.prev_kv().is_some())),
        );
    }
    assert_eq!(seen, [(EventType::Put, false), (EventType::Delete, true)]);
}
