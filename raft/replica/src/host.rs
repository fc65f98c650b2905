//! What a member stands on: the operating system, or a simulation of one.
//!
//! [`Host`] opens the store and the log and carries bytes between members. [`RealHost`] is the one of every real
//! member; the simulator has another, in which disks and networks fail as a seed decides.

use std::{io, net::SocketAddr, path::Path};

use barque_store::{Applier, Store, StoreConfig, StoreError};
use barque_wal::{Recovered, Wal, WalConfig, files::RealFiles};
use futures_util::future::BoxFuture;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpStream},
};

pub trait Host: Send + Sync + 'static {
    fn open_store(&self, config: StoreConfig) -> Result<(Store, Applier), StoreError>;

    fn open_log(&self, dir: &Path, config: WalConfig) -> io::Result<(Wal, Recovered)>;

    fn connect<'a>(&'a self, host: &'a str, port: u16) -> BoxFuture<'a, io::Result<Box<dyn Connection>>>;

    /// Takes over the listeners that the member was started with, or makes its own.
    fn listen(&self, bound: Vec<std::net::TcpListener>) -> io::Result<Vec<Box<dyn Listener>>>;
}

/// A stream of bytes to or from a peer.
pub trait Connection: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Connection for T {}

pub trait Listener: Send {
    /// A connection, and where it comes from.
    fn accept(&mut self) -> BoxFuture<'_, io::Result<(Box<dyn Connection>, SocketAddr)>>;
}

/// The operating system.
#[derive(Debug, Clone, Copy, Default)]
pub struct RealHost;

impl Host for RealHost {
    fn open_store(&self, config: StoreConfig) -> Result<(Store, Applier), StoreError> {
        Store::open(config)
    }

    fn open_log(&self, dir: &Path, config: WalConfig) -> io::Result<(Wal, Recovered)> {
        Wal::open(dir, std::sync::Arc::new(RealFiles), config)
    }

    fn connect<'a>(&'a self, host: &'a str, port: u16) -> BoxFuture<'a, io::Result<Box<dyn Connection>>> {
        Box::pin(async move { without_delay(TcpStream::connect((host, port)).await?) })
    }

    fn listen(&self, bound: Vec<std::net::TcpListener>) -> io::Result<Vec<Box<dyn Listener>>> {
        let take_over = |listener: std::net::TcpListener| {
            listener.set_nonblocking(true)?;
            Ok(Box::new(TcpListener::from_std(listener)?) as Box<dyn Listener>)
        };
        bound.into_iter().map(take_over).collect()
    }
}

impl Listener for TcpListener {
    fn accept(&mut self) -> BoxFuture<'_, io::Result<(Box<dyn Connection>, SocketAddr)>> {
        Box::pin(async move {
            let (stream, address) = TcpListener::accept(self).await?;
            Ok((without_delay(stream)?, address))
        })
    }
}

fn without_delay(stream: TcpStream) -> io::Result<Box<dyn Connection>> {
    stream.set_nodelay(true)?;
    Ok(Box::new(stream))
}
