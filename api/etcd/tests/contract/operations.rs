//! Lines 26 and 29: what operators and client libraries ask of a member.

use std::time::Duration;

use barque_proto::etcd::etcdserverpb::{
    MemberListRequest, StatusRequest, StatusResponse, WatchRequest, watch_client::WatchClient,
    watch_request::RequestUnion,
};
use tokio_stream::StreamExt;
use tonic::transport::Endpoint;

use crate::{client::Target, watch_stream::everything};

pub async fn status(t: &Target) -> StatusResponse {
    t.maintenance()
        .status(StatusRequest {})
        .await
        .unwrap()
        .into_inner()
}

pub async fn status_reports_a_version_that_clients_compare(t: Target) {
    let version = status(&t).await.version;
    let numbers: Vec<u32> = version
        .split('.')
        .map(|part| part.parse().expect("a plain number"))
        .collect();
    assert_eq!(numbers.len(), 3, "{version}");
    if t.differs("version") {
        assert_eq!(&numbers[..2], [3, 4]);
    } else {
        assert!(numbers[..2] == [3, 6] || numbers[..2] == [3, 7], "{version}");
    }
}

pub async fn status_names_members_and_sizes(t: Target) {
    t.put("k", "v").await;
    let status = status(&t).await;
    let header = status.header.unwrap();
    assert!(header.cluster_id != 0 && header.member_id != 0 && header.revision > 1 && header.raft_term > 0);
    let members = t
        .cluster()
        .member_list(MemberListRequest { linearizable: true })
        .await
        .unwrap()
        .into_inner();
    let ids: Vec<u64> = members.members.iter().map(|member| member.id).collect();
    assert!(
        ids.contains(&header.member_id) && ids.contains(&status.leader),
        "{ids:?}"
    );
    assert!(status.db_size > 0 && status.db_size_in_use > 0);
    assert!(status.raft_term > 0 && status.raft_index > 0 && status.raft_applied_index > 0);
    assert!(
        !status.is_learner && status.errors.is_empty(),
        "{:?}",
        status.errors
    );
}

pub async fn members_are_listed(t: Target) {
    let answer = t
        .cluster()
        .member_list(MemberListRequest { linearizable: true })
        .await
        .unwrap()
        .into_inner();
    let mut names: Vec<&str> = answer.members.iter().map(|member| member.name.as_str()).collect();
    names.sort_unstable();
    assert!(names == ["m1"] || names == ["m1", "m2", "m3"], "{names:?}");
    for member in &answer.members {
        assert!(member.id != 0 && !member.is_learner);
        assert_eq!((member.client_ur_ls.len(), member.peer_ur_ls.len()), (1, 1));
    }
    assert!(
        answer
            .members
            .iter()
            .any(|member| member.client_ur_ls == [t.endpoint()])
    );
}

pub async fn frequent_pings_are_accepted(t: Target) {
    let channel = Endpoint::from_shared(t.endpoint().to_owned())
        .unwrap()
        .http2_keep_alive_interval(Duration::from_secs(5))
        .keep_alive_timeout(Duration::from_secs(5))
        .keep_alive_while_idle(true)
        .connect()
        .await
        .unwrap();
    let create = WatchRequest {
        request_union: Some(RequestUnion::CreateRequest(everything(&t))),
    };
    let requests = tokio_stream::once(create).chain(tokio_stream::pending());
    let mut responses = WatchClient::new(channel)
        .watch(requests)
        .await
        .unwrap()
        .into_inner();
    assert!(responses.message().await.unwrap().unwrap().created);
    // Long enough for a server that minds to have said so (it allows two too many).
    tokio::time::sleep(Duration::from_secs(22)).await;
    let revision = t.put("k", "v").await;
    let response = responses
        .message()
        .await
        .unwrap()
        .expect("the stream is still there");
    assert_eq!(response.events[0].kv.as_ref().unwrap().mod_revision, revision);
}
