//! Listeners: bound before anything else, then one accept loop each, which waits for nobody that it has accepted:
//! [`Entrance`] says who may stay. A connection speaks HTTP/1.1 or HTTP/2, on TLS or not, and is handed, request by
//! request, to a [`Handler`].

use std::{
    convert::Infallible,
    io,
    net::{SocketAddr, TcpListener},
    pin::pin,
    sync::Arc,
    time::Duration,
};

use barque_entrance::{Entrance, Ticket, Visitor};
use http::{Request, Response};
use hyper::{body::Incoming, service::service_fn};
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::conn::auto,
};
use rustls::ServerConfig;
use rustls_pki_types::CertificateDer;
use socket2::{Domain, Protocol, SockRef, Socket, TcpKeepalive, Type};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
};
use tokio_rustls::TlsAcceptor;

use super::{
    activity::Activity,
    authority::Mended,
    config::{Config, Serving},
    drain::Drain,
    front::Body,
    greeting::Greeting,
};
use crate::urls::Url;

/// Thousands of watchers may come back in the same second.
const BACKLOG: i32 = 4096;
/// Between two requests on a connection of HTTP/1, and for the head of the second: kube-apiserver's, which is that of
/// Go's clients too. Before the first request the entrance's patience counts.
pub const IDLE_TIMEOUT: Duration = Duration::from_secs(90);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(60);
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(20);
const WINDOW_BYTES: u32 = 1 << 20;
const HEADER_LIST_BYTES: u32 = 64 * 1024;
/// Clients that cancel many watches at once are no attack yet.
const PENDING_RESETS: usize = 1000;

/// Every socket of a master, bound.
pub struct Bound {
    pub peers: Vec<TcpListener>,
    pub fronts: Fronts,
}

/// By what is served on them.
pub struct Fronts {
    pub client: Vec<Listener>,
    pub api: Vec<Listener>,
    pub metrics: Vec<Listener>,
}

pub struct Listener {
    socket: TcpListener,
    tls: Option<Arc<ServerConfig>>,
}

impl Bound {
    pub fn bind(config: &Config) -> anyhow::Result<Bound> {
        Ok(Bound {
            peers: config.peer_urls.iter().map(bind).collect::<anyhow::Result<_>>()?,
            fronts: Fronts {
                client: Listener::bind_all(&config.client)?,
                api: match &config.api {
                    Some(api) => Listener::bind_all(&api.serving)?,
                    None => Vec::new(),
                },
                metrics: Listener::bind_all(&config.metrics)?,
            },
        })
    }
}

impl Listener {
    fn bind_all(serving: &Serving) -> anyhow::Result<Vec<Listener>> {
        let one = |url: &Url| {
            let tls = url.https.then(|| serving.tls.clone()).flatten();
            Ok(Listener {
                socket: bind(url)?,
                tls,
            })
        };
        serving.urls.iter().map(one).collect()
    }
}

fn bind(url: &Url) -> anyhow::Result<TcpListener> {
    let address = url.bind_address()?;
    let listen = || -> io::Result<TcpListener> {
        let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
        socket.set_reuse_address(true)?;
        socket.set_nonblocking(true)?;
        socket.bind(&address.into())?;
        socket.listen(BACKLOG)?;
        Ok(socket.into())
    };
    listen().map_err(|error| bind_error(address, &error))
}

/// In the words that operators of etcd know.
pub fn bind_error(address: SocketAddr, error: &io::Error) -> anyhow::Error {
    let why = match error.kind() {
        io::ErrorKind::AddrInUse => "address already in use".to_owned(),
        io::ErrorKind::AddrNotAvailable => "cannot assign requested address".to_owned(),
        io::ErrorKind::PermissionDenied => "permission denied".to_owned(),
        _ => error.to_string(),
    };
    anyhow::anyhow!("listen tcp {address}: bind: {why}")
}

/// Who is at the other end of a connection.
#[derive(Clone)]
pub struct Remote {
    pub address: SocketAddr,
    /// The client's certificate, verified by the listener; `None` for one that showed none.
    pub certificate: Option<CertificateDer<'static>>,
}

/// What answers requests; cloned per request.
pub trait Handler: Clone + Send + Sync + 'static {
    fn handle(
        &self,
        request: Request<Incoming>,
        remote: Remote,
    ) -> impl Future<Output = Response<Body>> + Send;
}

/// What one kind of listener grants.
#[derive(Clone)]
pub struct Terms {
    pub entrance: Entrance,
    pub manners: Manners,
}

/// How long and how much one connection may ask.
#[derive(Debug, Clone, Copy)]
pub struct Manners {
    /// Streams of HTTP/2 that may be open at once. Each is a task, and buffers.
    pub streams: u32,
    /// A connection of HTTP/2 is closed after so long without a stream; `None`: never while it answers pings.
    pub idle_timeout: Option<Duration>,
}

/// Accepts until the drain begins.
pub async fn accept_loop<H: Handler>(listener: Listener, handler: H, terms: Terms, drain: Drain) {
    let socket = match tokio::net::TcpListener::from_std(listener.socket) {
        Ok(socket) => socket,
        Err(error) => return tracing::error!(%error, "a listener cannot be served"),
    };
    let service = Arc::new(Service {
        acceptor: listener.tls.map(TlsAcceptor::from),
        handler,
        manners: terms.manners,
        drain: drain.clone(),
    });
    loop {
        let accepted = tokio::select! {
            () = drain.begun() => return,
            accepted = socket.accept() => accepted,
        };
        let Some(visitor) = terms.entrance.admit(accepted).await else {
            continue;
        };
        drain.track(greet(visitor, service.clone()));
    }
}

/// What every connection of a listener is served with.
struct Service<H> {
    acceptor: Option<TlsAcceptor>,
    handler: H,
    manners: Manners,
    drain: Drain,
}

/// Waits for the first byte in a task that holds nothing yet: buffers, TLS and HTTP are for those that want something.
async fn greet<H: Handler>(mut visitor: Visitor<TcpStream>, service: Arc<Service<H>>) {
    if let Err(error) = prepare(visitor.get_ref()) {
        return tracing::debug!(%error, "the connection is gone already");
    }
    tokio::select! {
        spoke = visitor.speaks() => if spoke.is_err() { return },
        () = service.drain.begun() => return,
    }
    let drain = service.drain.clone();
    drain.track(async move { service.serve(visitor).await });
}

impl<H: Handler> Service<H> {
    async fn serve(&self, visitor: Visitor<TcpStream>) {
        let ticket = visitor.ticket();
        let address = ticket.address();
        let Some(acceptor) = &self.acceptor else {
            let remote = Remote {
                address,
                certificate: None,
            };
            return self.speak_http(Mended::new(visitor), remote, ticket).await;
        };
        // A handshake that takes too long ends with the visitor.
        let accepted = tokio::select! {
            accepted = acceptor.accept(visitor) => accepted,
            () = self.drain.begun() => return,
        };
        match accepted {
            Ok(stream) => {
                let shown = stream.get_ref().1.peer_certificates();
                let certificate = shown
                    .and_then(|chain| chain.first())
                    .map(|leaf| leaf.clone().into_owned());
                self.speak_http(stream, Remote { address, certificate }, ticket)
                    .await;
            }
            Err(error) => ticket.handshake_failed(&error),
        }
    }

    async fn speak_http(
        &self,
        stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
        remote: Remote,
        ticket: Ticket,
    ) {
        let address = remote.address;
        let stream = Greeting::new(stream, ticket.clone());
        let activity = Activity::default();
        let (requests, handler) = (activity.clone(), self.handler.clone());
        let service = service_fn(move |request| {
            ticket.settle();
            let busy = requests.begin();
            let (handler, remote) = (handler.clone(), remote.clone());
            async move {
                let response = handler.handle(request, remote).await;
                Ok::<_, Infallible>(busy.until_answered(response))
            }
        });
        let server = server(self.manners.streams);
        let mut connection = pin!(server.serve_connection(TokioIo::new(stream), service));
        let ended = tokio::select! {
            ended = connection.as_mut() => ended,
            () = self.nothing_more(&activity) => {
                connection.as_mut().graceful_shutdown();
                tokio::select! {
                    ended = connection.as_mut() => ended,
                    () = self.drain.over() => Ok(()),
                }
            }
        };
        if let Err(error) = ended {
            tracing::debug!(%address, %error, "connection ended");
        }
    }

    /// Resolves when a connection is to take no more requests.
    async fn nothing_more(&self, activity: &Activity) {
        let idle = async {
            match self.manners.idle_timeout {
                Some(timeout) => activity.idle(timeout).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = self.drain.begun() => {}
            () = idle => {}
        }
    }
}

/// A client that vanished before it ever spoke is noticed by the kernel alone.
fn prepare(stream: &TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let probes = TcpKeepalive::new()
        .with_time(KEEPALIVE_INTERVAL)
        .with_interval(KEEPALIVE_TIMEOUT);
    SockRef::from(stream).set_tcp_keepalive(&probes)
}

fn server(streams: u32) -> auto::Builder<TokioExecutor> {
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(IDLE_TIMEOUT);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(streams)
        .initial_stream_window_size(WINDOW_BYTES)
        .initial_connection_window_size(4 * WINDOW_BYTES)
        .max_header_list_size(HEADER_LIST_BYTES)
        .max_pending_accept_reset_streams(PENDING_RESETS)
        .keep_alive_interval(KEEPALIVE_INTERVAL)
        .keep_alive_timeout(KEEPALIVE_TIMEOUT);
    builder
}

#[cfg(test)]
mod tests;
