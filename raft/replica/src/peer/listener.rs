//! Accepts peers' connections. Each is a newcomer to the port's [`Entrance`] until its first call was admitted, so
//! that nobody who says nothing keeps a peer out.

use std::{
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use barque_entrance::{Bounds, Entrance, Ticket, Visitor};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    sync::mpsc,
};
use tokio_rustls::TlsAcceptor;
use tonic::transport::server::Connected;

use super::{
    certificate::{Certificate, Shown},
    socket::Socket,
};
use crate::{Connection, Listener, tasks::Tasks};

/// A TLS handshake and the first call are three round trips, and there are at least ten to an election timeout
/// (`docs/failover.md`). The floor is for machines that are busy with something else: a lost packet alone costs
/// 200 ms, and a newcomer that is slow keeps nobody out.
const LEAST_PATIENCE: Duration = Duration::from_secs(1);
/// Each costs some 15 KiB at most. A handshake of a millisecond survives unless this many others come and speak
/// meanwhile.
const NEWCOMERS: usize = 1024;
/// Members open three connections to each other; the largest cluster on one machine, seven members, some forty per
/// port. The rest is for those that were cut and are not missed yet.
const CONNECTIONS: usize = 2048;

pub type Incoming = tokio_stream::wrappers::ReceiverStream<io::Result<Accepted>>;

/// How long a connection may take to be of use, and so how long connecting may take.
pub fn patience(election_timeout: Duration) -> Duration {
    election_timeout.max(LEAST_PATIENCE)
}

/// Several members may share an address: on one machine, or behind a router that translates addresses.
pub fn entrance(election_timeout: Duration) -> Entrance {
    let bounds = Bounds::shared(NEWCOMERS, CONNECTIONS, patience(election_timeout));
    Entrance::new("peer", bounds)
}

/// What the listeners accept comes out of the stream.
pub fn accept(
    listeners: Vec<Box<dyn Listener>>,
    tls: Option<Arc<rustls::ServerConfig>>,
    entrance: &Entrance,
    tasks: &Tasks,
) -> Incoming {
    let (tx, rx) = mpsc::channel(64);
    let acceptor = tls.map(with_h2).map(TlsAcceptor::from);
    for listener in listeners {
        let accepting = accept_loop(listener, acceptor.clone(), entrance.clone(), tx.clone());
        tasks.spawn("that accepts peers", accepting);
    }
    tokio_stream::wrappers::ReceiverStream::new(rx)
}

fn with_h2(config: Arc<rustls::ServerConfig>) -> Arc<rustls::ServerConfig> {
    let mut config = Arc::unwrap_or_clone(config);
    config.alpn_protocols = vec![b"h2".to_vec()];
    Arc::new(config)
}

async fn accept_loop(
    mut listener: Box<dyn Listener>,
    acceptor: Option<TlsAcceptor>,
    entrance: Entrance,
    tx: mpsc::Sender<io::Result<Accepted>>,
) {
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = tx.closed() => return,
        };
        let Some(visitor) = entrance.admit(accepted).await else {
            continue;
        };
        let (acceptor, tx) = (acceptor.clone(), tx.clone());
        // Ends with the visitor: when it has settled, has failed, or has lost its place.
        tokio::spawn(async move {
            let ticket = visitor.ticket();
            match open(visitor, acceptor).await {
                Ok(accepted) => drop(tx.send(Ok(accepted)).await),
                Err(error) => ticket.handshake_failed(&error),
            }
        });
    }
}

async fn open(visitor: Visitor<Box<dyn Connection>>, acceptor: Option<TlsAcceptor>) -> io::Result<Accepted> {
    let ticket = visitor.ticket();
    let stream: Box<dyn Connection> = Box::new(visitor);
    let Some(acceptor) = acceptor else {
        return Ok(Accepted::new(Socket::Plain(stream), ticket, None));
    };
    let socket = Socket::Tls(Box::new(acceptor.accept(stream).await?.into()));
    let certificate = socket.certificate().as_ref().map(Certificate::read);
    Ok(Accepted::new(socket, ticket, certificate))
}

/// A peer's connection, and what each call on it is told of it.
pub struct Accepted {
    socket: Socket,
    shown: Shown,
}

impl Accepted {
    fn new(socket: Socket, ticket: Ticket, certificate: Option<Certificate>) -> Self {
        Self {
            socket,
            shown: Shown::new(ticket, certificate),
        }
    }
}

impl Connected for Accepted {
    type ConnectInfo = Shown;

    fn connect_info(&self) -> Shown {
        self.shown.clone()
    }
}

impl AsyncRead for Accepted {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_read(cx, buf)
    }
}

impl AsyncWrite for Accepted {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.socket).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.socket).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.socket.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, KeyPair};
    use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::TcpStream,
    };

    use super::*;
    use crate::{Host, RealHost};

    fn server_config() -> Arc<rustls::ServerConfig> {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
        let chain = vec![params.self_signed(&key).unwrap().der().clone()];
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(chain, key)
            .unwrap();
        Arc::new(config)
    }

    /// None of the silent ones is closed before an hour is over: whoever is answered was not waiting for one.
    #[tokio::test]
    async fn a_handshake_waits_for_no_other() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let listeners = RealHost.listen(vec![listener]).unwrap();
        let entrance = entrance(Duration::from_secs(3600));
        let (tasks, _failed) = Tasks::new();
        let _incoming = accept(listeners, Some(server_config()), &entrance, &tasks);
        let mut silent = Vec::new();
        for _ in 0..200 {
            silent.push(TcpStream::connect(address).await.unwrap());
        }
        let mut client = TcpStream::connect(address).await.unwrap();
        client.write_all(b"this is no handshake").await.unwrap();
        // An alert: it was read, and judged.
        let answered = tokio::time::timeout(Duration::from_secs(30), client.read_u8()).await;
        assert_eq!(answered.expect("it takes too long").unwrap(), 0x15);
        let figures = entrance.figures();
        assert_eq!((figures.newcomers, figures.displaced, figures.late), (200, 0, 0));
    }

    #[test]
    fn slow_links_have_the_time_that_they_were_given() {
        assert_eq!(patience(Duration::from_millis(500)), LEAST_PATIENCE);
        assert_eq!(patience(Duration::from_secs(5)), Duration::from_secs(5));
    }
}
