//! The service that peers call: Raft's RPCs, forwarded proposals, read indexes, leases.

use std::{
    pin::Pin,
    sync::{Arc, OnceLock},
};

use barque_proto::peer as pb;
use barque_store::{LeaseId, Revision, Store};
use bytes::Bytes;
use futures_util::{Stream, StreamExt};
use openraft::{errors::ClientWriteError, raft::TransferLeaderRequest};
use pb::raft_server::{Raft as RaftService, RaftServer};
use tokio::sync::{Mutex, mpsc};
use tokio_stream::wrappers::{ReceiverStream, UnboundedReceiverStream};
use tonic::{Request, Response, Status, Streaming, service::interceptor::InterceptedService};

use super::{
    FROM, Gate, MAX_MESSAGE_BYTES, agreement::contradiction, append, certificate::Shown,
    discovery::Directory, listener::Incoming, number, snapshot_receive::Receiver, snapshot_send::Sender,
};
use crate::{
    KeepAlive, MemberError, ReadBarrierError,
    blocking::block,
    codec,
    membership::{Announcement, Membership},
    oversight::{divergence::diverged, marks::mark_to_pb, scrub::scrubbed_to_pb},
    planted,
    running::Running,
    types::{Callback, Commands, Raft, Snapshot, Vote},
};

/// How fast a state is sent to a member that asks for it, as for others that are behind by default.
const REBUILD_BYTES_PER_SECOND: u64 = 100 << 20;
/// Calls that one connection may have open: streams, and leases that many clients renew through one follower.
const STREAMS: u32 = 4096;

type Reply<T> = Result<Response<T>, Status>;
type Replies<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

/// Serves peers; answers "unavailable" until the member runs.
#[derive(Clone)]
pub struct PeerService {
    gate: Gate,
    member: Arc<OnceLock<Arc<Running>>>,
    receiver: Arc<Mutex<Receiver>>,
    /// Where snapshots go while there is no Raft, if anywhere.
    rebuilding: Arc<parking_lot::Mutex<Option<Rebuilding>>>,
}

/// Takes a snapshot, and its sender's vote.
pub type Rebuilding = mpsc::Sender<(Vote, Snapshot)>;

/// Who takes a snapshot that was received.
enum Taker {
    Raft(Arc<Running>),
    Rebuild(Rebuilding),
}

impl Taker {
    async fn take(&self, vote: Vote, snapshot: Snapshot) -> Result<Vote, Status> {
        match self {
            Taker::Raft(member) => {
                verify(&member.store, &snapshot)?;
                let installed = member.raft.install_full_snapshot(vote, snapshot).await;
                Ok(installed.map_err(stopped)?.vote)
            }
            Taker::Rebuild(taken) => {
                let late = |_| Status::aborted("another state was sent already");
                taken.try_send((vote, snapshot)).map_err(late)?;
                Ok(vote)
            }
        }
    }
}

impl PeerService {
    pub fn new(gate: Gate, receiver: Receiver) -> Self {
        Self {
            gate,
            member: Arc::default(),
            receiver: Arc::new(Mutex::new(receiver)),
            rebuilding: Arc::default(),
        }
    }

    pub fn run(&self, member: Arc<Running>) {
        // Set once, by the start of the member.
        drop(self.member.set(member));
    }

    /// A member that has no Raft yet takes snapshots here, or (`None`) no more.
    pub fn take_snapshots(&self, taker: Option<Rebuilding>) {
        *self.rebuilding.lock() = taker;
    }

    fn taker(&self) -> Result<Taker, Status> {
        match (self.member(), self.rebuilding.lock().clone()) {
            (Ok(member), _) => Ok(Taker::Raft(member.clone())),
            (Err(_), Some(taken)) => Ok(Taker::Rebuild(taken)),
            (Err(starting), None) => Err(starting),
        }
    }

    /// One that must stop votes and acknowledges no more.
    fn member(&self) -> Result<&Arc<Running>, Status> {
        if self.gate.is_stopping() {
            return Err(Status::unavailable("the member stops"));
        }
        self.member
            .get()
            .ok_or_else(|| Status::unavailable("the member is starting"))
    }

    fn raft(&self) -> Result<&Raft, Status> {
        Ok(&self.member()?.raft)
    }

    fn reply<T>(&self, message: T) -> Response<T> {
        let mut reply = Response::new(message);
        self.gate.stamp_reply(reply.metadata_mut());
        reply
    }

    /// Serves until `stop` resolves; connections that are open then are given up with the runtime.
    pub async fn serve(
        self,
        directory: Directory,
        incoming: Incoming,
        stop: impl Future<Output = ()>,
    ) -> Result<(), tonic::transport::Error> {
        let gate = self.gate.clone();
        let service = RaftServer::new(self)
            .max_decoding_message_size(MAX_MESSAGE_BYTES)
            .max_encoding_message_size(MAX_MESSAGE_BYTES);
        let holders = directory.holders.clone();
        let admit = move |request: Request<()>| {
            let shown = request.extensions().get::<Shown>();
            let from = number(request.metadata(), FROM)?;
            holders.check(shown, from).map_err(|reason| gate.refuse(reason))?;
            gate.admit(request.metadata())?;
            shown.inspect(|shown| shown.settle());
            Ok(request)
        };
        tonic::transport::Server::builder()
            .initial_stream_window_size(8 << 20)
            .initial_connection_window_size(16 << 20)
            .max_concurrent_streams(STREAMS)
            .http2_keepalive_interval(Some(std::time::Duration::from_secs(5)))
            .add_service(InterceptedService::new(service, admit))
            .add_service(directory.service())
            .serve_with_incoming_shutdown(incoming, stop)
            .await
    }
}

fn stopped(error: impl std::fmt::Display) -> Status {
    Status::unavailable(format!("raft: {error}"))
}

fn read_error(error: ReadBarrierError) -> Status {
    match error {
        ReadBarrierError::TimedOut => Status::deadline_exceeded(error.to_string()),
        _ => Status::unavailable(error.to_string()),
    }
}

#[tonic::async_trait]
impl RaftService for PeerService {
    type AppendStream = Replies<pb::AppendReply>;
    type SnapshotStream = Replies<pb::SnapshotReply>;
    type ForwardStream = Replies<pb::ForwardRefusal>;

    async fn append(&self, request: Request<Streaming<pb::AppendRequest>>) -> Reply<Self::AppendStream> {
        let raft = self.raft()?;
        let (log, gate) = (self.member()?.log.clone(), self.gate.clone());
        // The stream ends at the first message that cannot be read; its replies then end too.
        let requests = tokio_stream::StreamExt::map_while(request.into_inner(), move |message| {
            let read = message.map_err(|status| status.to_string());
            let read = read.and_then(|message| append::request_from_pb(message).map_err(|e| e.to_string()));
            let read = read.and_then(|request| match contradiction(&log, &request) {
                None => Ok(request),
                Some(reason) => {
                    gate.stop(reason.clone());
                    Err(reason)
                }
            });
            read.inspect_err(|error| tracing::debug!(error, "an append stream ended"))
                .ok()
        });
        let replies = raft.stream_append(requests).map(|result| match result {
            Ok(result) => Ok(append::reply_to_pb(&result)),
            Err(fatal) => Err(stopped(fatal)),
        });
        Ok(self.reply(Box::pin(replies)))
    }

    async fn vote(&self, request: Request<pb::VoteRequest>) -> Reply<pb::VoteReply> {
        let asked = vote_request(request.into_inner());
        let answer = self.raft()?.vote(asked).await.map_err(stopped)?;
        Ok(self.reply(vote_reply(answer)))
    }

    async fn pre_vote(&self, request: Request<pb::VoteRequest>) -> Reply<pb::VoteReply> {
        let asked = vote_request(request.into_inner());
        let answer = self.raft()?.pre_vote(asked).await.map_err(stopped)?;
        Ok(self.reply(vote_reply(answer)))
    }

    async fn transfer_leader(&self, request: Request<pb::TransferRequest>) -> Reply<pb::TransferReply> {
        let asked = request.into_inner();
        let from = codec::vote_from_pb(asked.from.unwrap_or_default());
        let last = asked.last.map(codec::log_id_from_pb);
        let handled = self
            .raft()?
            .handle_transfer_leader(TransferLeaderRequest::new(from, asked.to, last))
            .await;
        let refused = match handled.map_err(stopped)? {
            Ok(()) => String::new(),
            Err(refused) => refused.to_string(),
        };
        Ok(self.reply(pb::TransferReply { refused }))
    }

    async fn snapshot(
        &self,
        request: Request<Streaming<pb::SnapshotRequest>>,
    ) -> Reply<Self::SnapshotStream> {
        let taker = self.taker()?;
        let receiver = self.receiver.clone();
        let (tx, rx) = mpsc::channel(4);
        tokio::spawn(async move {
            let received = receive_snapshot(taker, receiver, request.into_inner(), &tx).await;
            if let Err(status) = received {
                tracing::warn!(%status, "receiving a snapshot failed");
                drop(tx.send(Err(status)).await);
            }
        });
        Ok(self.reply(Box::pin(ReceiverStream::new(rx))))
    }

    async fn forward(&self, request: Request<Streaming<pb::ForwardRequest>>) -> Reply<Self::ForwardStream> {
        let raft = self.raft()?.clone();
        let mut batches = request.into_inner();
        // Bounded by what peers may have in flight; refusals are sent from Raft's own task, which must not wait.
        let (tx, rx) = mpsc::unbounded_channel();
        tokio::spawn(async move {
            while let Ok(Some(forwarded)) = batches.message().await {
                append_forwarded(&raft, forwarded, tx.clone()).await;
            }
        });
        Ok(self.reply(Box::pin(UnboundedReceiverStream::new(rx).map(Ok))))
    }

    async fn read_index(&self, _: Request<pb::ReadIndexRequest>) -> Reply<pb::ReadIndexReply> {
        let at = self
            .member()?
            .barrier
            .leader_read_index()
            .await
            .map_err(read_error)?;
        Ok(self.reply(pb::ReadIndexReply {
            index: at.index,
            term: at.term,
        }))
    }

    async fn confirm(&self, request: Request<pb::ConfirmRequest>) -> Reply<pb::ConfirmReply> {
        let term = request.into_inner().term;
        // A vote is in Raft's state before it is on disk, and on disk before the candidate hears of it.
        let raft = self.raft()?.clone();
        // A task of its own: who has its quorum without us hangs up, and Raft calls an answer to nobody an error.
        let voted = tokio::spawn(async move {
            raft.with_raft_state(|state| state.vote_ref().leader_id.term)
                .await
        });
        let confirmed = voted.await.map_err(stopped)?.map_err(stopped)? <= term;
        Ok(self.reply(pb::ConfirmReply { confirmed }))
    }

    async fn lease_keep_alive(
        &self,
        request: Request<pb::LeaseKeepAliveRequest>,
    ) -> Reply<pb::LeaseKeepAliveReply> {
        let id = LeaseId(request.into_inner().id);
        let ttl_s = match self
            .member()?
            .keeper
            .keep_alive_here(id)
            .await
            .map_err(read_error)?
        {
            KeepAlive::Renewed { ttl_s } => ttl_s,
            KeepAlive::NotFound => 0,
        };
        Ok(self.reply(pb::LeaseKeepAliveReply { ttl_s }))
    }

    async fn lease_time_to_live(
        &self,
        request: Request<pb::LeaseTimeToLiveRequest>,
    ) -> Reply<pb::LeaseTimeToLiveReply> {
        let id = LeaseId(request.into_inner().id);
        let found = self
            .member()?
            .keeper
            .time_to_live_here(id)
            .await
            .map_err(read_error)?;
        let (granted_ttl_s, remaining_s) = found.unwrap_or((0, 0));
        Ok(self.reply(pb::LeaseTimeToLiveReply {
            found: found.is_some(),
            granted_ttl_s,
            remaining_s,
        }))
    }

    async fn publish(&self, request: Request<pb::PublishRequest>) -> Reply<pb::PublishReply> {
        let caller = self.gate.admit(request.metadata())?;
        let asked = request.into_inner();
        let announcement = Announcement {
            name: asked.name,
            client_urls: asked.client_urls,
            incarnation: caller.incarnation,
        };
        let membership = &self.member()?.membership;
        membership.publish_here(caller.member_id, &announcement).await?;
        Ok(self.reply(pb::PublishReply {}))
    }

    async fn member_change(&self, request: Request<pb::MemberChangeRequest>) -> Reply<pb::MemberChangeReply> {
        let (membership, request) = (self.member()?.membership.clone(), request.into_inner());
        // Whoever asked may hang up; the change goes on.
        let changed = tokio::spawn(async move { membership.change_here(request).await }).await;
        let changed = changed.unwrap_or(Err(MemberError::NoLeader));
        changed.map_err(|error| error.to_status())?;
        Ok(self.reply(pb::MemberChangeReply {}))
    }

    async fn compare_state(&self, request: Request<pb::CompareStateRequest>) -> Reply<pb::CompareStateReply> {
        let store = &self.member()?.store;
        let mark = match request.into_inner().index {
            None => store.newest_mark(),
            Some(index) => store.mark_at(index),
        };
        let mark = mark.map(mark_to_pb);
        Ok(self.reply(pb::CompareStateReply { mark }))
    }

    async fn scrub(&self, request: Request<pb::ScrubRequest>) -> Reply<pb::Scrubbed> {
        let asked = request.into_inner();
        let scrubber = &self.member()?.scrubber;
        let found = scrubber.scrub(asked.index, Revision(asked.revision)).await?;
        Ok(self.reply(scrubbed_to_pb(&found)))
    }

    async fn send_snapshot(&self, request: Request<pb::SendSnapshotRequest>) -> Reply<pb::SendSnapshotReply> {
        let caller = self.gate.admit(request.metadata())?;
        let member = self.member()?;
        let Membership {
            leadership, links, ..
        } = &member.membership;
        let leader = leadership.borrow().leader.map(|leader| leader.0);
        if leader.is_some_and(|leader| leader != self.gate.me.member_id) {
            return Err(Status::unavailable("another member leads"));
        }
        let link = links.to_member(caller.member_id);
        let link = link.ok_or_else(|| Status::unavailable("it is no member yet"))?;
        let snapshot = member.raft.get_snapshot().await.map_err(stopped)?;
        let snapshot = snapshot.ok_or_else(|| Status::unavailable("there is no state yet"))?;
        let sender = Sender {
            link: &link,
            store: &member.store,
            bytes_per_second: REBUILD_BYTES_PER_SECOND,
        };
        let vote = member.raft.with_raft_state(|state| *state.vote_ref()).await;
        let sent = sender.send(vote.map_err(stopped)?, &snapshot).await;
        sent.map_err(|error| Status::unavailable(error.to_string()))?;
        Ok(self.reply(pb::SendSnapshotReply {}))
    }

    async fn diverged(&self, request: Request<pb::DivergedRequest>) -> Reply<pb::DivergedReply> {
        let Running {
            store,
            scrubber,
            condemned,
            ..
        } = self.member()?.as_ref();
        diverged(store, scrubber, condemned, request.get_ref())?;
        Ok(self.reply(pb::DivergedReply {}))
    }
}

fn vote_request(asked: pb::VoteRequest) -> openraft::raft::VoteRequest<crate::types::TypeConfig> {
    openraft::raft::VoteRequest {
        vote: codec::vote_from_pb(asked.vote.unwrap_or_default()),
        last_log_id: asked.last.map(codec::log_id_from_pb),
        leadership_transfer: asked.leadership_transfer,
    }
}

fn vote_reply(answer: openraft::raft::VoteResponse<crate::types::TypeConfig>) -> pb::VoteReply {
    pb::VoteReply {
        vote: Some(codec::vote_to_pb(&answer.vote)),
        granted: answer.vote_granted,
        last: answer.last_log_id.as_ref().map(codec::log_id_to_pb),
    }
}

/// Appends a peer's batch if this member leads in the term that it was meant for; otherwise says so.
async fn append_forwarded(
    raft: &Raft,
    forwarded: pb::ForwardRequest,
    refusals: mpsc::UnboundedSender<pb::ForwardRefusal>,
) {
    let sequence = forwarded.sequence;
    let batch = Commands(Bytes::copy_from_slice(&forwarded.batch));
    let told = Callback(Box::new(move |result| {
        if let Err(ClientWriteError::ForwardToLeader(_)) = result {
            // Nobody listens any more: the batch stays unknown there.
            let _ = refusals.send(pb::ForwardRefusal { sequence });
        }
    }));
    let write = match planted("forward-in-any-term") {
        true => raft.write(batch),
        false => raft.write(batch).with_leader(forwarded.term),
    };
    if let Err(fatal) = write.responder(told).await {
        tracing::debug!(%fatal, "a forwarded batch came to a member that stops");
    }
}

/// Here, and not only where it is installed: what Raft cannot install stops the member, which is not at fault. The
/// sender sends it again.
fn verify(store: &Store, snapshot: &Snapshot) -> Result<(), Status> {
    let Some(dir) = &snapshot.snapshot.dir else {
        return Ok(());
    };
    let verified = block(|| store.verify_dir(dir.path(), &mut |_| true));
    verified.map_err(|error| Status::data_loss(format!("the snapshot is damaged: {error}")))
}

async fn receive_snapshot(
    taker: Taker,
    receiver: Arc<Mutex<Receiver>>,
    mut parts: Streaming<pb::SnapshotRequest>,
    replies: &mpsc::Sender<Result<pb::SnapshotReply, Status>>,
) -> Result<(), Status> {
    use pb::{snapshot_reply::Part as Reply, snapshot_request::Part};
    let mut receiver = receiver
        .try_lock()
        .map_err(|_| Status::aborted("another snapshot is being received"))?;
    let mut manifest = None;
    let say = async |part| {
        let sent = replies.send(Ok(pb::SnapshotReply { part: Some(part) })).await;
        sent.map_err(|_| Status::cancelled("the sender is gone"))
    };
    while let Some(message) = parts.message().await? {
        match (message.part, &manifest) {
            (Some(Part::Manifest(new)), None) => {
                let offsets = receiver.begin(&new)?;
                let bytes: u64 = new.files.iter().map(|file| file.length).sum();
                tracing::info!(files = new.files.len(), bytes, "receiving a snapshot");
                manifest = Some(new);
                say(Reply::Have(pb::snapshot_reply::Have { offsets })).await?;
            }
            (Some(Part::Chunk(chunk)), Some(_)) => block(|| receiver.write(&chunk))?,
            (Some(Part::Done(_)), Some(manifest)) => {
                let (vote, snapshot) = block(|| receiver.finish(manifest))?;
                let vote = taker.take(vote, snapshot).await?;
                tracing::info!(last = ?manifest.last, "a snapshot is installed");
                return say(Reply::Vote(codec::vote_to_pb(&vote))).await;
            }
            _ => return Err(Status::invalid_argument("a snapshot's parts in the wrong order")),
        }
    }
    Err(Status::cancelled("the sender stopped before the end"))
}
