//! openraft's view of the network: one [`PeerNetwork`] per task that talks to a peer.

use std::{future::Future, sync::Arc, time::Duration};

use barque_proto::peer as pb;
use barque_store::Store;
use futures_util::Stream;
use openraft::{
    OptionalSend, RaftNetworkFactory, RaftNetworkV2,
    base::{BoxFuture, BoxStream},
    errors::{RPCError, ReplicationClosed, StreamingError},
    network::RPCOption,
    raft::{
        AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, StreamAppendError, StreamAppendResult,
        TransferLeaderRequest, VoteRequest, VoteResponse,
    },
};
use tokio::time::{sleep, timeout};
use tonic::Status;

use super::{
    Gate,
    acknowledged::Acknowledged,
    append::{Exchange, Follower, Session, rpc_error},
    link::{Lane, Link, Links},
    snapshot_send::Sender,
};
use crate::{
    codec,
    metrics::{Counters, count},
    snapshot::SnapshotData,
    types::{Node, Snapshot, TypeConfig, Vote},
};

/// Between attempts to reach a peer that does not listen.
const FIRST_PAUSE: Duration = Duration::from_millis(20);
const LONGEST_PAUSE: Duration = Duration::from_millis(200);

#[derive(Clone)]
pub struct Network {
    pub gate: Gate,
    pub acknowledged: Acknowledged,
    pub links: Arc<Links>,
    pub counters: Arc<Counters>,
    pub store: Store,
    pub snapshot_bytes_per_second: u64,
}

impl Network {
    fn client(&self, target: u64, node: &Node, lane: Lane) -> PeerNetwork {
        // Before anything that this member answers is counted: the log says which data directory it may come from.
        self.gate.known.bind(target, node.incarnation);
        PeerNetwork {
            target,
            node: node.clone(),
            lane,
            session: None,
            pause: None,
            network: self.clone(),
        }
    }
}

impl RaftNetworkFactory<TypeConfig> for Network {
    type Network = PeerNetwork;

    async fn new_client(&mut self, target: u64, node: &Node) -> PeerNetwork {
        self.client(target, node, Lane::Entries)
    }

    async fn new_heartbeat_client(&mut self, target: u64, node: &Node) -> PeerNetwork {
        self.client(target, node, Lane::Control)
    }

    async fn new_snapshot_client(&mut self, target: u64, node: &Node) -> PeerNetwork {
        self.client(target, node, Lane::Snapshot)
    }
}

pub struct PeerNetwork {
    target: u64,
    /// As the membership had it when this was made.
    node: Node,
    lane: Lane,
    session: Option<Session>,
    /// How long the next attempt to open one waits; none after a success.
    pause: Option<Duration>,
    network: Network,
}

type Rpc<T> = Result<T, RPCError<TypeConfig>>;

impl PeerNetwork {
    /// To where the member is now: openraft keeps its networks when only a member's URLs change.
    fn link(&self) -> Arc<Link> {
        let links = &self.network.links;
        let now = links.to_member(self.target);
        now.unwrap_or_else(|| links.to(self.target, &self.node))
    }

    async fn session(&mut self) -> Rpc<Session> {
        match self.session.take() {
            Some(session) => Ok(session),
            None => self.open_session().await,
        }
    }

    /// openraft backs off between requests on a stream, but not between attempts to open one: a peer that refuses
    /// connections would be tried as fast as it refuses.
    async fn open_session(&mut self) -> Rpc<Session> {
        if let Some(pause) = self.pause.filter(|_| self.lane == Lane::Entries) {
            sleep(pause).await;
        }
        let opened = Session::open(&self.link(), self.lane).await;
        self.pause = match &opened {
            Ok(_) => None,
            Err(_) => Some(
                self.pause
                    .map_or(FIRST_PAUSE, |pause| (pause * 2).min(LONGEST_PAUSE)),
            ),
        };
        opened.map_err(|status| rpc_error(&status))
    }

    async fn ask_vote(
        &self,
        rpc: VoteRequest<TypeConfig>,
        option: RPCOption,
        pre: bool,
    ) -> Rpc<VoteResponse<TypeConfig>> {
        let link = self.link();
        let request = link.request(pb::VoteRequest {
            vote: Some(codec::vote_to_pb(&rpc.vote)),
            last: rpc.last_log_id.as_ref().map(codec::log_id_to_pb),
            leadership_transfer: rpc.leadership_transfer,
        });
        let mut client = link.client(Lane::Control);
        let call = async {
            match pre {
                true => client.pre_vote(request).await,
                false => client.vote(request).await,
            }
        };
        let reply = within(option, call).await;
        let reply = link.checked(reply).map_err(|status| rpc_error(&status))?;
        Ok(VoteResponse {
            vote: codec::vote_from_pb(reply.vote.unwrap_or_default()),
            vote_granted: reply.granted,
            last_log_id: reply.last.map(codec::log_id_from_pb),
        })
    }
}

async fn within<T>(option: RPCOption, call: impl Future<Output = Result<T, Status>>) -> Result<T, Status> {
    let late = || Status::deadline_exceeded("the peer did not answer in time");
    timeout(option.soft_ttl(), call)
        .await
        .unwrap_or_else(|_| Err(late()))
}

impl RaftNetworkV2<TypeConfig> for PeerNetwork {
    type SnapshotData = SnapshotData;

    async fn append_entries(
        &mut self,
        rpc: AppendEntriesRequest<TypeConfig>,
        option: RPCOption,
    ) -> Rpc<AppendEntriesResponse<TypeConfig>> {
        use futures_util::StreamExt;
        let input = futures_util::stream::iter([rpc]);
        let mut replies = self.stream_append(input, option).await?;
        match replies.next().await {
            Some(Ok(Ok(matching))) => Ok(AppendEntriesResponse::PartialSuccess(matching)),
            Some(Ok(Err(StreamAppendError::Conflict(_)))) => Ok(AppendEntriesResponse::Conflict),
            Some(Ok(Err(StreamAppendError::HigherVote(vote)))) => Ok(AppendEntriesResponse::HigherVote(vote)),
            Some(Err(error)) => Err(error),
            None => Err(rpc_error(&Status::unavailable("no reply"))),
        }
    }

    fn stream_append<'s, S>(
        &'s mut self,
        input: S,
        _: RPCOption,
    ) -> BoxFuture<'s, Rpc<BoxStream<'s, Rpc<StreamAppendResult<TypeConfig>>>>>
    where
        S: Stream<Item = AppendEntriesRequest<TypeConfig>> + OptionalSend + Unpin + 'static,
    {
        Box::pin(async move {
            let session = self.session().await?;
            let follower = Follower {
                member_id: self.target,
                gate: self.network.gate.clone(),
                acknowledged: self.network.acknowledged.clone(),
            };
            let exchange: BoxStream<'s, _> =
                Box::pin(Exchange::new(&mut self.session, session, follower, input));
            Ok(exchange)
        })
    }

    async fn vote(
        &mut self,
        rpc: VoteRequest<TypeConfig>,
        option: RPCOption,
    ) -> Rpc<VoteResponse<TypeConfig>> {
        self.ask_vote(rpc, option, false).await
    }

    async fn pre_vote(
        &mut self,
        rpc: VoteRequest<TypeConfig>,
        option: RPCOption,
    ) -> Rpc<VoteResponse<TypeConfig>> {
        self.ask_vote(rpc, option, true).await
    }

    async fn full_snapshot(
        &mut self,
        vote: Vote,
        snapshot: Snapshot,
        cancel: impl Future<Output = ReplicationClosed> + OptionalSend + 'static,
        _: RPCOption,
    ) -> Result<SnapshotResponse<TypeConfig>, StreamingError<TypeConfig>> {
        let bytes_per_second = self.network.snapshot_bytes_per_second;
        let link = self.link();
        let sender = Sender {
            link: &link,
            store: &self.network.store,
            bytes_per_second,
        };
        let sent = tokio::select! {
            sent = sender.send(vote, &snapshot) => sent,
            closed = cancel => Err(StreamingError::Closed(closed)),
        };
        match &sent {
            Ok(_) => count(&self.network.counters.snapshots_sent),
            Err(_) => count(&self.network.counters.snapshot_failures),
        }
        sent.map(SnapshotResponse::new)
    }

    async fn transfer_leader(
        &mut self,
        request: TransferLeaderRequest<TypeConfig>,
        option: RPCOption,
    ) -> Rpc<openraft::raft::TransferLeaderResponse<TypeConfig>> {
        let message = pb::TransferRequest {
            from: Some(codec::vote_to_pb(request.from_leader())),
            to: *request.to_node_id(),
            last: request.last_log_id().map(codec::log_id_to_pb),
        };
        let link = self.link();
        let mut client = link.client(Lane::Control);
        let reply = within(option, client.transfer_leader(link.request(message))).await;
        let reply = link.checked(reply).map_err(|status| rpc_error(&status))?;
        match reply.refused.is_empty() {
            true => Ok(Ok(())),
            false => Err(rpc_error(&Status::aborted(reply.refused))),
        }
    }
}
