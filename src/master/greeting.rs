//! The first words on a connection: [`Greeting`] sees HTTP/2's preface go by.
//!
//! A client of HTTP/2 has settled with its preface, as its first request may be long in coming: etcd's clients connect
//! when they are made. One of HTTP/1 settles with its first request, of which it cannot be known before what it is.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll, ready},
};

use barque_entrance::Ticket;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

pub struct Greeting<S> {
    stream: S,
    /// With how much of the preface was read; `None`: it was read, or something else was.
    hears: Option<(Ticket, usize)>,
}

impl<S> Greeting<S> {
    pub fn new(stream: S, ticket: Ticket) -> Self {
        Self {
            stream,
            hears: Some((ticket, 0)),
        }
    }

    fn hear(&mut self, bytes: &[u8]) {
        let Some((ticket, heard)) = &mut self.hears else {
            return;
        };
        let rest = &PREFACE[*heard..];
        let length = rest.len().min(bytes.len());
        if rest[..length] != bytes[..length] {
            self.hears = None;
        } else if length == rest.len() {
            ticket.settle();
            self.hears = None;
        } else {
            *heard += length;
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Greeting<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(cx, buf))?;
        self.hear(&buf.filled()[before..]);
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Greeting<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use barque_entrance::{Bounds, Entrance};
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    /// Whether a connection on which this is said, a few bytes at a time, has settled.
    async fn settles(said: &[u8]) -> bool {
        let entrance = Entrance::new("test", Bounds::shared(10, 10, Duration::from_secs(60)));
        for piece in [1, 5, 100] {
            let (mut client, server) = tokio::io::duplex(1024);
            let visitor = entrance.enter(server, ([127, 0, 0, 1], 1).into()).unwrap();
            let ticket = visitor.ticket();
            let mut greeting = Greeting::new(visitor, ticket);
            for bytes in said.chunks(piece) {
                client.write_all(bytes).await.unwrap();
                greeting.read_exact(&mut vec![0; bytes.len()]).await.unwrap();
            }
            if entrance.figures().newcomers != 0 {
                return false;
            }
        }
        true
    }

    #[tokio::test]
    async fn a_whole_preface_is_heard_and_nothing_else() {
        assert!(settles(PREFACE).await);
        assert!(settles(&[PREFACE, b"and more"].concat()).await);
        assert!(!settles(&PREFACE[..23]).await);
        assert!(!settles(b"PRI * HTTP/2.1\r\n\r\nSM\r\n\r\n").await);
        assert!(!settles(b"GET / HTTP/1.1\r\nhost: x\r\n").await);
    }
}
