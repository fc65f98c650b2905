//! What a member asks before it belongs to anything, and what it is told: has this ID been here before?

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use barque_proto::peer as pb;
use parking_lot::Mutex;
use pb::{
    discovery_client::DiscoveryClient,
    discovery_server::{Discovery, DiscoveryServer},
};
use tonic::{Request, Response, Status};

use super::{
    Gate,
    link::{Address, channel},
};
use crate::{Host, MemberConfig, StartError, identity, types::Node};

/// Answers [`Discovery`]; knows the members once Raft runs.
#[derive(Clone)]
pub struct Directory {
    gate: Gate,
    pub initialized: Arc<AtomicBool>,
    pub members: Arc<Mutex<Vec<pb::membership::NodeEntry>>>,
}

impl Directory {
    pub fn new(gate: Gate) -> Self {
        Self {
            gate,
            initialized: Arc::default(),
            members: Arc::default(),
        }
    }

    pub fn service(&self) -> DiscoveryServer<Self> {
        DiscoveryServer::new(self.clone())
    }
}

#[tonic::async_trait]
impl Discovery for Directory {
    async fn identify(
        &self,
        request: Request<pb::IdentifyRequest>,
    ) -> Result<Response<pb::IdentifyReply>, Status> {
        let asked = request.into_inner();
        Ok(Response::new(pb::IdentifyReply {
            cluster_id: self.gate.me.cluster_id,
            member_id: self.gate.me.member_id,
            initialized: self.initialized.load(Ordering::Acquire),
            known_incarnation: self.gate.known.incarnation_of(asked.member_id).unwrap_or(0),
            members: self.members.lock().clone(),
        }))
    }
}

/// Asks the other members of the initial cluster.
pub struct Inquiry {
    pub others: Vec<MemberConfig>,
    pub tls: Option<Arc<rustls::ClientConfig>>,
    pub host: Arc<dyn Host>,
    pub timeout: Duration,
}

impl Inquiry {
    async fn ask(&self, member: &MemberConfig, asked: pb::IdentifyRequest) -> Option<pb::IdentifyReply> {
        let addresses: Result<Vec<Address>, String> =
            member.peer_urls.iter().map(|url| Address::parse(url)).collect();
        let channel = channel(self.host.clone(), addresses.ok()?, self.tls.clone());
        let mut client = DiscoveryClient::new(channel);
        let reply = tokio::time::timeout(self.timeout, client.identify(asked)).await;
        match reply {
            Ok(Ok(reply)) => Some(reply.into_inner()),
            Ok(Err(status)) => {
                tracing::debug!(member = member.name, %status, "a member of the initial cluster does not answer");
                None
            }
            Err(_) => None,
        }
    }

    async fn ask_all(&self, asked: pb::IdentifyRequest) -> Vec<pb::IdentifyReply> {
        let asking = self.others.iter().map(|member| self.ask(member, asked));
        futures_util::future::join_all(asking)
            .await
            .into_iter()
            .flatten()
            .collect()
    }

    /// Before a member with an empty data directory takes its place in a new cluster: a cluster that runs already
    /// must have it on its list, and nobody may know it yet.
    pub async fn may_bootstrap(&self, cluster_id: u64, member_id: u64) -> Result<(), StartError> {
        let replies = self
            .ask_all(pb::IdentifyRequest {
                member_id,
                incarnation: 0,
            })
            .await;
        for reply in &replies {
            let listed = reply.members.iter().any(|member| member.id == member_id);
            if reply.cluster_id == cluster_id && reply.initialized && !reply.members.is_empty() && !listed {
                return Err(StartError::Identity(identity::removed(member_id)));
            }
        }
        must_be_new(&replies, cluster_id, member_id)
    }

    /// For `--initial-cluster-state existing`: the cluster's ID and ours, from a member that has us on its list.
    pub async fn join(&self, peer_urls: &[String]) -> Result<(u64, u64), StartError> {
        let replies = self
            .ask_all(pb::IdentifyRequest {
                member_id: 0,
                incarnation: 0,
            })
            .await;
        if replies.is_empty() {
            return Err(StartError::Identity(
                "no member of the existing cluster answers".into(),
            ));
        }
        let same = |node: &Node| {
            let (mut theirs, mut ours) = (node.peer_urls.clone(), peer_urls.to_vec());
            theirs.sort_unstable();
            ours.sort_unstable();
            theirs == ours
        };
        for reply in replies {
            for entry in reply.members {
                if same(&crate::codec::node_from_pb(entry.node.unwrap_or_default())) {
                    return self.joined(reply.cluster_id, entry.id).await;
                }
            }
        }
        Err(StartError::Identity(format!(
            "the existing cluster has no member with the peer URLs {}: run `etcdctl member add` first",
            peer_urls.join(",")
        )))
    }

    async fn joined(&self, cluster_id: u64, member_id: u64) -> Result<(u64, u64), StartError> {
        // A member that is behind may not have the newcomer on its list yet: that says nothing.
        let replies = self
            .ask_all(pb::IdentifyRequest {
                member_id,
                incarnation: 0,
            })
            .await;
        must_be_new(&replies, cluster_id, member_id)?;
        Ok((cluster_id, member_id))
    }
}

/// All answers are of this cluster, and from members that have never heard of this one.
fn must_be_new(replies: &[pb::IdentifyReply], cluster_id: u64, member_id: u64) -> Result<(), StartError> {
    for reply in replies {
        if reply.cluster_id != cluster_id {
            return Err(StartError::Identity(format!(
                "member {:x} is of cluster {:x}, this member's flags make cluster {cluster_id:x}: check \
                 --initial-cluster and --initial-cluster-token",
                reply.member_id, reply.cluster_id
            )));
        }
        if reply.known_incarnation != 0 {
            return Err(StartError::Identity(identity::already_bootstrapped(member_id)));
        }
    }
    Ok(())
}
