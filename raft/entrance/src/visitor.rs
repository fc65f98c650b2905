//! A connection that came in: [`Visitor`], and the [`Ticket`] with which whoever serves it says that it has settled.

use std::{
    fmt,
    future::poll_fn,
    io,
    net::SocketAddr,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU8, Ordering},
    },
    task::{Context, Poll, ready},
    time::Duration,
};

use futures_util::task::AtomicWaker;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
    time::{Sleep, sleep},
};

use crate::{Entrance, notices::Why, origin::Origin};

const NEW: u8 = 0;
const SETTLED: u8 = 1;
const DISPLACED: u8 = 2;

/// A connection's place.
pub(crate) struct Slot {
    entrance: Entrance,
    pub number: u64,
    pub origin: Origin,
    pub address: SocketAddr,
    stage: AtomicU8,
    waker: AtomicWaker,
}

impl fmt::Debug for Slot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Slot").field(&self.number).finish()
    }
}

impl Slot {
    pub fn new(entrance: Entrance, number: u64, origin: Origin, address: SocketAddr) -> Self {
        Self {
            entrance,
            number,
            origin,
            address,
            stage: AtomicU8::new(NEW),
            waker: AtomicWaker::new(),
        }
    }

    pub fn is_settled(&self) -> bool {
        self.stage.load(Ordering::Acquire) == SETTLED
    }

    pub fn settled(&self) {
        self.stage.store(SETTLED, Ordering::Release);
    }

    pub fn displaced(&self) {
        self.stage.store(DISPLACED, Ordering::Release);
        self.waker.wake();
    }
}

/// Says of a connection that it has settled; cheap to clone, and of no use once the connection is closed.
#[derive(Debug, Clone)]
pub struct Ticket(Arc<Slot>);

impl Ticket {
    pub fn address(&self) -> SocketAddr {
        self.0.address
    }

    /// From now on neither time nor other newcomers end it. Saying so again costs nothing.
    pub fn settle(&self) {
        if self.0.stage.load(Ordering::Acquire) == NEW {
            self.0.entrance.settle(&self.0);
        }
    }

    /// The TLS handshake did not come to its end. Who hung up has its reasons: scanners and probes that only connect
    /// are daily life. Who was refused is told of, since whoever looks for the reason sees no more than a closed
    /// connection.
    pub fn handshake_failed(&self, error: &io::Error) {
        let (entrance, address) = (&self.0.entrance, self.0.address);
        // What the TLS library refuses is invalid data, whatever is wrong with it.
        if error.kind() == io::ErrorKind::InvalidData {
            return entrance.note(Why::Handshake, address, Some(error.to_string().as_str()));
        }
        tracing::debug!(listener = entrance.listener(), %address, %error, "a handshake came to no end");
    }
}

/// A connection in its place. While it is new, reading fails when its time is over or its place is needed: whatever
/// is above it, TLS or HTTP, ends as it does when the other end has closed.
pub struct Visitor<S> {
    stream: S,
    ticket: Ticket,
    /// `None`: it has settled.
    newness: Option<Newness>,
}

struct Newness {
    deadline: Pin<Box<Sleep>>,
    has_spoken: bool,
}

impl<S> Visitor<S> {
    pub(crate) fn new(stream: S, slot: Arc<Slot>, patience: Duration) -> Self {
        Self {
            stream,
            ticket: Ticket(slot),
            newness: Some(Newness {
                deadline: Box::pin(sleep(patience)),
                has_spoken: false,
            }),
        }
    }

    pub fn ticket(&self) -> Ticket {
        self.ticket.clone()
    }

    pub fn get_ref(&self) -> &S {
        &self.stream
    }

    /// Resolves to why the connection must end, while it is new.
    fn poll_ended(&mut self, cx: &mut Context<'_>) -> Poll<io::Error> {
        let Some(newness) = &mut self.newness else {
            return Poll::Pending;
        };
        let slot = &self.ticket.0;
        // Registered before the stage is looked at, or a wake in between would be lost.
        slot.waker.register(cx.waker());
        match slot.stage.load(Ordering::Acquire) {
            SETTLED => self.newness = None,
            DISPLACED => {
                return Poll::Ready(io::Error::new(
                    io::ErrorKind::ConnectionAborted,
                    "another connection needed its place",
                ));
            }
            _ => {
                ready!(newness.deadline.as_mut().poll(cx));
                if slot.entrance.expire(slot) {
                    return Poll::Ready(io::Error::new(io::ErrorKind::TimedOut, "no request in time"));
                }
                // It has settled, or was displaced, at this very moment.
                cx.waker().wake_by_ref();
            }
        }
        Poll::Pending
    }

    fn has_spoken(&mut self) {
        if let Some(newness) = &mut self.newness
            && !std::mem::replace(&mut newness.has_spoken, true)
        {
            self.ticket.0.entrance.spoke(&self.ticket.0);
        }
    }
}

impl Visitor<TcpStream> {
    /// Resolves when there is something to read. Until then a connection needs no buffers: what would serve it had
    /// better be made afterwards.
    pub async fn speaks(&mut self) -> io::Result<()> {
        poll_fn(|cx| match self.poll_ended(cx) {
            Poll::Ready(error) => Poll::Ready(Err(error)),
            Poll::Pending => self.stream.poll_read_ready(cx),
        })
        .await
    }
}

impl<S> Drop for Visitor<S> {
    fn drop(&mut self) {
        self.ticket.0.entrance.leave(&self.ticket.0);
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Visitor<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if let Poll::Ready(error) = this.poll_ended(cx) {
            return Poll::Ready(Err(error));
        }
        let before = buf.filled().len();
        ready!(Pin::new(&mut this.stream).poll_read(cx, buf))?;
        if buf.filled().len() > before {
            this.has_spoken();
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Visitor<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        match self.poll_ended(cx) {
            Poll::Ready(error) => Poll::Ready(Err(error)),
            Poll::Pending => Pin::new(&mut self.stream).poll_write(cx, buf),
        }
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.poll_ended(cx) {
            Poll::Ready(error) => Poll::Ready(Err(error)),
            Poll::Pending => Pin::new(&mut self.stream).poll_write_vectored(cx, bufs),
        }
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.poll_ended(cx) {
            Poll::Ready(error) => Poll::Ready(Err(error)),
            Poll::Pending => Pin::new(&mut self.stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
