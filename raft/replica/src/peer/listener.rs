//! Accepts peers' connections: a bounded number of TLS handshakes, each in a bounded time.

use std::{io, sync::Arc, time::Duration};

use tokio::sync::{Semaphore, mpsc};
use tokio_rustls::TlsAcceptor;

use super::socket::Socket;
use crate::{Connection, Listener};

const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);
const HANDSHAKES: usize = 64;

pub type Incoming = tokio_stream::wrappers::ReceiverStream<io::Result<Socket>>;

/// What the listeners accept comes out of the stream.
pub fn accept(listeners: Vec<Box<dyn Listener>>, tls: Option<Arc<rustls::ServerConfig>>) -> Incoming {
    let (tx, rx) = mpsc::channel(64);
    let acceptor = tls.map(with_h2).map(TlsAcceptor::from);
    let handshakes = Arc::new(Semaphore::new(HANDSHAKES));
    for listener in listeners {
        tokio::spawn(accept_loop(
            listener,
            acceptor.clone(),
            handshakes.clone(),
            tx.clone(),
        ));
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
    handshakes: Arc<Semaphore>,
    tx: mpsc::Sender<io::Result<Socket>>,
) {
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = tx.closed() => return,
        };
        let stream = match accepted {
            Ok(stream) => stream,
            Err(error) => {
                // Out of descriptors, most likely: give others time to close theirs.
                tracing::warn!(%error, "cannot accept a peer's connection");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let Ok(permit) = handshakes.clone().acquire_owned().await else {
            return;
        };
        let (acceptor, tx) = (acceptor.clone(), tx.clone());
        tokio::spawn(async move {
            let opened = tokio::time::timeout(HANDSHAKE_TIMEOUT, open(stream, acceptor)).await;
            drop(permit);
            match opened {
                Ok(Ok(socket)) => drop(tx.send(Ok(socket)).await),
                Ok(Err(error)) => tracing::warn!(%error, "a peer's connection failed"),
                Err(_) => tracing::debug!("a peer's TLS handshake took too long"),
            }
        });
    }
}

async fn open(stream: Box<dyn Connection>, acceptor: Option<TlsAcceptor>) -> io::Result<Socket> {
    match acceptor {
        None => Ok(Socket::Plain(stream)),
        Some(acceptor) => Ok(Socket::Tls(Box::new(acceptor.accept(stream).await?.into()))),
    }
}
