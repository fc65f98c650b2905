//! The Cluster service: who the members are, and changing them.
//!
//! A member that is added to vote is a learner until it has caught up; then the leader makes it a voter by itself.
//! So no cluster loses its quorum to a member that never starts, and `member list` shows what is.

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
        let peer_urls = peer_urls(request.peer_ur_ls)?;
        let id = match request.is_learner {
            true => self.replica.add_learner(peer_urls.clone()).await?,
            false => self.replica.add_voter(peer_urls.clone()).await?,
        };
        self.barrier().await?;
        let added = Member {
            id: id.0,
            peer_ur_ls: peer_urls,
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

    async fn member_update(&self, request: MemberUpdateRequest) -> Result<MemberUpdateResponse, Error> {
        self.refuse_on_learner()?;
        let peer_urls = peer_urls(request.peer_ur_ls)?;
        self.replica
            .update_member(MemberId(request.id), peer_urls)
            .await?;
        self.barrier().await?;
        Ok(MemberUpdateResponse {
            members: self.members(),
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

/// As the member itself will write them.
fn peer_urls(asked: Vec<String>) -> Result<Vec<String>, Error> {
    if asked.is_empty() || !asked.iter().all(|url| is_peer_url(url)) {
        return Err(Error::BadMemberUrls);
    }
    let plain = asked.iter().map(|url| url.trim_end_matches('/').to_owned());
    Ok(plain.collect())
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
        self.shared
            .unary(Method::MemberUpdate, request, |request| {
                self.shared.member_update(request)
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
        let urls = ["http://a:1/", "https://b:2"].map(str::to_owned).to_vec();
        assert_eq!(peer_urls(urls).unwrap(), ["http://a:1", "https://b:2"]);
        assert_eq!(peer_urls(Vec::new()), Err(Error::BadMemberUrls));
    }
}
