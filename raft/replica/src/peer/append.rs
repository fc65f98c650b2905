//! One long-lived stream of AppendEntries per follower: requests pipelined, replies in order.

use std::{
    collections::VecDeque,
    pin::Pin,
    task::{Context, Poll, ready},
};

use barque_proto::peer as pb;
use futures_util::{Stream, StreamExt};
use openraft::{
    errors::{NetworkError, RPCError, Unreachable},
    raft::{AppendEntriesRequest, StreamAppendError, StreamAppendResult},
};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::PollSender;
use tonic::{Code, Status, Streaming};

use super::{
    Gate,
    acknowledged::Acknowledged,
    link::{Lane, Link},
};
use crate::{codec, planted, types::TypeConfig};

/// Requests buffered before the stream pushes back; each holds at most about a megabyte.
const BUFFERED: usize = 8;

pub type AppendResult = Result<StreamAppendResult<TypeConfig>, RPCError<TypeConfig>>;

/// What openraft is to do about a failed call.
pub fn rpc_error(status: &Status) -> RPCError<TypeConfig> {
    let text = format!("{:?}: {}", status.code(), status.message());
    match status.code() {
        Code::Unavailable | Code::FailedPrecondition | Code::Unimplemented | Code::DeadlineExceeded => {
            RPCError::Unreachable(Unreachable::from_string(text))
        }
        _ => RPCError::Network(NetworkError::from_string(text)),
    }
}

/// An open stream with nothing under way.
pub struct Session {
    requests: PollSender<pb::AppendRequest>,
    replies: Streaming<pb::AppendReply>,
}

impl Session {
    pub async fn open(link: &Link, lane: Lane) -> Result<Self, Status> {
        let (tx, rx) = mpsc::channel(BUFFERED);
        let request = link.request(ReceiverStream::new(rx));
        let replies = link.checked(link.client(lane).append(request).await)?;
        Ok(Self {
            requests: PollSender::new(tx),
            replies,
        })
    }
}

pub fn request_to_pb(request: &AppendEntriesRequest<TypeConfig>) -> pb::AppendRequest {
    pb::AppendRequest {
        vote: Some(codec::vote_to_pb(&request.vote)),
        prev: request.prev_log_id.as_ref().map(codec::log_id_to_pb),
        commit: request.leader_commit.as_ref().map(codec::log_id_to_pb),
        entries: request.entries.iter().map(codec::entry_to_pb).collect(),
    }
}

pub fn request_from_pb(request: pb::AppendRequest) -> std::io::Result<AppendEntriesRequest<TypeConfig>> {
    let entries: Result<_, _> = request.entries.into_iter().map(codec::entry_from_pb).collect();
    Ok(AppendEntriesRequest {
        vote: codec::vote_from_pb(request.vote.unwrap_or_default()),
        prev_log_id: request.prev.map(codec::log_id_from_pb),
        leader_commit: request.commit.map(codec::log_id_from_pb),
        entries: entries?,
    })
}

pub fn reply_to_pb(result: &StreamAppendResult<TypeConfig>) -> pb::AppendReply {
    use pb::append_reply::Result as Reply;
    let result = match result {
        Ok(Some(matching)) => Reply::Matching(codec::log_id_to_pb(matching)),
        Ok(None) => Reply::MatchingNone(true),
        Err(StreamAppendError::Conflict(at)) => Reply::Conflict(codec::log_id_to_pb(at)),
        Err(StreamAppendError::HigherVote(vote)) => Reply::HigherVote(codec::vote_to_pb(vote)),
    };
    pb::AppendReply { result: Some(result) }
}

fn reply_from_pb(reply: pb::AppendReply) -> Result<StreamAppendResult<TypeConfig>, Status> {
    use pb::append_reply::Result as Reply;
    match reply.result {
        Some(Reply::Matching(matching)) => Ok(Ok(Some(codec::log_id_from_pb(matching)))),
        Some(Reply::MatchingNone(_)) => Ok(Ok(None)),
        Some(Reply::Conflict(at)) => Ok(Err(StreamAppendError::Conflict(codec::log_id_from_pb(at)))),
        Some(Reply::HigherVote(vote)) => Ok(Err(StreamAppendError::HigherVote(codec::vote_from_pb(vote)))),
        None => Err(Status::internal("an append reply of a kind not known here")),
    }
}

/// Whose log the entries go to.
pub struct Follower {
    pub member_id: u64,
    pub gate: Gate,
    pub acknowledged: Acknowledged,
}

impl Follower {
    fn sent(&self, request: &AppendEntriesRequest<TypeConfig>) -> Sent {
        let term = request.vote.leader_id.term;
        Sent {
            term,
            acknowledged: self.acknowledged.by(self.member_id, term),
        }
    }

    /// Notes what is acknowledged. An error: the follower lacks what it had acknowledged before the request was sent.
    fn answered(&self, sent: Sent, result: &StreamAppendResult<TypeConfig>) -> Result<(), Status> {
        match result {
            Ok(Some(matching)) => {
                self.acknowledged.note(self.member_id, sent.term, matching.index);
                Ok(())
            }
            Err(StreamAppendError::Conflict(at)) => match sent.acknowledged {
                Some(acknowledged) if at.index <= acknowledged && !planted("lost-entries-accepted") => {
                    Err(self.gate.lost_entries(self.member_id, acknowledged, at.index))
                }
                _ => Ok(()),
            },
            _ => Ok(()),
        }
    }
}

/// A request under way.
#[derive(Debug, Clone, Copy)]
struct Sent {
    /// Of the leadership that it was sent in.
    term: u64,
    /// What the follower had acknowledged in it by then.
    acknowledged: Option<u64>,
}

/// Sends what `input` yields and yields the replies. When it ends with nothing under way, the session goes back
/// to `home` for the next exchange.
pub struct Exchange<'s, S> {
    home: &'s mut Option<Session>,
    session: Option<Session>,
    follower: Follower,
    input: Option<S>,
    /// Replies come in this order.
    under_way: VecDeque<Sent>,
}

impl<'s, S> Exchange<'s, S> {
    pub fn new(home: &'s mut Option<Session>, session: Session, follower: Follower, input: S) -> Self {
        Self {
            home,
            session: Some(session),
            follower,
            input: Some(input),
            under_way: VecDeque::new(),
        }
    }
}

impl<S: Stream<Item = AppendEntriesRequest<TypeConfig>> + Unpin> Exchange<'_, S> {
    /// Sends whatever can be sent now.
    fn poll_send(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Status>> {
        let Some(session) = &mut self.session else {
            return Poll::Ready(Ok(()));
        };
        while let Some(input) = &mut self.input {
            let reserved = ready!(session.requests.poll_reserve(cx));
            reserved.map_err(|_| Status::unavailable("the append stream is closed"))?;
            match ready!(input.poll_next_unpin(cx)) {
                None => self.input = None,
                Some(request) => {
                    let under_way = self.follower.sent(&request);
                    let sent = session.requests.send_item(request_to_pb(&request));
                    sent.map_err(|_| Status::unavailable("the append stream is closed"))?;
                    self.under_way.push_back(under_way);
                }
            }
        }
        Poll::Ready(Ok(()))
    }

    fn fail(&mut self, status: Status) -> Poll<Option<AppendResult>> {
        self.session = None;
        self.input = None;
        Poll::Ready(Some(Err(rpc_error(&status))))
    }
}

impl<S: Stream<Item = AppendEntriesRequest<TypeConfig>> + Unpin> Stream for Exchange<'_, S> {
    type Item = AppendResult;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<AppendResult>> {
        let this = &mut *self;
        // A closed stream is told by the replies, with the reason.
        if let Poll::Ready(Err(status)) = this.poll_send(cx)
            && this.under_way.is_empty()
        {
            return this.fail(status);
        }
        if this.input.is_none() && this.under_way.is_empty() {
            return Poll::Ready(None);
        }
        let Some(session) = &mut this.session else {
            return Poll::Ready(None);
        };
        match ready!(session.replies.poll_next_unpin(cx)) {
            Some(Ok(reply)) => match reply_from_pb(reply) {
                Ok(result) => {
                    let Some(sent) = this.under_way.pop_front() else {
                        return this.fail(Status::internal("an append reply that answers no request"));
                    };
                    if let Err(status) = this.follower.answered(sent, &result) {
                        return this.fail(status);
                    }
                    if result.is_err() {
                        // The follower ends its side after a conflict or a higher vote.
                        this.session = None;
                        this.input = None;
                        this.under_way.clear();
                    }
                    Poll::Ready(Some(Ok(result)))
                }
                Err(status) => this.fail(status),
            },
            Some(Err(status)) => this.fail(status),
            None => this.fail(Status::unavailable("the follower closed the append stream")),
        }
    }
}

impl<S> Drop for Exchange<'_, S> {
    fn drop(&mut self) {
        if self.under_way.is_empty() {
            *self.home = self.session.take();
        }
    }
}
