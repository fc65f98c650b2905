//! The Cluster service: who the members are, and changing them through learners.
//!
//! A member joins as a learner and is promoted once it has caught up. Adding a voter at once, which lets a
//! cluster lose its quorum to a member that never starts, is refused in plain words.

use std::future::ready;

use barque_proto::etcd::etcdserverpb::{
    Member, MemberAddRequest, MemberAddResponse, MemberListRequest, MemberListResponse, MemberPromoteRequest,
    MemberPromoteResponse, MemberRemoveRequest, MemberRemoveResponse, MemberUpdateRequest,
    MemberUpdateResponse, ResponseHeader, cluster_server::Cluster,
};
use barque_replica::MemberId;
use http::Uri;
use tonic::{Request, Response, Status};

use crate::{Error, EtcdServer, Method, server::Shared};

impl Shared {
    /// Members have no revision: etcd leaves it out here, and clients print what they are given.
    fn membership_header(&self) -> ResponseHeader {
        ResponseHeader {
            revision: 0,
            ..self.current_header()
        }
    }

    async fn member_list(&self, request: MemberListRequest) -> Result<MemberListResponse, Error> {
        if request.linearizable {
            self.refuse_on_learner()?;
            self.barrier().await?;
        }
        Ok(MemberListResponse {
            members: self.members(),
            header: Some(self.membership_header()),
        })
    }

    async fn member_add(&self, request: MemberAddRequest) -> Result<MemberAddResponse, Error> {
        self.refuse_on_learner()?;
        if request.peer_ur_ls.is_empty() || !request.peer_ur_ls.iter().all(|url| is_peer_url(url)) {
            return Err(Error::BadMemberUrls);
        }
        if !request.is_learner {
            let what = "adding a voter at once (add it with --learner, start it, and promote it)";
            return Err(Error::Unimplemented { what });
        }
        let id = self.replica.add_learner(request.peer_ur_ls.clone()).await?;
        self.barrier().await?;
        let added = Member {
            id: id.0,
            peer_ur_ls: request.peer_ur_ls,
            is_learner: true,
            ..Member::default()
        };
        let members = self.members();
        Ok(MemberAddResponse {
            member: Some(added),
            members,
            header: Some(self.membership_header()),
        })
    }

    async fn member_promote(&self, request: MemberPromoteRequest) -> Result<MemberPromoteResponse, Error> {
        self.refuse_on_learner()?;
        self.replica.promote(MemberId(request.id)).await?;
        self.barrier().await?;
        Ok(MemberPromoteResponse {
            members: self.members(),
            header: Some(self.membership_header()),
        })
    }

    async fn member_remove(&self, request: MemberRemoveRequest) -> Result<MemberRemoveResponse, Error> {
        self.refuse_on_learner()?;
        self.replica.remove_member(MemberId(request.id)).await?;
        // Whoever removed the member that it asked gets its answer, but no fresher list.
        if request.id != self.member_id {
            self.barrier().await?;
        }
        Ok(MemberRemoveResponse {
            members: self.members(),
            header: Some(self.membership_header()),
        })
    }

    fn members(&self) -> Vec<Member> {
        let members = self.replica.members().into_iter().map(|member| Member {
            id: member.id.0,
            name: member.name,
            peer_ur_ls: member.peer_urls,
            client_ur_ls: member.client_urls,
            is_learner: member.is_learner,
        });
        members.collect()
    }
}

/// `http` or `https`, a host, a port, and nothing after them.
fn is_peer_url(url: &str) -> bool {
    let Ok(url) = url.parse::<Uri>() else {
        return false;
    };
    matches!(url.scheme_str(), Some("http" | "https"))
        && url.port_u16().is_some()
        && url.path() == "/"
        && url.query().is_none()
}

#[tonic::async_trait]
impl Cluster for EtcdServer {
    async fn member_add(
        &self,
        request: Request<MemberAddRequest>,
    ) -> Result<Response<MemberAddResponse>, Status> {
        self.shared
            .unary(Method::MemberAdd, request, |request| {
                self.shared.member_add(request)
            })
            .await
    }

    async fn member_remove(
        &self,
        request: Request<MemberRemoveRequest>,
    ) -> Result<Response<MemberRemoveResponse>, Status> {
        self.shared
            .unary(Method::MemberRemove, request, |request| {
                self.shared.member_remove(request)
            })
            .await
    }

    async fn member_update(
        &self,
        request: Request<MemberUpdateRequest>,
    ) -> Result<Response<MemberUpdateResponse>, Status> {
        let what = "changing a member's peer URLs";
        self.shared
            .unary(Method::MemberUpdate, request, |_| {
                ready(Err(Error::Unimplemented { what }))
            })
            .await
    }

    async fn member_list(
        &self,
        request: Request<MemberListRequest>,
    ) -> Result<Response<MemberListResponse>, Status> {
        self.shared
            .unary(Method::MemberList, request, |request| {
                self.shared.member_list(request)
            })
            .await
    }

    async fn member_promote(
        &self,
        request: Request<MemberPromoteRequest>,
    ) -> Result<Response<MemberPromoteResponse>, Status> {
        self.shared
            .unary(Method::MemberPromote, request, |request| {
                self.shared.member_promote(request)
            })
            .await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn peer_urls_are_scheme_host_and_port() {
        for (url, expect) in [
            ("http://10.0.0.1:2380", true),
            ("https://b.example:2380/", true),
            ("https://b.example", false),
            ("tcp://b.example:2380", false),
            ("http://b.example:2380/path", false),
            ("b.example:2380", false),
            ("", false),
        ] {
            assert_eq!(is_peer_url(url), expect, "{url:?}");
        }
    }
}
