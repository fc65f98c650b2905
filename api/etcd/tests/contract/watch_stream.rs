//! [`WatchStream`]: one Watch RPC, request by request and response by response.

use std::time::Duration;

use barque_proto::etcd::{
    etcdserverpb::{
        WatchCancelRequest, WatchCreateRequest, WatchProgressRequest, WatchRequest, WatchResponse,
        watch_request::RequestUnion,
    },
    mvccpb::Event,
};
use bytes::Bytes;
use tokio::{sync::mpsc, task::JoinHandle, time::timeout};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

use crate::client::{PATIENCE, Target};

const ASK_AGAIN: Duration = Duration::from_millis(300);

type Opening = JoinHandle<Result<Response<Streaming<WatchResponse>>, Status>>;

pub struct WatchStream {
    requests: mpsc::Sender<WatchRequest>,
    // Servers send the headers with their first answer, which needs a first request.
    opening: Option<Opening>,
    responses: Option<Streaming<WatchResponse>>,
}

impl WatchStream {
    pub async fn open(t: &Target) -> WatchStream {
        WatchStream::open_with(t, false)
    }

    /// With the metadata by which a client asks to be cut off from a member without a leader.
    pub fn open_with(t: &Target, has_leader: bool) -> WatchStream {
        let (requests, receiver) = mpsc::channel(1024);
        let mut request = Request::new(ReceiverStream::new(receiver));
        if has_leader {
            request
                .metadata_mut()
                .insert("hasleader", "true".parse().unwrap());
        }
        let mut client = t.watch();
        let opening = tokio::spawn(async move { client.watch(request).await });
        WatchStream {
            requests,
            opening: Some(opening),
            responses: None,
        }
    }

    pub async fn create(&self, request: WatchCreateRequest) {
        self.send(RequestUnion::CreateRequest(request)).await;
    }

    pub async fn cancel(&self, watch_id: i64) {
        self.send(RequestUnion::CancelRequest(WatchCancelRequest { watch_id }))
            .await;
    }

    pub async fn request_progress(&self) {
        self.send(RequestUnion::ProgressRequest(WatchProgressRequest {}))
            .await;
    }

    /// Nothing more is asked for; what is watched goes on.
    pub fn close_requests(&mut self) {
        self.requests = mpsc::channel(1).0;
    }

    async fn send(&self, union: RequestUnion) {
        self.requests
            .send(WatchRequest {
                request_union: Some(union),
            })
            .await
            .expect("the stream is open");
    }

    pub async fn try_next(&mut self) -> Result<WatchResponse, Status> {
        if let Some(opening) = self.opening.take() {
            let opened = timeout(PATIENCE, opening)
                .await
                .expect("an answer in time")
                .unwrap();
            self.responses = Some(opened?.into_inner());
        }
        let responses = self.responses.as_mut().expect("opened");
        let message = timeout(PATIENCE, responses.message())
            .await
            .expect("a response in time");
        Ok(message?.expect("the stream goes on"))
    }

    pub async fn next(&mut self) -> WatchResponse {
        self.try_next().await.unwrap()
    }

    /// Asks until progress is answered: a server is silent while it holds a watch of the stream to be behind.
    pub async fn progress(&mut self) -> WatchResponse {
        for _ in 0..PATIENCE.as_millis() / ASK_AGAIN.as_millis() {
            self.request_progress().await;
            let responses = self.responses.as_mut().expect("something was created before");
            if let Ok(message) = timeout(ASK_AGAIN, responses.message()).await {
                let response = message.unwrap().expect("the stream goes on");
                assert!(
                    response.events.is_empty() && !response.created && !response.canceled,
                    "{response:?}"
                );
                assert_eq!(response.watch_id, -1);
                return response;
            }
        }
        panic!("no progress in {PATIENCE:?}");
    }

    /// The next response, which must be the answer to a create that worked; its watch id.
    pub async fn created(&mut self) -> i64 {
        let response = self.next().await;
        assert!(
            response.created && !response.canceled && response.events.is_empty(),
            "{response:?}"
        );
        response.watch_id
    }

    /// The events of the next response.
    pub async fn events(&mut self) -> Vec<Event> {
        let response = self.next().await;
        assert!(!response.created && !response.canceled, "{response:?}");
        assert!(
            !response.events.is_empty(),
            "progress instead of events: {response:?}"
        );
        response.events
    }

    /// The mod revisions of the next `count` events, over as many responses as they come in.
    pub async fn revisions(&mut self, count: usize) -> Vec<i64> {
        let mut revisions = Vec::new();
        while revisions.len() < count {
            revisions.extend(self.events().await.iter().map(mod_revision));
        }
        revisions
    }
}

pub fn mod_revision(event: &Event) -> i64 {
    event.kv.as_ref().expect("every event has a kv").mod_revision
}

/// A watch of everything that the check writes, from the next change on.
pub fn everything(t: &Target) -> WatchCreateRequest {
    let (key, range_end) = t.all();
    from(key, range_end, 0)
}

/// The same from a revision on.
pub fn since(t: &Target, start_revision: i64) -> WatchCreateRequest {
    WatchCreateRequest {
        start_revision,
        ..everything(t)
    }
}

pub fn from(key: Bytes, range_end: Bytes, start_revision: i64) -> WatchCreateRequest {
    WatchCreateRequest {
        key,
        range_end,
        start_revision,
        ..WatchCreateRequest::default()
    }
}
